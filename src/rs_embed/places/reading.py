"""Read a table of places: from specs, coordinates, a DataFrame or a file, with a date, an id and a buffer per row."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import SpecError
from rs_embed.places.checks import read_buffer, read_ids, read_outlines, read_points
from rs_embed.places.columns import Days, Places, Strings, outline_text
from rs_embed.places.days import Temporal, read_windows
from rs_embed.places.files import read_table
from rs_embed.places.problems import PlaceProblems
from rs_embed.specs import BBox, PointBuffer, Region, SpatialSpec

if TYPE_CHECKING:
    import pandas as pd

Given: TypeAlias = (
    "Sequence[SpatialSpec] | Sequence[tuple[float, float]] | NDArray[np.floating] | pd.DataFrame | Places | str | Path"
)
"""What can be read as places."""

Column = str | Literal[False] | None
"""A column's name; `None`: the usual names are looked for; `False`: there is none, whatever the names say."""

_USUAL: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "id": (("id",),),
    "lon": (("lon", "longitude", "lng"), ("x",)),
    "lat": (("lat", "latitude"), ("y",)),
    "start": (("start", "start_date", "start_datetime"),),
    "end": (("end", "end_date", "end_datetime"),),
    "date": (("date",),),
    "year": (("year",),),
    "buffer_m": (("buffer_m", "buffer"),),
    "geometry": (("geometry", "geom", "wkt"),),
}
"""Names looked for, whatever their case: those of a later group only where there is none of an earlier one."""


@dataclass(frozen=True)
class Columns:
    """Which column holds what, as given or as found."""

    id: Column = None
    lon: Column = None
    lat: Column = None
    start: Column = None
    end: Column = None
    date: Column = None
    year: Column = None
    buffer_m: Column = None
    geometry: Column = None

    def found(self, names: Collection[str]) -> dict[str, str]:
        """What each column is called in a table with these names; what is not there is left out.

        Raises:
            SpecError: A column that was named is not there, or several could be meant.
        """
        columns = {field.name: _column(field.name, vars(self)[field.name], names) for field in fields(self)}
        return {what: name for what, name in columns.items() if name is not None}


def _column(what: str, given: Column, names: Collection[str]) -> str | None:
    if given is False:
        return None
    if given is not None:
        if given not in names:
            raise SpecError(
                f"Wanted the column {given!r} for {what}, found none of that name.",
                columns=", ".join(map(str, names)),
                fix=f"{what}=<one of them>",
            )
        return given
    for group in _USUAL[what]:
        usual = [name for name in names if isinstance(name, str) and name.strip().lower() in group]
        if len(usual) > 1:
            raise SpecError(
                f"Wanted one column for {what}, found {', '.join(map(repr, usual))}.", fix=f"{what}={usual[0]!r}"
            )
        if usual:
            return usual[0]
    return None


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
) -> Places:
    """A table of places, checked row by row.

    Args:
        given: A list of specs or of (lon, lat), a DataFrame, a GeoDataFrame, or the path of a CSV, Parquet, GeoJSON,
            GeoPackage or shapefile. Points become squares, polygons are taken as they are.
        temporal: One window for all, or one per row, where the table has no dates.
        buffer_m: Half of the side of the square around a point, metres; or the column that holds it.
        id: Column of the ids; without one, the row numbers are the ids.
        lon: Column of the longitude (or the x of `crs`).
        lat: Column of the latitude (or the y of `crs`).
        start: Column of the first day. A row's days come from `start` and `end`, from `date` (that day alone), or from
            `year`.
        end: Column of the day after the last.
        date: Column of single days.
        year: Column of calendar years.
        geometry: Column of points or polygons; in a CSV as WKT.
        crs: Of the coordinates, where the table does not say; EPSG:4326 if left out.

    Raises:
        SpecError: A column is missing or ambiguous, ids are not unique, or rows cannot be meant: each is named.
        MissingDependency: The file needs geopandas or pyarrow.
    """
    buffer = buffer_m if isinstance(buffer_m, str) else None
    columns = Columns(id, lon, lat, start, end, date, year, buffer, geometry)
    buffer_m = None if isinstance(buffer_m, str) else buffer_m
    if isinstance(given, Places):
        if columns != Columns() or (temporal, buffer_m, crs) != (None, None, None):
            raise SpecError("Wanted places alone, found options for reading them.", fix="give them to read_places")
        return given
    if isinstance(given, str | Path):
        given = read_table(
            Path(given).expanduser(),
            lambda names: list(columns.found(names).values()),
            lambda names: columns.found(names).get("id"),
        )
    pandas = sys.modules.get("pandas")  # no DataFrame without it
    if pandas is not None and isinstance(given, pandas.DataFrame):
        return _from_frame(given, columns, temporal, buffer_m, crs)
    if columns != Columns():
        raise SpecError("Wanted column names with a table, found a list.", fix="leave them out, or pass a DataFrame")
    return _from_list(given, temporal, buffer_m, crs)


def _from_frame(
    frame: "pd.DataFrame", columns: Columns, temporal: Temporal, buffer_m: float | None, crs: str | None
) -> Places:
    found = _with_active_geometry(columns, frame).found(frame.columns)
    if len(frame) == 0:
        raise _empty()
    ids = read_ids(frame[found["id"]]) if "id" in found else None
    problems = PlaceProblems(len(frame), ids)
    windows = read_windows(frame, found, temporal, problems, len(frame))
    sides = read_buffer(frame[found["buffer_m"]] if "buffer_m" in found else None, buffer_m, len(frame), problems)
    if _where(found, columns, frame.columns) == "geometry":
        points, outlines = read_outlines(frame[found["geometry"]], crs, sides, problems)
    else:
        points, outlines = read_points(frame[found["lon"]], frame[found["lat"]], crs, sides, problems), None
    problems.refuse()
    rows = np.arange(len(frame), dtype=np.int64)
    return Places(rows, None if ids is None else Strings.of(ids), *points, sides, outlines, *windows)


def _where(found: Mapping[str, str], columns: Columns, names: Collection[str]) -> Literal["geometry", "points"]:
    """Which columns say where: those that were named, else the only ones there are."""
    has_points, has_geometry = {"lon", "lat"} <= set(found), "geometry" in found
    if has_points and has_geometry and not (columns.lon or columns.lat or columns.geometry):
        raise SpecError(
            "Wanted coordinates or geometries, found both.",
            columns=f"{found['lon']!r}, {found['lat']!r} and {found['geometry']!r}",
            fix="geometry=False, or lon=False and lat=False",
        )
    if has_geometry and not (columns.lon or columns.lat):
        return "geometry"
    if has_points:
        return "points"
    raise SpecError(
        "Wanted columns of longitude and latitude, or a geometry, found neither.",
        columns=", ".join(map(str, names)),
        fix='name them: lon="...", lat="..."',
    )


def _is_geo(frame: "pd.DataFrame") -> bool:
    geopandas = sys.modules.get("geopandas")  # no GeoDataFrame without it
    return geopandas is not None and isinstance(frame, geopandas.GeoDataFrame)


def _with_active_geometry(columns: Columns, frame: "pd.DataFrame") -> Columns:
    """A GeoDataFrame says itself which column is the geometry."""
    if not _is_geo(frame) or columns.geometry is not None or columns.lon or columns.lat:
        return columns
    active = frame.active_geometry_name
    named = {field.name: vars(columns)[field.name] for field in fields(columns)}
    return columns if active is None else Columns(**named | {"geometry": active, "lon": False, "lat": False})


def _from_list(given: object, temporal: Temporal, buffer_m: float | None, crs: str | None) -> Places:
    if isinstance(given, PointBuffer | BBox | Region):
        raise SpecError(f"Wanted a list of places, found a single one, {given!r}.", fix="put it into a list")
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise SpecError(
            f"Wanted a list of places, a table or a path, found {type(given).__name__}.",
            fix="pass a list of specs or of (lon, lat), a DataFrame, or the path of a file",
        )
    if not given:
        raise _empty()
    problems = PlaceProblems(len(given), None)
    windows = read_windows(None, {}, temporal, problems, len(given))
    specs = [isinstance(one, PointBuffer | BBox | Region) for one in given]
    if any(specs):
        if not all(specs):
            row = specs.index(False)
            raise SpecError(
                f"Wanted a spec in row {row}, as in others, found {given[row]!r}.", fix="pass all rows alike"
            )
        if buffer_m is not None or crs is not None:
            raise SpecError("Wanted specs alone, found buffer_m or crs beside them.", fix="specs hold both themselves")
        return _from_specs(given, windows)
    sides = read_buffer(None, buffer_m, len(given), problems)
    for row, one in enumerate(given):
        if not isinstance(one, Sequence) or isinstance(one, str) or len(one) != 2:
            raise SpecError(
                f"Wanted a (lon, lat) pair or a spec in row {row}, found {one!r}.",
                fix="pass pairs, or PointBuffer(lon, lat, buffer_m), for every row",
            )
    import pandas as pd

    lon, lat = (pd.Series([one[axis] for one in given]) for axis in (0, 1))
    points = read_points(lon, lat, crs, sides, problems)
    problems.refuse()
    return Places(np.arange(len(given), dtype=np.int64), None, *points, sides, None, *windows)


def _from_specs(specs: Sequence[SpatialSpec], windows: tuple[Days, Days]) -> Places:
    nowhere = (np.nan, np.nan, np.nan)
    numbers = [(one.lon, one.lat, one.buffer_m) if isinstance(one, PointBuffer) else nowhere for one in specs]
    lon, lat, sides = np.array(numbers, np.float64).T
    texts = ["" if isinstance(one, PointBuffer) else outline_text(one) for one in specs]
    outlines = Strings.of(texts) if any(texts) else None
    return Places(np.arange(len(specs), dtype=np.int64), None, lon, lat, sides, outlines, *windows)


def _empty() -> SpecError:
    return SpecError("Wanted at least one place, found an empty table.", fix="check what was read or filtered")
