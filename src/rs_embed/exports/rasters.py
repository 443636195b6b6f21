"""Make a table of places from rasters: one row per file."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rs_embed.core.specs import BBox, TemporalSpec
from rs_embed.errors import SpecError
from rs_embed.places import Places, read_places
from rs_embed.places.strings import Strings


def raster_places(pattern: str | Path) -> Places:
    """Make a table with one row per raster that a pattern matches: its area, and its day if the file states one.

    To embed a folder of rasters in one call, use the pattern as the backend, too:
    `export_embeddings("thor", raster_places("tiles/*.tif"), "run", backend="tiles/*.tif")`. To declare bands, units or
    offsets of the files, use `backend=RasterFolder("tiles/*.tif", bands=[...], offset=-1000)`. Each row is read from
    its own file, regardless of neighbouring or overlapping files. Ids are file names without suffix, or paths where
    two files have the same name.

    Args:
        pattern: A shell-style pattern; `**` matches nested folders.

    Returns:
        The table, for `get_embeddings` and `export_embeddings`.

    Raises:
        ReadError: No file matches, or some cannot be read or are not georeferenced.
        SpecError: Two files cover the same area on the same day, so that their rows could not be told apart.
    """
    from rs_embed.providers.rasters.declared import Raster
    from rs_embed.providers.rasters.folder import grids_of, matching
    from rs_embed.providers.rasters.scene import open_scenes  # here, because rasterio is slow to import

    paths = matching(pattern)
    boxes, windows = [], []
    for path, grid in zip(paths, grids_of(paths), strict=True):
        boxes.append(BBox(*grid.boundingbox.bbox, crs=str(grid.crs)))
        when = open_scenes(path, Raster(""), None)[0].time
        day = None if when is None else when.date()
        windows.append(None if day is None else TemporalSpec(day, day + timedelta(days=1)))
    _refuse_doubles(paths, boxes, windows)
    stems = Counter(Path(path).stem for path in paths)
    ids = [Path(path).stem if stems[Path(path).stem] == 1 else path for path in paths]
    return replace(read_places(boxes, temporal=windows), ids=Strings.of(ids))


def _refuse_doubles(paths: list[str], boxes: list[BBox], windows: list[TemporalSpec | None]) -> None:
    first: dict[tuple[BBox, TemporalSpec | None], str] = {}
    for path, box, window in zip(paths, boxes, windows, strict=True):
        twin = first.setdefault((box, window), path)
        if twin != path:
            raise SpecError(
                f"Expected one raster per area and day, got {twin!r} and {path!r}.",
                day="not stated by the files" if window is None else str(window.start),
                fix="export them to two folders, or write their dates into the tag TIFFTAG_DATETIME",
            )
