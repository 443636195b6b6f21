"""Pages of what was stored: of a run, of the map of a region, of a grid that was saved."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.core.specs import TemporalSpec
from rs_embed.embedders.catalog import get_card
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError, UnknownModelError, WeightsError
from rs_embed.explore.facts import credit_of, credit_of_meta, facts_of_header, space_of, warning_of
from rs_embed.explore.grids import Sheet, explore_embeddings, explore_grids
from rs_embed.explore.packing import packed_bytes
from rs_embed.explore.page import PLAIN, PageOptions
from rs_embed.explore.points import Dots, explore_points
from rs_embed.exports.journal import MANIFEST
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.map_level import Cells, Level
from rs_embed.exports.results.open_region import open_region
from rs_embed.exports.results.run import Run, open_run
from rs_embed.exports.results.true_colour import days_of_request, true_colour, with_imagery
from rs_embed.exports.unit import MAP
from rs_embed.formats.base import RunHeader
from rs_embed.places.kept import OURS

if TYPE_CHECKING:
    from rs_embed.explore.plane import Projection
    from rs_embed.exports.results.embedding_map import Box
    from rs_embed.exports.results.map_store import Time
    from rs_embed.pipeline.request import Backend


def explore_result(
    path: Path,
    out: Path,
    *,
    beside: Sequence[Path] = (),
    bbox: "Box" = None,
    level: int = 0,
    model: str | None = None,
    imagery: str | None = None,
    projection: "Projection | None" = None,
    options: PageOptions = PLAIN,
) -> Path:
    """Write a page of whatever lies at a path: a grid that was saved, a run, or the map of a region.

    Raises:
        SpecError: An option does not belong to that kind of result.
    """
    is_map = is_region(path)
    is_run = not is_map and (path / MANIFEST).is_file()
    given = {"beside": beside, "bbox": bbox, "level": level, "model": model, "imagery": imagery}
    given["projection"] = projection
    of_run = {"model", "projection"}
    fitting = {"bbox", "level", "imagery"} if is_map else of_run if is_run else {"beside", "imagery"}
    if wrong := [name for name, there in given.items() if there and name not in fitting]:
        kind = "the map of a region" if is_map else "an export" if is_run else "a grid"
        raise SpecError(f"Expected options of {kind}, got {', '.join(wrong)}.", fix="leave them out")
    if is_map:
        return explore_map(open_region(path), bbox, out, level=level, imagery=imagery, options=options)
    if is_run:
        return explore_run(open_run(path), out, model, projection or "pca", options)
    grids = [Embedding.load(one) for one in (path, *beside)]
    licences = {grid.meta.model_id: _licence(grid.meta.model_id) for grid in grids}
    chip, credit = None, credit_of_meta(grids[0].meta)
    if imagery is not None:
        chip = true_colour(imagery, grids[0].geobox, days_of_request(grids[0].meta))
        credit = with_imagery(credit, imagery, chip)
    return explore_embeddings(grids, out, imagery=chip, credit=credit, licences=licences, options=options)


def is_region(path: Path) -> bool:
    """Whether the map of a region lies at a path."""
    return path.name == MAP or any(found for depth in ("", "*/", "*/*/") for found in path.glob(f"{depth}{MAP}"))


def _licence(model_id: str) -> str:
    """Return the licence on the card of a model; empty for one that is not in the catalogue any more."""
    try:
        return get_card(model_id).licence
    except (UnknownModelError, WeightsError):
        return ""


def explore_map(
    whole: EmbeddingMap,
    bbox: "Box",
    path: str | Path,
    *,
    time: "Time" = None,
    level: int = 0,
    imagery: "Backend | None" = None,
    options: PageOptions = PLAIN,
) -> Path:
    """See `EmbeddingMap.explore`."""
    one = whole.level(level)
    crop = one.crop(bbox)
    numbers = range(one.times) if time is None else [whole.time_number(time)]
    smallest = "pca64" if options.stored == "auto" else options.stored
    least = len(numbers) * packed_bytes(crop.height * crop.width, one.dim, smallest)
    if least > options.max_mb * 1e6:
        raise SpecError(
            f"Expected a part of the map that fits into a page of {options.max_mb:g} MB, got "
            f"{crop.height} x {crop.width} tokens at {len(numbers)} times: {least / 1e6:,.0f} MB.",
            fix=f"choose a smaller bbox, one time, an overview (level={level + 1}), or a larger max_mb",
        )
    sheets, credit = map_sheets(whole, bbox, numbers, level, imagery)
    return explore_grids(sheets, path, credit, options)


def map_sheets(
    whole: EmbeddingMap, bbox: "Box", times: Sequence[int], level: int, imagery: "Backend | None"
) -> tuple[list[Sheet], str]:
    """Read a part of a map at some times, and return it with the line that names the imagery."""
    one = whole.level(level)
    crop = one.crop(bbox)
    credit = _credit(whole.header, _days(whole.times[times[0]]))
    sheets = []
    for number in times:
        sheet = map_sheet(whole, number, one, crop)
        if imagery is not None:
            chip = true_colour(imagery, sheet.geobox, whole.times[number])
            sheet, credit = replace(sheet, picture=chip), with_imagery(credit, imagery, chip)
        sheets.append(sheet)
    return sheets, credit


def map_sheet(whole: EmbeddingMap, time: int, one: Level, cells: Cells) -> Sheet:
    """Read some cells of a level at one time."""
    header, when = whole.header, _days(whole.times[time])
    return Sheet(
        name=header.model_id,
        when=when,
        tokens=np.ascontiguousarray(one.tokens(time, cells)),
        geobox=cells.geobox(one.geobox),
        space=space_of(header.model_id, header.card_revision, header.weights, one.dim),
        facts=facts_of_header(header, {"Map": str(whole.path), "Requested days": when}),
        valid=one.valid(time, cells.rows, cells.cols),
        warning=warning_of(header),
    )


def explore_run(run: Run, path: str | Path, model: str | None, projection: str, options: PageOptions) -> Path:
    """See `Run.explore`."""
    header = run.header(model)
    if header is None:
        raise SpecError("Expected a run with rows, got one without.", fix="run the export first")
    if header.output == "grid":
        raise SpecError(
            f"Expected a run of vectors, got one of grids ({header.model_id}).",
            fix='explore one grid: open_run(folder).grids().embedding("id").explore()',
        )
    frame = run.to_frame(model)
    columns = {str(name): frame[name] for name in frame.columns if name not in OURS or name == "valid_fraction"}
    days = frame["start_datetime"].fillna(frame["datetime"]).dropna().dt.strftime("%Y-%m-%d")
    when = "" if days.empty else f"{days.min()}" if days.min() == days.max() else f"{days.min()} to {days.max()}"
    dots = Dots(
        name=header.model_id,
        when=when,
        ids=[str(one) for one in frame["id"]],
        lon=frame["center_lon"].to_numpy(np.float64),
        lat=frame["center_lat"].to_numpy(np.float64),
        vectors=run.matrix(model),
        columns=columns,
        facts=facts_of_header(header, {"Run": str(run.path)}),
        space=space_of(header.model_id, header.card_revision, header.weights, header.dim),
        warning=warning_of(header),
    )
    return explore_points(dots, path, _credit(header, when), projection, options)


def _days(window: TemporalSpec | None) -> str:
    return "" if window is None else f"{window.start} to {window.end}"


def _credit(header: RunHeader, when: str) -> str:
    return credit_of(header.source_data, when)
