"""Rasters as a table of places: one row a file, to be embedded as it is."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rs_embed.core.specs import BBox, TemporalSpec
from rs_embed.errors import SpecError
from rs_embed.places import Places, read_places
from rs_embed.places.strings import Strings


def raster_places(pattern: str | Path) -> Places:
    """A row for every raster that a pattern matches: its ground, and its day where the file tells one.

    With the pattern as backend, too, a folder of rasters is embedded in one call:
    `export_embeddings("thor", raster_places("tiles/*.tif"), "run", backend="tiles/*.tif")`; where something must be
    said of the files, `backend=RasterFolder("tiles/*.tif", bands=[...], offset=-1000)`. Each row is read from its own
    file, whatever others lie beside or upon it. Ids are names of files without suffix, or paths where two have one
    name.

    Args:
        pattern: As the shell has it; `**` reaches into folders.

    Raises:
        ReadError: No file matches, or some cannot be read or have no place on Earth.
        SpecError: Two are of the same ground and day, so that rows could not be told apart.
    """
    from rs_embed.providers.rasters.declared import Raster
    from rs_embed.providers.rasters.folder import grids_of, matching
    from rs_embed.providers.rasters.scene import open_scenes  # not above: rasterio is slow to import

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
                f"Expected one raster of a ground and day, got {twin!r} and {path!r}.",
                day="not told by the files" if window is None else str(window.start),
                fix="export them to two folders, or write their dates into the tag TIFFTAG_DATETIME",
            )
