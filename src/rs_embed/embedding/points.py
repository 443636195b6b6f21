"""Look up the tokens of a grid at points."""

import sys
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.checks import require_choice, require_lon_lat
from rs_embed.core.geo import project
from rs_embed.errors import SpecError
from rs_embed.places import Places, read_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas
    import pandas as pd

    from rs_embed.embedding.embedding import Embedding

Points: TypeAlias = """
    Sequence[tuple[float, float]] | Sequence[shapely.Point] | NDArray[np.floating] | pd.DataFrame
    | geopandas.GeoSeries
"""
"""Types that are read as points."""
Outside = Literal["raise", "nan"]
_WHERE = ("lon", "longitude", "lng", "x", "lat", "latitude", "y", "geometry", "geom", "wkt")
"""Columns of a table that hold the location. Other columns (repeated ids, dates, lists) are ignored."""
_ANY_BUFFER_M = 1.0
"""A placeholder: reading places requires a buffer, but points have none."""
_EDGE_PX = 1e-6
"""Points this close to the edge of a grid count as inside, to allow for rounding in PROJ."""


def token_at(grid: "Embedding", lon: float, lat: float) -> NDArray[np.float32]:
    """Return the token at a point; see `Embedding.at`."""
    lon, lat = require_lon_lat(lon, lat)
    (vector,) = _values(grid, np.array([lon]), np.array([lat]), "raise")
    found: NDArray[np.float32] = vector
    return found


def sample_points(grid: "Embedding", points: Points, outside: Outside) -> NDArray[np.float32]:
    """Return the tokens at points; see `Embedding.sample`."""
    require_choice("outside", outside, get_args(Outside))
    places = _read(points)
    if np.isnan(places.lon).any():
        raise SpecError(
            f"Expected points, got a box or a polygon in row {int(np.isnan(places.lon).argmax())}.",
            fix="pass its centroid, or clip emb.to_xarray() to it for every token that it covers",
        )
    return _values(grid, places.lon, places.lat, outside)


def _read(points: Points) -> Places:
    """Read points as `read_places` does, ignoring every column but the location."""
    pandas, geopandas = (sys.modules.get(name) for name in ("pandas", "geopandas"))  # no table without them
    if geopandas is not None and isinstance(points, geopandas.GeoDataFrame | geopandas.GeoSeries):
        return read_places(points.geometry.to_frame("geometry"), buffer_m=_ANY_BUFFER_M)
    if pandas is not None and isinstance(points, pandas.DataFrame):
        where = [name for name in points.columns if str(name).strip().lower() in _WHERE]
        return read_places(points[where] if where else points, buffer_m=_ANY_BUFFER_M, keep=False)
    if isinstance(points, list | tuple):
        points = [(one.x, one.y) if isinstance(one, shapely.Point) else one for one in points]
    elif not isinstance(points, np.ndarray):
        raise SpecError(
            f"Expected points, got {type(points).__name__}.",
            fix="pass a list of (lon, lat) or of shapely points, an array [N, 2], a DataFrame or a GeoDataFrame",
        )
    return read_places(points, buffer_m=_ANY_BUFFER_M)


def _values(
    grid: "Embedding", lons: NDArray[np.float64], lats: NDArray[np.float64], outside: Outside
) -> NDArray[np.float32]:
    """Return the tokens at points, `[N, D]`; NaN where a point lies outside and `outside` is "nan"."""
    geobox = _geobox_of(grid)
    rows, cols = cells_of(geobox, lons, lats)
    lost = rows < 0
    if outside == "raise" and lost.any():
        row = int(lost.argmax())
        box = geobox.boundingbox
        raise SpecError(
            f"Expected points on the grid, got {int(lost.sum())} of {len(rows)} outside it.",
            first=f"lon {lons[row]:.6f}, lat {lats[row]:.6f}" + (f" (row {row})" if len(rows) > 1 else ""),
            grid=f"{box.left:.0f} to {box.right:.0f} east, {box.bottom:.0f} to {box.top:.0f} north, {geobox.crs}",
            fix='leave them out, or return NaN for them: emb.sample(points, outside="nan")',
        )
    values: NDArray[np.float32] = grid.data[:, rows, cols].T.copy()
    values[lost] = np.nan
    return values


def _geobox_of(grid: "Embedding") -> GeoBox:
    if not grid.is_grid:
        raise SpecError(
            "Expected a grid, got a pooled vector, which represents the whole chip.",
            fix="request a grid: output=OutputSpec.grid()",
        )
    if grid.geobox is None:
        raise SpecError(
            "Expected a georeferenced grid, got the grid of an array without a place.",
            fix="pass spatial=... when you embed the array, or index emb.data by row and column",
        )
    return grid.geobox


def cells_of(
    geobox: GeoBox, lons: NDArray[np.float64], lats: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return row and column of the cell that contains each point; -1 outside. The outer edges belong to the grid."""
    xs, ys = project(lons, lats, "EPSG:4326", str(geobox.crs))
    a, b, c, d, e, f = tuple(~geobox.affine)[:6]
    places = (d * xs + e * ys + f, a * xs + b * ys + c)
    inside = np.ones(len(xs), bool)
    for place, side in zip(places, geobox.shape, strict=True):
        inside &= (place >= -_EDGE_PX) & (place <= side + _EDGE_PX)
    rows, cols = (
        np.where(inside, np.floor(np.where(inside, place, 0)).clip(0, side - 1), -1).astype(np.intp)
        for place, side in zip(places, geobox.shape, strict=True)
    )
    return rows, cols
