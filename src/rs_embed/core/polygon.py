"""Read polygons in the forms that users have them into rings of corners."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

from rs_embed.core.checks import require_lon_lat, require_number, short
from rs_embed.errors import SpecError

Ring = tuple[tuple[float, float], ...]
"""Corners of a ring; the last repeats the first."""
Rings = tuple[Ring, ...]
"""A polygon: exterior ring, then holes."""


@runtime_checkable
class GeoInterface(Protocol):
    """Anything with a GeoJSON view of itself (shapely, geopandas rows, ...)."""

    @property
    def __geo_interface__(self) -> Mapping[str, object]: ...


def polygons_of(geometry: object, crs: str) -> tuple[Rings, ...]:
    """Return the polygons of one place, with closed rings: one, or the parts of a MultiPolygon.

    Args:
        geometry: A GeoJSON Polygon, MultiPolygon or Feature, anything with `__geo_interface__`, or a list of corners.
        crs: CRS of the coordinates; those in EPSG:4326 must be on Earth.

    Raises:
        SpecError: It is not a polygon, or has too few corners.
    """
    if isinstance(geometry, GeoInterface):
        geometry = geometry.__geo_interface__
    if _kind(geometry) == "Feature" and isinstance(geometry, Mapping):
        geometry = geometry.get("geometry")
    if _kind(geometry) == "MultiPolygon" and isinstance(geometry, Mapping):
        parts = geometry.get("coordinates")
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise SpecError("Expected a MultiPolygon with polygons, got an empty one.", fix=_PASS)
        return tuple(_closed(_rings(part), crs) for part in parts)
    if isinstance(geometry, Mapping):
        if _kind(geometry) != "Polygon":
            raise SpecError(
                f"Expected a GeoJSON Polygon or MultiPolygon, got type {short(geometry.get('type'))}.",
                fix="use PointBuffer(lon, lat, buffer_m) for a point, get_embeddings for several places",
            )
        geometry = geometry.get("coordinates")
    return (_closed(_rings(geometry), crs),)


_PASS = "pass a GeoJSON Polygon, a shapely polygon, or a list of (x, y) corners"


def _kind(geometry: object) -> str:
    """Return its GeoJSON type."""
    kind = geometry.get("type") if isinstance(geometry, Mapping) else None
    return kind if isinstance(kind, str) else ""


def _closed(rings: Sequence[object], crs: str) -> Rings:
    return tuple(_ring(ring, crs) for ring in rings)


def _rings(geometry: object) -> Sequence[object]:
    if not isinstance(geometry, Sequence) or isinstance(geometry, str) or len(geometry) == 0:
        raise SpecError(f"Expected a polygon, got {short(geometry)}.", fix=_PASS)
    first = geometry[0]
    if isinstance(first, Sequence) and len(first) > 0 and isinstance(first[0], Sequence):
        return geometry
    return [geometry]


def _ring(corners: object, crs: str) -> Ring:
    if not isinstance(corners, Sequence) or isinstance(corners, str):
        raise SpecError(f"Expected a list of corners, got {short(corners)}.", fix="pass corners as (x, y) pairs")
    points: list[tuple[float, float]] = []
    for corner in corners:
        if not isinstance(corner, Sequence) or len(corner) < 2:
            raise SpecError(f"Expected an (x, y) corner, got {short(corner)}.", fix="pass corners as (x, y) pairs")
        if crs.upper() == "EPSG:4326":
            points.append(require_lon_lat(corner[0], corner[1]))
        else:
            points.append((require_number("x", corner[0], -1e8, 1e8), require_number("y", corner[1], -1e8, 1e8)))
    if points and points[0] != points[-1]:
        points.append(points[0])
    if len(set(points)) < 3:
        raise SpecError(
            f"Expected at least 3 different corners in a ring, got {len(set(points))}.",
            fix="list the corners of the polygon in order",
        )
    if _is_flat(points):
        fix = "list the corners in order around the polygon"
        raise SpecError("Expected a polygon with an area, got corners on one line, or edges that cross.", fix=fix)
    return tuple(points)


def _is_flat(points: Sequence[tuple[float, float]]) -> bool:
    """Whether the area is only rounding error, compared with that of the bounding box."""
    west, south = (min(axis) for axis in zip(*points, strict=True))
    near = [(x - west, y - south) for x, y in points]
    width, height = (max(axis) for axis in zip(*near, strict=True))
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(near)) / 2
    return bool(abs(area) <= 1e-9 * width * height)
