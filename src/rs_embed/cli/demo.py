"""The demo: four models on the scene that comes with the package, as tables, pictures and files."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from rs_embed.api import get_embedding, inspect_chip
from rs_embed.cli.tables import embedding_row, table
from rs_embed.core.chip import Chip
from rs_embed.core.specs import OutputSpec, PointBuffer
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.plot import Panel, principal_components, save_figure, side_by_side, true_colour
from rs_embed.errors import ScaleWarning, StorageError, WeightsError

BASELINE = "mosaiks_rcf"
FOUNDATION_MODELS = ("thor_1_0_base", "terramind_1_0_base")
HEAVY_MODEL = "anysat_1_0_base"
SQUARE = PointBuffer(lon=12.9394, lat=47.7682, buffer_m=320)
"""Around the middle of the sample: the heavy model takes about a minute of one core for all of it."""
ATTRIBUTION = "Contains modified Copernicus Sentinel data 2017; BigEarthNet v2.0"
NEXT = """Next
  Open {grid} in QGIS: it lies at its true place, one layer per dimension.
  In Python: from rs_embed import Embedding; Embedding.load("{grid}").to_xarray()
  Your own scene: rs-embed embed {model} --raster scene.tif --output grid --out grid.tif"""


@dataclass(frozen=True)
class Timed:
    """An embedding, and how long it took."""

    embedding: Embedding
    seconds: float


def run_demo(out: Path, console: Console) -> int:
    """Run the baseline, THOR, TerraMind and AnySat on the sample, write their results, and say what to do next.

    Args:
        out: Folder for the results; made if it is not there.
        console: Where the table goes.

    Returns:
        The exit code, 0.

    Raises:
        StorageError: The folder cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Expected a folder at {str(out)!r}, got: {error}.", fix="name another by --out") from error
    chip = inspect_chip(BASELINE, backend="sample").chips["s2_12"]
    console.print(f"The sample: {chip.describe()}", soft_wrap=True)
    runs = [_run(model_id, console) for model_id in (BASELINE, *FOUNDATION_MODELS)]
    runs.append(_run(HEAVY_MODEL, console, SQUARE))
    console.print(table([embedding_row(timed.embedding, timed.seconds) for run in runs for timed in run]))
    console.print(
        'THOR\'s vector takes its default path, which resizes the chip to 288 px; its map takes input_prep="tile", '
        "which keeps the pixels of 10 m, as the others do anyway.",
        soft_wrap=True,
    )
    console.print(
        f"AnySat is by far the heaviest, so it runs on a square of {2 * SQUARE.buffer_m:g} m in the middle; its vector "
        "is its own tile token. It takes series of dates; the sample has one.",
        soft_wrap=True,
    )
    files = _write(out, chip, [(pooled.embedding, grid.embedding) for pooled, grid in runs])
    console.print("Wrote", *files, sep="\n  ", soft_wrap=True)
    console.print(NEXT.format(grid=out / f"{BASELINE}_grid.tif", model=BASELINE), soft_wrap=True)
    return 0


def _run(model_id: str, console: Console, place: PointBuffer | None = None) -> tuple[Timed, Timed]:
    """Vector and map; with random weights where the trained ones cannot be had."""
    call: Callable[..., Embedding] = partial(get_embedding, model_id, place, backend="sample")
    try:
        pooled = _timed(partial(call, output=OutputSpec.pooled()))
    except WeightsError as error:
        why = f"{error.headline} Fix: {error.fix}."
        console.print(f"{model_id} runs with random weights. {why}", style="yellow", soft_wrap=True)
        call = partial(call, pretrained=False)
        pooled = _timed(partial(call, output=OutputSpec.pooled()))
    return pooled, _timed(partial(call, output=OutputSpec.grid(), input_prep="tile"))


def _timed(call: Callable[[], Embedding]) -> Timed:
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScaleWarning)  # table and text of the demo say the same
        embedding = call()
    return Timed(embedding, time.perf_counter() - started)


def _write(out: Path, chip: Chip, results: Sequence[tuple[Embedding, Embedding]]) -> list[Path]:
    """Pictures of everything, and vector and map of each model."""
    files = [out / "overview.png", out / "sample_rgb.png"]
    panels = [true_colour(chip), *(principal_components(grid) for _, grid in results)]
    in_place = [panels[0], *(_on_scene(panel, panels[0]) for panel in panels[1:])]
    save_figure(side_by_side(in_place, ATTRIBUTION), files[0])
    save_figure(side_by_side(panels[:1], ATTRIBUTION), files[1])
    for (pooled, grid), panel in zip(results, panels[1:], strict=True):
        stem = pooled.meta.model_id + ("_random_weights" if pooled.meta.warning else "")
        picture = out / f"{stem}_pca.png"
        save_figure(side_by_side([panel], ATTRIBUTION), picture)
        files += [picture, grid.save(out / f"{stem}_grid.tif"), pooled.save(out / f"{stem}_pooled.npz")]
    return files


def _on_scene(panel: Panel, scene: Panel) -> Panel:
    """A panel that covers only a part of the scene, on a pale copy of it; others as they are."""
    if panel.geobox is None or scene.geobox is None:
        return panel
    times = round(panel.geobox.resolution.x / scene.geobox.resolution.x)
    fine = panel.image.repeat(times, axis=0).repeat(times, axis=1)
    height, width = fine.shape[:2]
    if height >= scene.image.shape[0]:
        return panel
    col, row = (round(px) for px in ~scene.geobox.affine @ panel.geobox.affine @ (0, 0))
    image = 1 - 0.3 * (1 - scene.image)
    image[row : row + height, col : col + width] = fine
    return replace(panel, image=image, geobox=scene.geobox)
