"""Read a table of places: from specs, coordinates, a DataFrame or a file, with a date, an id and a buffer per row."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import short
from rs_embed.core.polygon import GeoInterface, Rings
from rs_embed.core.specs import PointBuffer, Region, SpatialSpec
from rs_embed.errors import SpecError
from rs_embed.places.checks import read_buffer, read_ids, read_outlines, read_points
from rs_embed.places.columns import Days, Places, outline_text
from rs_embed.places.days import Temporal, read_windows
from rs_embed.places.files import read_table
from rs_embed.places.naming import Column, Columns, kept_columns, likely_id, which_where, with_active_geometry
from rs_embed.places.problems import PlaceProblems
from rs_embed.places.strings import Strings
from rs_embed.places.texts import refuse_doubles

if TYPE_CHECKING:
    import pandas as pd

Given: TypeAlias = """
    Sequence[SpatialSpec] | Sequence[tuple[float, float]] | Sequence[GeoInterface] | Sequence[Mapping[str, object]]
    | NDArray[np.floating] | pd.DataFrame | pd.Series | Mapping[str, object] | Places | str | Path
"""
"""Anything that can be read as places."""


def read_places(
    given: "Given",
    *,
    temporal: Temporal = None,
    buffer_m: float | str | None = None,
    id: Column = None,  # noqa: A002  (named like the column)
    lon: Column = None,
    lat: Column = None,
    start: Column = None,
    end: Column = None,
    date: Column = None,
    year: Column = None,
    geometry: Column = None,
    crs: str | None = None,
    keep: bool = True,
) -> Places:
    """Read a table of places and check it row by row.

    Points become squares, polygons are taken as they are. Other columns of the table are kept and appear in the
    results: `species`, say. Lists and second geometries are not kept, nor are columns with a name of a result column,
    which a warning lists. `print` the result to see which column was used for what.

    Args:
        given: A list of specs, of (lon, lat) or of geometries (shapely, GeoJSON), a DataFrame, a GeoDataFrame, a
            GeoSeries, or the path of a CSV, Parquet, GeoJSON, GeoPackage or shapefile.
        temporal: One window for all rows, or one per row, if the table has no dates.
        buffer_m: Half the side of the square around a point, metres, or the name of the column that holds it.
        id: Column of the ids. By default `id`, or the only column whose name ends in `_id`, if its values are unique;
            otherwise the row numbers are the ids.
        lon: Column of the longitude (or the x of `crs`).
        lat: Column of the latitude (or the y of `crs`).
        start: Column of the first day. The days of a row come from `start` and `end`, from `date` (that day alone), or
            from `year`.
        end: Column of the day after the last.
        date: Column of single days.
        year: Column of calendar years.
        geometry: Column of points or polygons; in a CSV, as WKT.
        crs: CRS of the coordinates, if the table does not state it; by default EPSG:4326.
        keep: Whether to keep the other columns.

    Returns:
        The table, for `get_embeddings`, `export_embeddings` and `Plan.of`.

    Raises:
        SpecError: A column is missing or ambiguous, ids are not unique, or rows are invalid; the error names them. Or a
            row of a CSV has more or fewer fields than its header.
        MissingDependency: The file needs geopandas or pyarrow.
    """
    buffer = buffer_m if isinstance(buffer_m, str) else None
    columns = Columns(id, lon, lat, start, end, date, year, buffer, geometry)
    buffer_m = None if isinstance(buffer_m, str) else buffer_m
    if isinstance(given, Places):
        if columns != Columns() or (temporal, buffer_m, crs) != (None, None, None):
            raise SpecError("Expected places alone, got options for reading them.", fix="pass them to read_places")
        return given
    given = opened_table(given, columns)
    if is_frame(given):
        return _from_frame(given, columns, temporal, buffer_m, crs, keep=keep)
    if columns != Columns():
        raise SpecError("Expected column names with a table, got a list.", fix="leave them out, or pass a DataFrame")
    return _from_list(given, temporal, buffer_m, crs)


def opened_table(given: object, columns: Columns = Columns()) -> object:
    """Read the table in a file; return anything else as `unpacked` does."""
    return read_table(_path(given), columns.found) if isinstance(given, str | Path) else unpacked(given)


def is_frame(given: object) -> "TypeGuard[pd.DataFrame]":
    """Whether it is a DataFrame or a GeoDataFrame."""
    pandas = sys.modules.get("pandas")  # no DataFrame without it
    return pandas is not None and isinstance(given, pandas.DataFrame)


def unpacked(given: object) -> object:
    """Convert a GeoSeries to a table, another Series or features to lists; return anything else as it is."""
    pandas, geopandas = sys.modules.get("pandas"), sys.modules.get("geopandas")
    if geopandas is not None and isinstance(given, geopandas.GeoSeries):
        return geopandas.GeoDataFrame(geometry=given)
    if pandas is not None and isinstance(given, pandas.Series):
        return given.tolist()
    if isinstance(given, GeoInterface) and not is_frame(given):
        given = given.__geo_interface__
    if isinstance(given, Mapping) and given.get("type") == "FeatureCollection":
        return given.get("features")
    return given


def _path(given: str | Path) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:  # ~somebody who is not known here
        raise SpecError(f"Expected the path of a table, got {str(given)!r}: {error}.", fix="write it out") from error


def _from_frame(
    frame: "pd.DataFrame", columns: Columns, temporal: Temporal, buffer_m: float | None, crs: str | None, *, keep: bool
) -> Places:
    refuse_doubles([str(name) for name in frame.columns])
    found = with_active_geometry(columns, frame).found(frame.columns)
    if len(frame) == 0:
        raise _empty()
    where = which_where(found, columns, frame.columns)
    if "id" not in found and columns.id is None:
        found |= likely_id(frame, [*found.values()])
    ids = read_ids(frame[found["id"]]) if "id" in found else None
    problems = PlaceProblems(len(frame), ids)
    windows = read_windows(frame, found, temporal, problems, len(frame))
    sides = read_buffer(frame[found["buffer_m"]] if "buffer_m" in found else None, buffer_m, len(frame), problems)
    if where == "geometry":
        points, outlines = read_outlines(frame[found["geometry"]], crs, sides, problems)
    else:
        points, outlines = read_points(frame[found["lon"]], frame[found["lat"]], crs, sides, problems), None
    problems.refuse()
    rows = np.arange(len(frame), dtype=np.int64)
    kept = kept_columns(frame, found) if keep else {}
    return Places(
        rows, None if ids is None else Strings.of(ids), *points, sides, outlines, *windows, kept=kept, taken=found
    )


def _from_list(given: object, temporal: Temporal, buffer_m: float | None, crs: str | None) -> Places:
    if isinstance(given, SpatialSpec):
        raise SpecError(f"Expected a list of places, got a single one, {short(given)}.", fix="put it into a list")
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise SpecError(
            f"Expected a list of places, a table or a path, got {type(given).__name__}.",
            fix="pass a list of specs or of (lon, lat), a DataFrame, or the path of a file",
        )
    if not given:
        raise _empty()
    problems = PlaceProblems(len(given), None)
    windows = read_windows(None, {}, temporal, problems, len(given))
    if any(_is_geometry(one) for one in given):
        return _from_specs(_of_geometries(given, buffer_m, crs, problems), windows)
    specs = [isinstance(one, SpatialSpec) for one in given]
    if any(specs):
        if not all(specs):
            row = specs.index(False)
            raise SpecError(
                f"Expected a spec in row {row}, as in others, got {short(given[row])}.", fix="pass all rows alike"
            )
        if buffer_m is not None or crs is not None:
            raise SpecError("Expected specs alone, got buffer_m or crs beside them.", fix="specs hold both themselves")
        return _from_specs(given, windows)
    sides = read_buffer(None, buffer_m, len(given), problems)
    return _from_pairs(given, windows, sides, crs, problems)


def _from_pairs(
    given: Sequence[object],
    windows: tuple[Days, Days],
    sides: NDArray[np.float64],
    crs: str | None,
    problems: PlaceProblems,
) -> Places:
    pairs: list[Sequence[object]] = []
    for row, one in enumerate(given):
        if not isinstance(one, Sequence) or isinstance(one, str) or len(one) != 2:
            raise SpecError(
                f"Expected a (lon, lat) pair or a spec in row {row}, got {short(one)}.",
                fix="pass pairs, or PointBuffer(lon, lat, buffer_m), for every row",
            )
        pairs.append(one)
    import pandas as pd

    lon, lat = (pd.Series([pair[axis] for pair in pairs]) for axis in (0, 1))
    points = read_points(lon, lat, crs, sides, problems)
    problems.refuse()
    return Places(np.arange(len(given), dtype=np.int64), None, *points, sides, None, *windows)


def _is_geometry(one: object) -> bool:
    return not isinstance(one, tuple | list | str) and isinstance(one, Mapping | GeoInterface)


def _of_geometries(
    given: Sequence[object], buffer_m: float | None, crs: str | None, problems: PlaceProblems
) -> list[SpatialSpec]:
    """Convert shapely or GeoJSON geometries to specs."""
    found: list[SpatialSpec] = []
    wrong: dict[int, str] = {}
    for row, one in enumerate(given):
        try:
            found.append(_of_geometry(one, buffer_m, crs))
        except SpecError as error:
            wrong[row] = error.headline
    problems.add(np.isin(np.arange(len(given)), list(wrong)), lambda row: wrong[row])
    problems.refuse()
    return found


def _of_geometry(one: object, buffer_m: float | None, crs: str | None) -> SpatialSpec:
    if not _is_geometry(one):
        raise SpecError(f"Expected a geometry, as in others, got {short(one)}", fix="pass all rows alike")
    geometry = one.__geo_interface__ if isinstance(one, GeoInterface) else one
    if isinstance(geometry, Mapping) and geometry.get("type") == "Feature":
        geometry = geometry.get("geometry")
    if not isinstance(geometry, Mapping) or geometry.get("type") != "Point":
        return Region(cast("Rings", geometry), crs or "EPSG:4326")  # it takes any form of a polygon
    corner = geometry.get("coordinates")
    if buffer_m is None or crs not in (None, "EPSG:4326"):
        what = "in degrees" if buffer_m is not None else "with a buffer_m"
        raise SpecError(f"Expected a point {what}, got another", fix="buffer_m=..., or PointBuffer(lon, lat, buffer_m)")
    if not isinstance(corner, Sequence) or len(corner) < 2:
        raise SpecError(f"Expected a point of two numbers, got {short(corner)}", fix="drop it")
    return PointBuffer(corner[0], corner[1], buffer_m)


def _from_specs(specs: Sequence[SpatialSpec], windows: tuple[Days, Days]) -> Places:
    nowhere = (np.nan, np.nan, np.nan)
    numbers = [(one.lon, one.lat, one.buffer_m) if isinstance(one, PointBuffer) else nowhere for one in specs]
    lon, lat, sides = np.array(numbers, np.float64).T
    texts = ["" if isinstance(one, PointBuffer) else outline_text(one) for one in specs]
    outlines = Strings.of(texts) if any(texts) else None
    return Places(np.arange(len(specs), dtype=np.int64), None, lon, lat, sides, outlines, *windows)


def _empty() -> SpecError:
    return SpecError("Expected at least one place, got an empty table.", fix="check what was read or filtered")
