"""Relations between the grid of a raster and a target grid. Pure arithmetic, without reading."""

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.geo import project

ALIGNED_PX = 1e-3
"""Grids that differ by less than this everywhere count as the same, pixels."""


def bounds_deg(grid: GeoBox) -> tuple[float, float, float, float]:
    """Return west, south, east, north in degrees (WGS 84); east exceeds 180 across the antimeridian."""
    lons, lats = _transform(grid, _border_px(grid), "EPSG:4326")
    lons = np.unwrap(lons, period=360)
    return float(lons.min()), float(lats.min()), float(lons.max()), float(lats.max())


def lonlat_border(grid: GeoBox, per_edge: int = 5) -> list[list[float]]:
    """Return a closed ring of longitude and latitude around a grid, longitudes from -180 to 180."""
    points = _border_px(grid).reshape(2, 4, 21)[:, :, : -1 : 20 // per_edge].reshape(2, -1)
    lons, lats = _transform(grid, points, "EPSG:4326")
    ring = [[(float(lon) + 180) % 360 - 180, float(lat)] for lon, lat in zip(lons, lats, strict=True)]
    return [*ring, ring[0]]


def in_degrees(grid: GeoBox) -> str:
    """Describe the bounds and CRS of a grid."""
    west, south, east, north = bounds_deg(grid)
    name = "no CRS" if grid.crs is None else f"EPSG:{grid.crs.epsg}" if grid.crs.epsg else grid.crs.proj.name
    return f"lon {west:.4f} to {east:.4f}, lat {south:.4f} to {north:.4f} ({name})"


def utm_zone(grid: GeoBox) -> str | None:
    """Return UTM zone and hemisphere of a grid, as in "32N"; `None` for another CRS."""
    epsg = None if grid.crs is None else grid.crs.epsg
    hemisphere, zone = divmod(epsg or 0, 100)
    return f"{zone}{'N' if hemisphere == 326 else 'S'}" if hemisphere in (326, 327) and 1 <= zone <= 60 else None


def whole_pixel_shift(source: GeoBox, wanted: GeoBox) -> tuple[int, int] | None:
    """Return row and column of `source` at which `wanted` starts, or `None` if the grids are not aligned."""
    if source.crs != wanted.crs:
        return None
    to_source = ~source.affine @ wanted.affine
    row, col = round(to_source.f), round(to_source.c)
    height, width = wanted.shape
    for corner in ((0, 0), (width, 0), (0, height)):
        x, y = to_source @ corner
        if max(abs(x - corner[0] - col), abs(y - corner[1] - row)) > ALIGNED_PX:
            return None
    return row, col


def finer_by(source: GeoBox, wanted: GeoBox) -> float:
    """Return how many pixels of `source` fit along the side of a pixel in the middle of `wanted`."""
    height, width = wanted.shape
    middle = np.array([[width / 2], [height / 2]])
    corners = _to_source(source, wanted, middle + np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    across, down = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return math.sqrt(abs(across[0] * down[1] - across[1] * down[0]))


def is_outside(source: GeoBox, wanted: GeoBox) -> bool:
    """Whether the grids share no pixel, by the bounding box of the border of `wanted` in the pixels of `source`."""
    border = _to_source(source, wanted, _border_px(wanted))
    if not np.isfinite(border).all():
        return True
    limits = np.array([source.shape[1], source.shape[0]])
    return bool((border.max(axis=1) <= ALIGNED_PX).any() or (border.min(axis=1) >= limits - ALIGNED_PX).any())


def _transform(grid: GeoBox, pixels: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    """Convert columns and rows of a grid, `[2, N]`, to x and y of a CRS; infinite outside its area."""
    x, y = _apply(grid.affine, pixels)
    return np.stack(project(x, y, str(grid.crs), crs))


def _to_source(source: GeoBox, wanted: GeoBox, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert columns and rows of `wanted`, `[2, N]`, to columns and rows of `source`."""
    return _apply(~source.affine, _transform(wanted, pixels, str(source.crs)))


def _apply(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    xs, ys = points
    return np.stack([affine.a * xs + affine.b * ys + affine.c, affine.d * xs + affine.e * ys + affine.f])


def _border_px(grid: GeoBox) -> NDArray[np.float64]:
    """Return columns and rows of 21 points per edge, once around, `[2, 84]` (edges curve when projected)."""
    height, width = grid.shape
    edge, start, end = np.linspace(0, 1, 21), np.zeros(21), np.ones(21)
    cols, rows = np.concatenate([edge, end, edge[::-1], start]), np.concatenate([start, edge, end, edge[::-1]])
    return np.stack([cols * width, rows * height])
