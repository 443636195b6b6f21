"""Footprints of rows in degrees, valid across the antimeridian and around the poles."""

import math
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely import MultiPolygon, Polygon
from shapely.affinity import translate

from rs_embed.core.geo import densified, geobox_for, outline, project
from rs_embed.core.specs import PointBuffer, Region, SpatialSpec
from rs_embed.errors import SpecError
from rs_embed.formats.base import Row

Footprint: TypeAlias = Polygon | MultiPolygon

STEP_M = 2_500.0
"""Longest step along an edge: a straight line in degrees then stays within 1 m of the edge, up to 80 N."""
MAX_STEPS = 64
"""Most steps per edge, as a chip may be hundreds of kilometres wide."""
GRID_DEG = 1e-7
"""Coordinates are rounded to this, 1 cm, so that results do not depend on the last bits of PROJ."""
_POLE_DEG = 1e-9
"""Distance from a pole below which the longitude is undefined."""
_FALLBACK_SCALE_M = 10.0
"""Pixel size of the grid for the place of a failed row: that of Sentinel-2."""


def footprint(row: Row) -> Footprint | None:
    """Return the footprint of a row's chip in degrees, or of the requested place if there is no chip."""
    if row.embedding is not None and row.embedding.geobox is not None:
        return footprint_of(row.embedding.geobox)
    if row.spatial is None:
        return None
    try:
        if isinstance(row.spatial, PointBuffer):
            scale_m = min(_FALLBACK_SCALE_M, 2 * row.spatial.buffer_m)
            return footprint_of(geobox_for(row.spatial, scale_m))
        crs, whole = row.spatial.crs, row.spatial
        parts = [densified(rings[0]) for rings in whole.parts] if isinstance(whole, Region) else [outline(whole)]
        shapes = [_on_the_globe(*project(xs, ys, crs, "EPSG:4326")) for xs, ys in parts]
        return shapes[0] if len(shapes) == 1 else shapely.orient_polygons(shapely.union_all(shapes))
    except SpecError:  # an invalid place is why the row failed; the row is kept without a footprint
        return None


def footprint_of(geobox: GeoBox) -> Footprint:
    """Return the outline of a grid in degrees.

    A grid across the antimeridian becomes a `MultiPolygon` cut there (RFC 7946). A grid that contains a pole becomes
    the whole cap from -180 to 180 up to the pole.
    """
    height, width = geobox.shape
    corners = [(0, 0), (0, height), (width, height), (width, 0), (0, 0)]  # counter-clockwise, as GeoJSON requires
    cols, rows = (
        np.concatenate(axis) for axis in zip(*(_edge(geobox, a, b) for a, b in pairwise(corners)), strict=True)
    )
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    return _on_the_globe(*project(a * cols + b * rows + c, d * cols + e * rows + f, str(geobox.crs), "EPSG:4326"))


def center(row: Row) -> tuple[float, float] | None:
    """Return longitude and latitude of the centre of a row's chip, or of the requested place."""
    if row.embedding is not None and row.embedding.geobox is not None:
        return _middle(row.embedding.geobox)
    spatial: SpatialSpec | None = row.spatial
    if spatial is None:
        return None
    if isinstance(spatial, PointBuffer):
        return spatial.lon, spatial.lat
    try:
        return _middle(geobox_for(spatial, _FALLBACK_SCALE_M))
    except SpecError:
        return None


def _middle(geobox: GeoBox) -> tuple[float, float]:
    height, width = geobox.shape
    x, y = geobox.affine @ (width / 2, height / 2)
    lons, lats = project(np.array([x]), np.array([y]), str(geobox.crs), "EPSG:4326")
    return round(float(lons[0]), 7), round(float(lats[0]), 7)


def _edge(
    geobox: GeoBox, start: tuple[int, int], end: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return columns and rows along an edge, without its end, where the next edge begins."""
    (x0, y0), (x1, y1) = geobox.affine @ start, geobox.affine @ end
    steps = min(max(math.ceil(math.hypot(x1 - x0, y1 - y0) / STEP_M), 1), MAX_STEPS)
    along = np.arange(steps) / steps
    return start[0] + (end[0] - start[0]) * along, start[1] + (end[1] - start[1]) * along


def _on_the_globe(lons: NDArray[np.float64], lats: NDArray[np.float64]) -> Footprint:
    """Convert a ring in degrees to a valid geometry between -180 and 180."""
    lons, lats = _without_poles(lons, lats)
    closed = np.unwrap(np.append(lons, lons[0]), period=360)
    ring = np.stack([closed, np.append(lats, lats[0])], axis=1)
    turn_deg = closed[-1] - closed[0]
    if abs(turn_deg) > 180:  # the ring goes around the Earth: a pole is inside
        pole = 90.0 if lats.mean() > 0 else -90.0
        ring = np.concatenate([ring, [[closed[-1], pole], [closed[0], pole]]])
    if abs(turn_deg) <= 180 and np.abs(ring[:, 0]).max() <= 180:  # nearly always; the rest takes 0.3 ms more
        return shapely.orient_polygons(Polygon(ring.round(7)))
    whole = Polygon(ring)
    turns = range(math.floor((ring[:, 0].min() + 180) / 360), math.ceil((ring[:, 0].max() + 180) / 360))
    parts = [translate(whole & shapely.box(360 * t - 180, -90, 360 * t + 180, 90), -360 * t) for t in turns]
    merged = shapely.set_precision(shapely.union_all(parts), GRID_DEG)
    if not isinstance(merged, Polygon | MultiPolygon):
        raise SpecError("Expected a place with an area, got none in degrees.", fix="check the place and its CRS")
    return shapely.orient_polygons(merged.normalize())


def _without_poles(
    lons: NDArray[np.float64], lats: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Replace a corner on a pole, which has no longitude, by two points with the longitudes of its neighbours."""
    if np.abs(lats).max() < 90 - _POLE_DEG:
        return lons, lats
    points: list[tuple[float, float]] = []
    for i, (lon, lat) in enumerate(zip(lons, lats, strict=True)):
        if abs(lat) < 90 - _POLE_DEG:
            points.append((float(lon), float(lat)))
        else:
            points += [(float(lons[i - 1]), float(lat)), (float(lons[(i + 1) % len(lons)]), float(lat))]
    whole = np.array(points)
    return whole[:, 0], whole[:, 1]
