"""The grid and the years that a store states, and the nearest pixels of a chip on it."""

import math
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.exceptions import CRSError

from rs_embed.errors import NoImagery, ReadError
from rs_embed.providers.published.layout import ArrayLayout, Json, changed
from rs_embed.providers.published.store import Store

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Read = Callable[[slice, slice], Pixels]
"""Returns rows and columns of a store, decoded: `[C, rows, columns]`, NaN for nodata."""
ALIGNED_PX = 1e-3
"""Pixel centres that are off by less count as the same, pixels."""
_DAYS = {"days": 1.0, "hours": 1 / 24, "minutes": 1 / 1440, "seconds": 1 / 86_400}
_YEARS = range(1900, 2200)


def grid_of(attributes: Json, array: ArrayLayout, crs: str, where: str) -> GeoBox:
    """Return the grid of an array.

    Args:
        attributes: Those of its group. `spatial:transform` holds the affine transform, row by row; a CRS may be stated
            as `proj:code`, `proj:wkt2` or `proj:projjson`.
        array: The array, with axes `y` and `x`.
        crs: The CRS that is documented.
        where: The group, for messages.

    Raises:
        ReadError: The transform is missing, or the store states another CRS.
    """
    names = ("proj:code", "proj:wkt2", "proj:projjson")
    stated = next((attributes[name] for name in names if attributes.get(name)), crs)
    if not _same_crs(stated, crs):
        raise changed(where, crs, stated)
    numbers = attributes.get("spatial:transform", array.attributes.get("spatial:transform"))
    if not isinstance(numbers, list) or len(numbers) < 6 or not all(isinstance(one, int | float) for one in numbers):
        raise changed(where, "six numbers as spatial:transform", numbers)
    affine = Affine(*numbers[:6])
    if not math.isfinite(affine.determinant) or affine.determinant == 0:
        raise changed(where, "a transform to the ground as spatial:transform", numbers)
    return GeoBox((array.shape[array.axis("y")], array.shape[array.axis("x")]), affine, crs)


def _same_crs(stated: object, crs: str) -> bool:
    try:
        return bool(CRS.from_user_input(stated).equals(CRS(crs), ignore_axis_order=True))
    except CRSError:
        return False


def position_of_year(
    store: Store, group: str, array: ArrayLayout, year: int, first: int | None = None
) -> tuple[int, tuple[str, ...]]:
    """Return where a year is on the time axis, and notes.

    Args:
        store: The store.
        group: Path of the group that has an array `time` beside `array`.
        array: The array with an axis `time`.
        year: A calendar year.
        first: The documented year of the first position, for a store that does not state years in a known form.

    Raises:
        NoImagery: The store does not have that year.
        ReadError: The years are neither stated nor known.
    """
    count = array.shape[array.axis("time")]
    notes: tuple[str, ...] = ()
    try:
        years = _stated_years(store, f"{group}/time".lstrip("/"), count)
    except ReadError:
        if first is None:
            raise
        years = [*range(first, first + count)]
        notes = (f"The store states no years that this reader knows; its first is {first}, as documented.",)
    if year not in years:
        raise NoImagery(
            f"Expected one of the years {', '.join(map(str, sorted(years)))} in {store.who}, got {year}.",
            fix=f"pass temporal=TemporalSpec.year({min(max(year, min(years)), max(years))})",
        )
    return years.index(year), notes


def _stated_years(store: Store, path: str, count: int) -> list[int]:
    """Return the years of an array `time`.

    Raises:
        ReadError: There is none, or it does not hold `count` years.
    """
    times = store.array(path)
    if times is None or len(times.shape) != 1:
        raise changed(f"{store.url}/{path}", "an array of years", "none" if times is None else times.shape)
    years = _years(store.window(times, {times.axes[0]: slice(0, times.shape[0])}).astype(float), times)
    if len(years) != count or len(set(years)) != count:
        raise changed(f"{store.url}/{path}", f"{count} years", ", ".join(map(str, years)))
    return years


def _years(numbers: Floats, times: ArrayLayout) -> list[int]:
    """Return calendar years from years, or from times as the CF conventions write them ("days since 2017-01-01")."""
    unit, _, since = str(times.attributes.get("units", "")).partition(" since ")
    try:
        start = date.fromisoformat(since.strip()[:10]) if since else None
        found = [int(one) if start is None else (start + timedelta(one * _DAYS[unit.strip()])).year for one in numbers]
    except (KeyError, ValueError, OverflowError) as error:
        raise changed(times.path, "years, or days since a date", f"{unit} since {since}") from error
    if any(year not in _YEARS for year in found):
        raise changed(times.path, "years", ", ".join(f"{one:g}" for one in numbers[:4]))
    return found


def pixels_at(grid: GeoBox, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return rows and columns of points, counted from the corner of the grid: x.5 is the middle of pixel x."""
    cols, rows = ~grid.affine @ (x, y)
    return rows, cols


def is_aligned(rows: Floats, cols: Floats) -> bool:
    """Whether points lie in the middle of pixels."""
    return all(float(np.abs(one - np.floor(one) - 0.5).max()) <= ALIGNED_PX for one in (rows, cols))


def covering(grid: GeoBox, bounds: tuple[float, float, float, float]) -> GeoBox:
    """Return the whole pixels of a grid that cover west, south, east and north of a place."""
    west, south, east, north = bounds
    rows, cols = pixels_at(grid, np.array([west, east]), np.array([south, north]))
    (top, bottom), (left, right) = (
        (math.floor(one.min() + ALIGNED_PX), math.ceil(one.max() - ALIGNED_PX)) for one in (rows, cols)
    )
    return GeoBox((bottom - top, right - left), grid.affine @ Affine.translation(left, top), grid.crs)


def nearest(grid: GeoBox, rows: Floats, cols: Floats, bands: int, read: Read) -> tuple[NDArray[np.bool_], Pixels]:
    """Return which points the grid has, and their nearest pixels.

    Args:
        grid: The grid of the store.
        rows: Rows of the points, of any shape, as `pixels_at` returns them.
        cols: Their columns.
        bands: Number of bands that `read` returns.
        read: Reads from the store. It is asked for the smallest window, or for two if the points lie on both sides of
            the antimeridian, at opposite ends of the grid.

    Returns:
        Which points are inside, in the shape of `rows`, and the pixels of those, `[C, N]`.
    """
    height, width = grid.shape
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)  # False for NaN and infinity
    row, col = (np.floor(one[inside]).astype(np.int64) for one in (rows, cols))
    found = np.full((bands, row.size), np.nan, np.float32)
    east = col >= width // 2
    apart = row.size > 0 and np.ptp(col) > width // 2
    for side in (east, ~east) if apart else (np.ones_like(east),):
        if not side.any():
            continue
        r, c = row[side], col[side]
        window = read(slice(int(r.min()), int(r.max()) + 1), slice(int(c.min()), int(c.max()) + 1))
        found[:, side] = window.reshape(bands, -1)[:, (r - r.min()) * window.shape[2] + c - c.min()]
    return inside, found
