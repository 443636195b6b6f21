"""Turn places into grids: square pixels in metres, in the UTM zone of the place, aligned with the sensor's grid."""

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from rs_embed.core.checks import require_number
from rs_embed.core.polygon import Ring
from rs_embed.core.specs import BBox, GridBlock, PointBuffer, Region, SpatialSpec
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    import xarray as xr
    from shapely.geometry.base import BaseGeometry

MAX_SIDE_PX = 32_768
"""Largest side of one chip; also Earth Engine's own limit per request."""
MAX_EASTING_OFFSET_M = 650_000.0
"""UTM's scale is k0 (1 + x^2 / 2R^2): at this distance from the central meridian it is 0.5 percent off."""
_FALSE_EASTING_M = 500_000.0
_UPS_NORTH, _UPS_SOUTH = 32661, 32761


def utm_epsg(lon: float, lat: float) -> int:
    """Return the EPSG code of the UTM zone of a point (UPS beyond 84 N and 80 S).

    The zones are those of Sentinel-2 tiles, with their exceptions for Norway (32V) and Svalbard (31X to 37X).
    Source: MGRS, DMA TM 8358.1.
    """
    if lat >= 84:
        return _UPS_NORTH
    if lat < -80:
        return _UPS_SOUTH
    zone = min(int((lon + 180) // 6) + 1, 60)
    if 56 <= lat < 64 and 3 <= lon < 12:
        zone = 32
    if lat >= 72 and 0 <= lon < 42:
        zone = 31 if lon < 9 else 33 if lon < 21 else 35 if lon < 33 else 37
    return (32600 if lat >= 0 else 32700) + zone


@lru_cache(maxsize=256)
def _transformer(from_crs: str, to_crs: str) -> Transformer:
    try:
        return Transformer.from_crs(from_crs, to_crs, always_xy=True)
    except CRSError as error:
        raise SpecError(
            f"Expected a CRS that pyproj knows, got {from_crs!r}.", fix='for example crs="EPSG:32633"'
        ) from error


def geobox_for(spatial: SpatialSpec, scale_m: float = 10.0) -> GeoBox:
    """Return the exact grid that a request for this place uses.

    The grid is north-up with square pixels of `scale_m`, and its edges are whole multiples of `scale_m` (at 10 m, the
    grid of Sentinel-2). A `PointBuffer` gives a square of `round(2 * buffer_m / scale_m)` pixels; a `BBox` or `Region`
    gives the smallest grid that covers it. A box or region in a UTM CRS keeps that CRS. A
    `GridBlock` gives exactly itself, in its own CRS, with the imagery around it.

    Args:
        spatial: A `PointBuffer`, `BBox`, `Region` or `GridBlock`.
        scale_m: Pixel size, metres.

    Raises:
        SpecError: The place is smaller than a pixel, larger than 32,768 px a side, or too wide for one UTM zone;
            the edges of a block lie between pixels.
    """
    scale_m = require_number("scale_m", scale_m, 0.01, 100_000)
    if isinstance(spatial, PointBuffer):
        return _around_point(spatial, scale_m)
    if isinstance(spatial, BBox | Region):
        return _around_outline(spatial, scale_m)
    if isinstance(spatial, GridBlock):
        return _of_block(spatial, scale_m)
    raise SpecError(
        f"Expected a PointBuffer, BBox, Region or GridBlock, got {spatial!r}.",
        fix="for example PointBuffer(lon=12.94, lat=47.77, buffer_m=1000)",
    )


def _around_point(point: PointBuffer, scale_m: float) -> GeoBox:
    epsg = utm_epsg(point.lon, point.lat)
    x, y = _transformer("EPSG:4326", f"EPSG:{epsg}").transform(point.lon, point.lat)
    side_m = 2 * point.buffer_m
    if side_m < scale_m:
        raise SpecError(
            f"Expected a square of at least one pixel, got {side_m:g} m at {scale_m:g} m per pixel.",
            fix=f"use buffer_m of at least {scale_m / 2:g} (it is half of the side)",
        )
    side_px = round(side_m / scale_m)
    half_m = side_px * scale_m / 2
    left, top = round((x - half_m) / scale_m), round((y + half_m) / scale_m)
    return _geobox(epsg, (left, top - side_px, left + side_px, top), scale_m)


def one_cell(spatial: SpatialSpec) -> GeoBox:
    """Return the place as a single cell with the same centre; the cell is not aligned with any pixel grid.

    For a polygon, the centre is that of its bounding box.

    Raises:
        SpecError: The place is too wide for one UTM zone.
    """
    if isinstance(spatial, GridBlock):
        require_metres(spatial.crs)
        width, height = spatial.east - spatial.west, spatial.north - spatial.south
        return GeoBox((1, 1), Affine(width, 0, spatial.west, 0, -height, spatial.north), spatial.crs)
    if isinstance(spatial, PointBuffer):
        epsg = utm_epsg(spatial.lon, spatial.lat)
        x, y = _transformer("EPSG:4326", f"EPSG:{epsg}").transform(spatial.lon, spatial.lat)
        half_m = spatial.buffer_m
        west, south, east, north = x - half_m, y - half_m, x + half_m, y + half_m
    else:
        epsg, (west, south, east, north) = _edges_m(spatial)
    return GeoBox((1, 1), Affine(east - west, 0, west, 0, south - north, north), f"EPSG:{epsg}")


def _of_block(block: GridBlock, scale_m: float) -> GeoBox:
    require_metres(block.crs)
    around_m = block.before_m + block.after_m
    height, width = (
        side_m / scale_m for side_m in (block.north - block.south + around_m, block.east - block.west + around_m)
    )
    rows, cols = round(height), round(width)
    if max(abs(height - rows), abs(width - cols)) > 1e-6 or not 0 < min(rows, cols) <= max(rows, cols) <= MAX_SIDE_PX:
        raise SpecError(
            f"Expected a block of whole pixels of {scale_m:g} m, at most {MAX_SIDE_PX} a side, got {block!r}.",
            fix="choose edges that are multiples of the pixel size",
        )
    affine = Affine(scale_m, 0, block.west - block.before_m, 0, -scale_m, block.north + block.before_m)
    return GeoBox((rows, cols), affine, block.crs)


def require_metres(crs: str) -> None:
    """Raise `SpecError` for a CRS whose coordinates are not metres."""
    try:
        found = CRS(crs)
    except CRSError as error:
        raise SpecError(f"Expected a CRS that pyproj knows, got {crs!r}.", fix='for example crs="EPSG:3035"') from error
    units = {axis.unit_name for axis in found.axis_info}
    if not found.is_projected or units != {"metre"}:
        raise SpecError(
            f"Expected a projected CRS in metres, got {crs!r} in {', '.join(sorted(units))}.",
            fix='for example crs="EPSG:3035" (Europe), "EPSG:5070" (United States), or a UTM zone',
        )


def _around_outline(spatial: BBox | Region, scale_m: float) -> GeoBox:
    epsg, edges = _edges_m(spatial)
    tolerance = 1e-6  # pixels: a box on the grid keeps its edges in spite of rounding
    left, bottom = (math.floor(edge / scale_m + tolerance) for edge in edges[:2])
    right, top = (math.ceil(edge / scale_m - tolerance) for edge in edges[2:])
    return _geobox(epsg, (left, bottom, max(right, left + 1), max(top, bottom + 1)), scale_m)


def _edges_m(spatial: BBox | Region) -> tuple[int, tuple[float, float, float, float]]:
    """Return the EPSG code of a zone, and west, south, east and north of the place in it, metres."""
    xs, ys = outline(spatial)
    lons, lats = project(xs, ys, spatial.crs, "EPSG:4326")
    if not (np.isfinite(lons).all() and np.isfinite(lats).all()):
        raise SpecError(f"{spatial!r} lies outside the area of {spatial.crs}.", fix="check the coordinates and the crs")
    epsg = _utm_of(spatial.crs) or utm_epsg(_middle_longitude(lons), float(lats.min() + lats.max()) / 2)
    east, north = project(xs, ys, spatial.crs, f"EPSG:{epsg}")
    if epsg not in (_UPS_NORTH, _UPS_SOUTH) and np.abs(east - _FALSE_EASTING_M).max() > MAX_EASTING_OFFSET_M:
        across = isinstance(spatial, Region) and np.ptp(lons) > 180
        raise SpecError(
            f"{spatial!r} is too wide for one UTM zone (EPSG:{epsg}): distances would be off by over 0.5 %.",
            fix="cut it at the antimeridian, or use a BBox, which may cross it"
            if across
            else "split it into boxes of at most 6 degrees of longitude and call get_embeddings",
        )
    return epsg, (float(east.min()), float(north.min()), float(east.max()), float(north.max()))


def outline(spatial: BBox | Region | GridBlock) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the border of a box or of all polygons, in its own CRS, with points along the edges."""
    if isinstance(spatial, Region):
        borders = [densified(rings[0]) for rings in spatial.parts]
        return np.concatenate([xs for xs, _ in borders]), np.concatenate([ys for _, ys in borders])
    if isinstance(spatial, GridBlock):
        return densified(box_ring(spatial.west, spatial.south, spatial.east, spatial.north))
    west, east = spatial.minlon, spatial.maxlon
    east += 360 if spatial.is_geographic and east < west else 0
    return densified(box_ring(west, spatial.minlat, east, spatial.maxlat))


def box_ring(west: float, south: float, east: float, north: float) -> Ring:
    """The corners of a box, counter-clockwise, closed."""
    return ((west, south), (east, south), (east, north), (west, north), (west, south))


def densified(ring: Ring) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y along a ring, with 21 points per edge, because edges curve when projected."""
    steps = np.linspace(0, 1, 21)
    edges = list(pairwise(ring))
    xs = np.concatenate([x0 + (x1 - x0) * steps for (x0, _), (x1, _) in edges])
    ys = np.concatenate([y0 + (y1 - y0) * steps for (_, y0), (_, y1) in edges])
    return xs, ys


def project(
    xs: NDArray[np.float64], ys: NDArray[np.float64], from_crs: str, to_crs: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project points to another CRS (x is always the easting or longitude)."""
    projected: tuple[NDArray[np.float64], NDArray[np.float64]] = _transformer(from_crs, to_crs).transform(xs, ys)
    return projected


def prepared(shape: "BaseGeometry") -> "BaseGeometry":
    """Return a copy of a geometry that answers many questions fast, for one thread.

    Whatever several threads can reach must not be prepared itself: GEOS keeps the state of a question in prepared
    geometries, and two questions at once end the process.
    """
    import shapely

    copy: BaseGeometry = shapely.from_wkb(shapely.to_wkb(shape))
    shapely.prepare(copy)
    return copy


def _middle_longitude(lons: NDArray[np.float64]) -> float:
    """Return the middle of the range, across the antimeridian if that is the shorter way."""
    unwrapped = np.unwrap(lons, period=360)
    middle = float(unwrapped.min() + unwrapped.max()) / 2
    return (middle + 180) % 360 - 180


def _utm_of(crs: str) -> int | None:
    epsg = CRS(crs).to_epsg()
    is_utm = epsg is not None and (32601 <= epsg <= 32660 or 32701 <= epsg <= 32760)
    return epsg if is_utm or epsg in (_UPS_NORTH, _UPS_SOUTH) else None


def _geobox(epsg: int, edges_px: tuple[int, int, int, int], scale_m: float) -> GeoBox:
    left, bottom, right, top = edges_px
    height, width = top - bottom, right - left
    if max(height, width) > MAX_SIDE_PX:
        raise SpecError(
            f"Expected at most {MAX_SIDE_PX} pixels a side, got {height} x {width} at {scale_m:g} m.",
            fix="use a coarser scale_m, or split the area and call get_embeddings",
        )
    affine = Affine(scale_m, 0, left * scale_m, 0, -scale_m, top * scale_m)
    return GeoBox((height, width), affine, f"EPSG:{epsg}")


def pixel_size_m(geobox: GeoBox) -> float:
    """Return the pixel size in metres of the grid's CRS (exact for the grids of `geobox_for`)."""
    return math.sqrt(abs(geobox.affine.a * geobox.affine.e - geobox.affine.b * geobox.affine.d))


def pixel_centres(geobox: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude of every pixel centre, each `[H, W]`, degrees."""
    rows, cols = np.mgrid[: geobox.shape[0], : geobox.shape[1]] + 0.5
    xs, ys = geobox.affine @ (cols, rows)
    return project(xs, ys, str(geobox.crs), "EPSG:4326")


def subgrid(geobox: GeoBox, origin_px: tuple[float, float], cell_px: float, shape: tuple[int, int]) -> GeoBox:
    """Return a grid of square cells laid on `geobox`.

    Args:
        geobox: The grid to lay it on.
        origin_px: Row and column of the new grid's north-west corner, in pixels of `geobox`.
        cell_px: Side of a cell, in pixels of `geobox`.
        shape: Rows and columns of the new grid.
    """
    row, col = origin_px
    affine = geobox.affine @ Affine.translation(col, row) @ Affine.scale(cell_px)
    return GeoBox(shape, affine, geobox.crs)


def refined(geobox: GeoBox, times: int) -> GeoBox:
    """Return a grid of the same area with pixels `times` smaller.

    Raises:
        SpecError: The grid would have more pixels than a chip may have.
    """
    height, width = geobox.shape
    if max(height, width) * times > MAX_SIDE_PX:
        raise SpecError(
            f"Expected at most {MAX_SIDE_PX} pixels a side, got {height * times} x {width * times}.",
            fix="split the area and call get_embeddings",
        )
    return subgrid(geobox, (0, 0), 1 / times, (height * times, width * times))


def with_coordinates(array: "xr.DataArray", geobox: GeoBox) -> "xr.DataArray":
    """Label the last two axes, `y` and `x`, with pixel centres and the CRS, in the form that CF and GDAL read.

    (`odc.geo.xr` does the same but cannot be imported without dask: odc-geo 0.5.3.)
    """
    height, width = geobox.shape
    a, _, c, _, e, f = tuple(geobox.affine)[:6]
    cf_names = {axis["axis"].lower(): axis for axis in CRS(str(geobox.crs)).cs_to_cf()}
    x = ("x", c + a * (np.arange(width) + 0.5), cf_names.get("x", {}))
    y = ("y", f + e * (np.arange(height) + 0.5), cf_names.get("y", {}))
    crs = CRS(str(geobox.crs))
    grid_mapping = {**crs.to_cf(), "GeoTransform": f"{c} {a} 0 {f} 0 {e}"}
    placed = array.assign_coords(y=y, x=x, spatial_ref=((), crs.to_epsg() or 0, grid_mapping))
    placed.attrs["grid_mapping"] = "spatial_ref"
    return placed
