"""The demo: a baseline and a trained model on the scene that comes with the package, as tables, pictures and files."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from rs_embed.api import get_embedding, inspect_chip
from rs_embed.cli.tables import embedding_row, table
from rs_embed.core.chip import Chip
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.catalog import get_card
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.plot import alike, principal_components, save_figure, side_by_side, true_colour
from rs_embed.errors import StorageError, WeightsError
from rs_embed.explore.grids import Sheet, explore_grids

BASELINE = "mosaiks_rcf"
TRAINED = "galileo_1_0_nano"
"""The smallest foundation model: a download of 4 MB."""
PATCHES_PX = {BASELINE: 8, TRAINED: 4}
"""Of the maps."""
RIVER = (12.93302, 47.77606)
"""Longitude and latitude of a place on it; the picture shows where it looks like there."""
ATTRIBUTION = "Contains modified Copernicus Sentinel data 2017; BigEarthNet v2.0"
NEXT = """Next
  Open {page} in a browser and click a place: it needs no network.
  Open {grid} in QGIS: it lies at its true place, one layer per dimension.
  In Python: from rs_embed import Embedding; Embedding.load("{grid}").to_xarray()
  Your own scene: rs-embed embed {model} --raster scene.tif --output grid --out grid.tif"""


@dataclass(frozen=True)
class ModelRun:
    """What a model made of the sample."""

    pooled: Embedding
    grid: Embedding
    seconds: tuple[float, float]


def run_demo(out: Path, console: Console, *, as_json: bool = False) -> int:
    """Run both models on the sample, write their results, and say what to do next.

    Args:
        out: Folder for the results; made if it is not there.
        console: Where the table goes.
        as_json: Print one JSON object with what was written instead.

    Returns:
        The exit code, 0.

    Raises:
        StorageError: The folder cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Expected a folder at {str(out)!r}, got: {error}.", fix="name another by --out") from error
    said = Console(quiet=True) if as_json else console
    chip = inspect_chip(BASELINE, backend="sample").chips["s2_12"]
    said.print(f"The sample: {chip.describe()}", soft_wrap=True)
    runs: list[ModelRun] = []
    left_out: dict[str, str] = {}
    for model_id in PATCHES_PX:
        try:
            runs.append(_run(model_id))
        except WeightsError as error:  # random weights would only look like a result
            left_out[model_id] = f"{error.headline} Fix: {error.fix}."
            said.print(f"{model_id} is left out: {left_out[model_id]}", style="yellow", soft_wrap=True)
    rows = [embedding_row(one, s) for run in runs for one, s in zip((run.pooled, run.grid), run.seconds, strict=True)]
    said.print(table(rows))
    files = _write(out, chip, runs)
    said.print("Wrote", *files, sep="\n  ", soft_wrap=True)
    best = runs[-1].grid.meta.model_id
    said.print(NEXT.format(page=files[0], grid=out / f"{best}_grid.tif", model=best), soft_wrap=True)
    if as_json:
        written = {"out": str(out), "files": [str(path) for path in files], "embeddings": rows, "left_out": left_out}
        console.print_json(json.dumps(written))
    return 0


def _run(model_id: str) -> ModelRun:
    """Vector and map.

    Raises:
        WeightsError: The weights cannot be had.
    """
    call: Callable[..., Embedding] = partial(get_embedding, model_id, backend="sample")
    pooled, vector_s = _timed(partial(call, output=OutputSpec.pooled()))
    grid, grid_s = _timed(partial(call, output=OutputSpec.grid(), patch_size=PATCHES_PX[model_id]))
    return ModelRun(pooled, grid, (vector_s, grid_s))


def _timed(call: Callable[[], Embedding]) -> tuple[Embedding, float]:
    started = time.perf_counter()
    embedding = call()
    return embedding, time.perf_counter() - started


def _write(out: Path, chip: Chip, runs: Sequence[ModelRun]) -> list[Path]:
    """A page to explore all of it, pictures of everything, and vector and map of each model."""
    sheets = [Sheet.of(run.grid, chip, get_card(run.grid.meta.model_id).licence) for run in reversed(runs)]
    page = explore_grids(sheets, out / "explore.html", credit=ATTRIBUTION)
    overview, scene_rgb = out / "overview.png", out / "sample_rgb.png"
    scene = true_colour(chip)
    last = runs[-1].grid
    panels = [scene, *(principal_components(run.grid) for run in runs), alike(last, *RIVER, "the river")]
    save_figure(side_by_side(panels, ATTRIBUTION), overview)
    save_figure(side_by_side([scene], ATTRIBUTION), scene_rgb)
    files = [page, overview, scene_rgb]
    for run, panel in zip(runs, panels[1:], strict=False):
        stem = run.grid.meta.model_id
        picture = out / f"{stem}_pca.png"
        save_figure(side_by_side([panel], ATTRIBUTION), picture)
        files += [picture, run.grid.save(out / f"{stem}_grid.tif"), run.pooled.save(out / f"{stem}_pooled.npz")]
    return files
