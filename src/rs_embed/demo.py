"""The demo: two models on the scene that comes with the package, as tables, pictures and files."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rich.console import Console

from rs_embed.api import get_embedding, inspect_chip
from rs_embed.chip import Chip
from rs_embed.cli import table
from rs_embed.embedding import Embedding
from rs_embed.errors import ScaleWarning, StorageError, WeightsError
from rs_embed.pictures import chip_rgb, pca_rgb, save_figure
from rs_embed.specs import OutputSpec

BASELINE, FOUNDATION_MODEL = "mosaiks_rcf", "thor_1_0_base"
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


@dataclass(frozen=True)
class Panel:
    """A picture with its place."""

    title: str
    image: NDArray[np.float32]
    """`[H, W, 3]` in 0..1."""
    geobox: GeoBox | None

    @property
    def unit(self) -> str:
        """Of the axes."""
        return "px" if self.geobox is None else "km"

    def edges(self) -> tuple[float, float, float, float]:
        """West, east, south, north in that unit."""
        if self.geobox is None:
            height, width, _ = self.image.shape
            return 0.0, width, 0.0, height
        box = self.geobox.boundingbox
        return box.left / 1000, box.right / 1000, box.bottom / 1000, box.top / 1000


def run_demo(out: Path, console: Console) -> int:
    """Run the baseline and THOR on the sample, write their results, and say what to do next.

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
        raise StorageError(f"Wanted a folder at {str(out)!r}, found: {error}.", fix="name another by --out") from error
    chip = inspect_chip(BASELINE, backend="sample").chips["s2_12"]
    console.print(f"The sample: {chip.describe()}", soft_wrap=True)
    runs = [_run(BASELINE, console), _run(FOUNDATION_MODEL, console)]
    console.print(table([embedding_row(timed.embedding, timed.seconds) for run in runs for timed in run]))
    console.print(
        'THOR\'s vector takes its default path, which resizes the chip to 288 px; its map takes input_prep="tile", '
        "which keeps the pixels of 10 m.",
        soft_wrap=True,
    )
    files = _write(out, chip, [(pooled.embedding, grid.embedding) for pooled, grid in runs])
    console.print("Wrote", *files, sep="\n  ", soft_wrap=True)
    console.print(NEXT.format(grid=out / f"{BASELINE}_grid.tif", model=BASELINE), soft_wrap=True)
    return 0


def _run(model_id: str, console: Console) -> tuple[Timed, Timed]:
    """Vector and map; with random weights where the trained ones cannot be had."""
    call: Callable[..., Embedding] = partial(get_embedding, model_id, backend="sample")
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
    panels = [true_colour(chip), *(_first_components(grid) for _, grid in results)]
    draw_panels(panels, files[0], ATTRIBUTION)
    draw_panels(panels[:1], files[1], ATTRIBUTION)
    for (pooled, grid), panel in zip(results, panels[1:], strict=True):
        stem = pooled.meta.model_id + ("_random_weights" if pooled.meta.weights_note else "")
        picture = out / f"{stem}_pca.png"
        draw_panels([panel], picture, ATTRIBUTION)
        files += [picture, grid.save(out / f"{stem}_grid.tif"), pooled.save(out / f"{stem}_pooled.npz")]
    return files


def true_colour(chip: Chip) -> Panel:
    """A Sentinel-2 chip as the eye sees it.

    Raises:
        BandMismatch: B4, B3 or B2 is missing.
    """
    days = ", ".join(f"{time:%d %B %Y}" for time in chip.times if time is not None)
    return Panel(f"Sentinel-2, true colour\n{days}", chip_rgb(chip), chip.geobox)


def _first_components(grid: Embedding) -> Panel:
    note = grid.meta.weights_note or f"3 principal components of {len(grid.data)} dimensions"
    return Panel(f"{grid.meta.model_id}\n{note}", pca_rgb(grid.data), grid.geobox)


def draw_panels(panels: Sequence[Panel], path: Path, credit: str = "") -> None:
    """Pictures side by side, on the axes of the first.

    Args:
        credit: A line under the pictures.

    Raises:
        StorageError: The file cannot be written.
    """
    west, east, south, north = panels[0].edges()
    figure = Figure(
        figsize=(3.7 * len(panels) + 0.6, 3.5 * (north - south) / (east - west) + 1.4),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1),
    )
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        edges = np.subtract(panel.edges(), (west, west, south, south))
        axes.imshow(panel.image, extent=edges, interpolation="nearest")
        axes.set(title=panel.title, xlabel=f"{panel.unit} east", xlim=(0, east - west), ylim=(0, north - south))
        axes.title.set_fontsize(10)
    figure.axes[0].set_ylabel(f"{panels[0].unit} north")
    figure.supxlabel(credit, fontsize=7, color="0.4")
    save_figure(figure, path)


def embedding_row(embedding: Embedding, seconds: float) -> dict[str, object]:
    """What a table says of an embedding; the norm of a grid is the mean over its tokens."""
    meta = embedding.meta
    return {
        "model": meta.model_id,
        "output": meta.output,
        "shape": " x ".join(map(str, embedding.data.shape)),
        "norm": f"{np.nanmean(np.linalg.norm(embedding.data, axis=0)):.4g}",
        "valid": f"{meta.valid_fraction:.0%}",
        "gsd_m": f"{meta.gsd_m:.4g}",
        "input_prep": meta.input_prep,
        "seconds": f"{seconds:.2f}",
        "weights": meta.weights_note or meta.weights.partition("#")[0],
    }


def source_line(embedding: Embedding) -> str:
    """Whose pixels they were, and of which days."""
    chips = [
        ", ".join([f"{one.collection} via {one.provider}", *(day[:10] for day in one.scene_times[:3])])
        for one in embedding.meta.inputs
    ]
    return f"{'; '.join(chips)}, as {embedding.meta.model_id} sees it:"
