"""Check the columns of a table of places, all rows at once. Errors name the row and its id."""

import math
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import require_number, short
from rs_embed.core.geo import project
from rs_embed.core.specs import MAX_BUFFER_M
from rs_embed.errors import SpecError
from rs_embed.places.kept import require_unicode
from rs_embed.places.problems import SHOWN, PlaceProblems, cell, numbers
from rs_embed.places.strings import Strings

if TYPE_CHECKING:
    import pandas as pd

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
_WGS84 = "EPSG:4326"


def read_ids(column: "pd.Series") -> list[str]:
    """Return the ids as text.

    Raises:
        SpecError: An id is missing, or used in several rows.
    """
    values, gone = column.to_numpy(object), column.isna().to_numpy(bool)
    require_unicode("ids", ["" if none else str(value) for value, none in zip(values, gone, strict=True)])
    empty = np.flatnonzero(gone | (column.astype(str).str.strip() == "").to_numpy(bool))
    if len(empty):
        raise SpecError(
            f"Expected an id in every row, got {len(empty)} without one.",
            rows=", ".join(map(str, empty[:SHOWN])),
            fix="fill them in, or number the rows instead: id=False",
        )
    texts = column.astype(str)
    repeated = texts[texts.duplicated(keep=False).to_numpy(bool)]
    if len(repeated):
        at = {name: np.flatnonzero((texts == name).to_numpy(bool)) for name in repeated.unique()[:SHOWN]}
        raise SpecError(
            f"Expected every id once, got {repeated.nunique()} of them more than once.",
            ids="\n".join(f"{short(name)} in rows {', '.join(map(str, rows[:SHOWN]))}" for name, rows in at.items()),
            fix="make them unique, or number the rows instead: id=False",
        )
    found: list[str] = texts.to_numpy(object).tolist()
    long = [row for row, text in enumerate(found) if len(text) > MAX_ID_CHARS or "\0" in text]
    if long:
        raise SpecError(
            f"Expected ids of up to {MAX_ID_CHARS:,} characters without NUL, got {len(long)} others.",
            rows=", ".join(map(str, long[:SHOWN])),
            fix="choose another column, id=<another>, or number the rows instead: id=False",
        )
    return found


MAX_ID_CHARS = 1000
"""Longest id: ids appear in messages, tables and file names."""


def read_buffer(
    column: "pd.Series | None", buffer_m: float | None, count: int, problems: PlaceProblems
) -> NDArray[np.float64]:
    """Return half the side of each square, metres; NaN where it is not given."""
    if column is None:
        if buffer_m is not None and not 0 < require_number("buffer_m", buffer_m, -math.inf, math.inf) <= MAX_BUFFER_M:
            raise SpecError(
                f"Expected buffer_m above 0 and up to {MAX_BUFFER_M:g}, got {buffer_m!r}.",
                fix="give buffer_m in metres",
            )
        return np.full(count, np.nan if buffer_m is None else buffer_m, np.float64)
    if buffer_m is not None:
        raise SpecError(
            f"Expected buffer_m once, got the argument and the column {str(column.name)!r}.", fix="leave out one"
        )
    sides = numbers(column)
    problems.add(
        ~((sides > 0) & (sides <= MAX_BUFFER_M)) & ~column.isna().to_numpy(bool),
        lambda row: f"Expected buffer_m above 0 and up to {MAX_BUFFER_M:g}, got {cell(column, row)}",
    )
    return sides


def read_points(
    lon: "pd.Series", lat: "pd.Series", crs: str | None, sides: NDArray[np.float64], problems: PlaceProblems
) -> Points:
    """Return longitudes and latitudes of points."""
    xs, ys = numbers(lon), numbers(lat)
    missing = np.isnan(xs) | np.isnan(ys)
    problems.add(missing, lambda row: _no_numbers(cell(lon, row), cell(lat, row)))
    if crs is None and (np.abs(xs[~missing]) > 360).sum() > len(xs) / 2:
        raise SpecError(
            f"Expected longitudes and latitudes, got numbers such as {xs[~missing][0]:g} and {ys[~missing][0]:g}.",
            fix='they look like metres: pass their CRS, as in crs="EPSG:32633"',
        )
    points = _degrees(xs, ys, _short_crs(_WGS84 if crs is None else crs), missing, problems)
    _check_buffers(sides, np.ones(len(xs), bool), problems)
    return points


def _no_numbers(lon: str, lat: str) -> str:
    comma = re.fullmatch(r"'[+-]?\d+,\d+'", lon) or re.fullmatch(r"'[+-]?\d+,\d+'", lat)
    hint = "; for decimal commas: pandas.read_csv(path, sep=';', decimal=',')" if comma else ""
    return f"Expected two numbers, got {lon} and {lat}{hint}"


def _check_buffers(sides: NDArray[np.float64], points: NDArray[np.bool_], problems: PlaceProblems) -> None:
    if points.any() and np.isnan(sides[points]).all():
        raise SpecError(
            "Expected a buffer around each point, got none.",
            fix="pass buffer_m=<half the side of the square, metres>, or add a column of that name",
        )
    problems.add(points & np.isnan(sides), lambda row: "Expected a buffer_m around the point, got none")


def _degrees(
    xs: NDArray[np.float64], ys: NDArray[np.float64], crs: str, known_bad: NDArray[np.bool_], problems: PlaceProblems
) -> Points:
    lons, lats = (xs, ys) if crs == _WGS84 else project(xs, ys, crs, _WGS84)
    outside = ~((np.abs(lons) <= 180) & (np.abs(lats) <= 90)) & ~known_bad
    swapped = outside & (np.abs(lats) <= 180) & (np.abs(lons) <= 90)
    hint = "; lon and lat look swapped" if swapped.any() and crs == _WGS84 else ""
    problems.add(
        outside,
        lambda row: (
            f"Expected lon between -180 and 180 and lat between -90 and 90, got {xs[row]:g} and {ys[row]:g}"
            + (f" of {crs}" if crs != _WGS84 else hint)
        ),
    )
    return lons, lats


def read_outlines(
    column: "pd.Series", crs: str | None, sides: NDArray[np.float64], problems: PlaceProblems
) -> tuple[Points, Strings | None]:
    """Return points in degrees and polygons as text; the buffer of a polygon becomes NaN."""
    import shapely

    shapes, crs = _shapes(column, problems), _crs_text(column, crs)
    kinds = shapely.get_type_id(shapes)
    empty = (kinds == -1) | shapely.is_empty(shapes)
    problems.add(empty, lambda row: f"Expected a geometry, got {'none' if kinds[row] == -1 else 'an empty one'}")
    lone = (kinds == _MULTIPOLYGON) & (shapely.get_num_geometries(shapes) == 1)
    shapes[lone] = shapely.get_geometry(shapes[lone], 0)
    is_polygon, is_point = (kinds == _POLYGON) | (kinds == _MULTIPOLYGON), kinds == _POINT
    problems.add(
        ~(is_polygon | is_point),
        lambda row: (
            f"Expected a point or a polygon, got a {shapes[row].geom_type}"
            + (f" of {len(shapes[row].geoms)} parts (table.explode() makes rows of them)" if kinds[row] > 3 else "")
        ),
    )
    good_points, good_polygons = is_point & ~empty, is_polygon & ~empty
    _check_buffers(sides, good_points, problems)
    xs, ys = np.full(len(shapes), np.nan), np.full(len(shapes), np.nan)
    xs[good_points], ys[good_points] = shapely.get_x(shapes[good_points]), shapely.get_y(shapes[good_points])
    points = _degrees(xs, ys, crs, ~good_points, problems)
    sides[~is_point] = np.nan
    if not good_polygons.any():
        return points, None
    _check_polygons(shapes, good_polygons, crs, problems)
    texts = np.full(len(shapes), "", object)
    geojson = shapely.to_geojson(shapely.force_2d(shapes[good_polygons]))
    texts[good_polygons] = [f"{crs};{text}" for text in geojson]
    return points, Strings.of(list(texts))


_POINT, _POLYGON, _MULTIPOLYGON = 0, 3, 6
"""Type numbers of shapely."""


def _check_polygons(
    shapes: NDArray[np.object_], polygons: NDArray[np.bool_], crs: str, problems: PlaceProblems
) -> None:
    import shapely

    left, bottom, right, top = shapely.bounds(shapes).T
    (west, east), (south, north) = ((left, right), (bottom, top))
    if crs != _WGS84:
        west, south = project(left, bottom, crs, _WGS84)
        east, north = project(right, top, crs, _WGS84)
    inside = (np.abs([west, east]) <= 180).all(axis=0) & (np.abs([south, north]) <= 90).all(axis=0)
    problems.add(
        polygons & ~inside,
        lambda row: (
            f"Expected a polygon on the Earth in {crs}, got one from {left[row]:g} {bottom[row]:g} "
            f"to {right[row]:g} {top[row]:g}"
        ),
    )
    flat = shapely.area(shapes) == 0
    problems.add(polygons & flat, lambda row: "Expected a polygon with an area, got none")


def _shapes(column: "pd.Series", problems: PlaceProblems) -> NDArray[np.object_]:
    import shapely

    values: NDArray[np.object_] = column.to_numpy(object, copy=True)
    values[column.isna().to_numpy(bool)] = None
    filled = [value for value in values if value is not None]
    if filled and isinstance(filled[0], str | bytes):
        read = shapely.from_wkt if isinstance(filled[0], str) else shapely.from_wkb
        shapes: NDArray[np.object_] = read(values, on_invalid="ignore")
        problems.add(
            shapely.is_missing(shapes) & (values != None),  # noqa: E711  (element by element)
            lambda row: f"Expected a geometry, got {values[row][:60]!r}",
        )
        return shapes
    return values


def _crs_text(column: "pd.Series", crs: str | None) -> str:
    """Return the table's CRS in short form; WGS 84 is always EPSG:4326."""
    from pyproj import CRS

    own = column.array.crs if column.dtype.name == "geometry" else None
    if own is not None and crs is not None and CRS(own) != CRS(crs):
        raise SpecError(f"Expected one CRS, got {own.to_string()} in the table and crs={crs!r}.", fix="leave out crs")
    if own is None and crs is None and column.dtype.name == "geometry":
        raise SpecError("Expected a CRS, got geometries without one.", fix='pass it, for example crs="EPSG:4326"')
    return _short_crs(own if own is not None else _WGS84 if crs is None else crs)


def _short_crs(crs: object) -> str:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        cut = isinstance(crs, str) and "\0" in crs  # pyproj reads no further
        known = CRS("" if cut else crs)
    except (CRSError, ValueError, TypeError) as error:
        fix = f'for example "EPSG:{crs}"' if isinstance(crs, int) else 'for example "EPSG:32633"'
        raise SpecError(f"Expected a CRS that pyproj knows, got {short(crs)}.", fix=fix) from error
    if known.equals(CRS(_WGS84), ignore_axis_order=True):
        return _WGS84
    epsg = known.to_epsg()
    return f"EPSG:{epsg}" if epsg else known.to_wkt()
