"""Shapes on the Earth: in degrees, unbroken where they cross the antimeridian."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
import shapely.affinity
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, mapping, shape

from gee_server.errors import EarthEngineError
from gee_server.grid import WGS84, is_geographic, reproject

_SEGMENTS = 12
"""Pieces that a projected edge is cut into before it is bent on to the sphere."""


@dataclass(frozen=True)
class Geometry:
    """A shape whose longitudes may run past 180 degrees so that it stays in one piece."""

    shape: shapely.Geometry
    geodesic: bool = True
    crs: str = "EPSG:4326"

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        return self.shape.bounds

    def intersects(self, other: "Geometry") -> bool:
        """Whether the two share a point."""
        return any(self.shape.intersects(_moved(other.shape, shift)) for shift in _shifts(self.bounds, other.bounds))

    def contains(self, other: "Geometry") -> bool:
        """Whether the other lies within."""
        return any(self.shape.contains(_moved(other.shape, shift)) for shift in _shifts(self.bounds, other.bounds))

    def intersection(self, other: "Geometry") -> "Geometry":
        """What both cover."""
        pieces = [self.shape.intersection(_moved(other.shape, by)) for by in _shifts(self.bounds, other.bounds)]
        return Geometry(shapely.union_all(pieces) if pieces else Polygon())

    def union(self, other: "Geometry") -> "Geometry":
        """What either covers."""
        return Geometry(shapely.union_all([self.shape, other.shape]))

    @property
    def area_m2(self) -> float:
        """On the ellipsoid."""
        return abs(WGS84.geometry_area_perimeter(self.shape)[0])

    def buffer(self, metres: float) -> "Geometry":
        """Grown to all sides."""
        middle = self.shape.centroid
        stretch = max(np.cos(np.radians(middle.y)), 0.01)
        square = shapely.affinity.scale(self.shape, xfact=stretch, yfact=1, origin=middle)
        grown = square.buffer(metres / 111195.0, quad_segs=16)
        return Geometry(shapely.affinity.scale(grown, xfact=1 / stretch, yfact=1, origin=middle))

    def geojson(self) -> dict:
        """As `getInfo` gives it."""
        return {**_lists(mapping(self.shape)), "geodesic": self.geodesic}


def _lists(value):
    if isinstance(value, dict):
        return {key: _lists(one) for key, one in value.items()}
    return [_lists(one) for one in value] if isinstance(value, list | tuple) else value


def _moved(what: shapely.Geometry, shift: float) -> shapely.Geometry:
    return shapely.affinity.translate(what, xoff=shift) if shift else what


def _shifts(one: tuple, other: tuple) -> list[float]:
    """By how much to turn the other shape so that the bounds of both can meet."""
    if one[1] > other[3] or other[1] > one[3]:
        return []
    return [s for s in (-720.0, -360.0, 0.0, 360.0, 720.0) if one[0] <= other[2] + s and other[0] + s <= one[2]]


def unwrap(lon: np.ndarray) -> np.ndarray:
    """Longitudes without jumps: every step goes the short way round."""
    lon = np.asarray(lon, float)
    steps = np.diff(lon)
    return np.concatenate([lon[:1], lon[0] + np.cumsum((steps + 180) % 360 - 180)])


def ring(points, crs: str = "EPSG:4326", geodesic: bool = True) -> list[tuple[float, float]]:
    """The corners of one ring in degrees, more of them where a straight line in `crs` bends on the sphere."""
    corners = np.asarray(points, float)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise EarthEngineError("GeometryConstructors.Polygon: LinearRing requires at least 3 points.")
    if is_geographic(crs):
        lon = unwrap(corners[:, 0]) if geodesic else corners[:, 0]
        return list(zip(lon, corners[:, 1], strict=True))
    if not np.array_equal(corners[0], corners[-1]):
        corners = np.concatenate([corners, corners[:1]])
    along = np.linspace(0, 1, _SEGMENTS, endpoint=False)[:, None]
    edges = [start + along * (end - start) for start, end in zip(corners[:-1], corners[1:], strict=True)]
    dense = np.concatenate(edges)
    lon, lat = reproject(crs, "EPSG:4326", dense[:, 0], dense[:, 1])
    return list(zip(unwrap(lon), lat, strict=True))


def polygon(rings, crs: str = "EPSG:4326", geodesic: bool = True) -> Geometry:
    """A polygon with holes, or a single ring given as a flat list of corners."""
    if rings and not isinstance(rings[0][0], list | tuple):
        rings = [rings]
    outer, *holes = [ring(one, crs, geodesic) for one in rings]
    return Geometry(Polygon(outer, holes), geodesic)


def rectangle(west: float, south: float, east: float, north: float, geodesic: bool, crs: str) -> Geometry:
    """Four sides; in degrees east may be smaller than west, which means across the antimeridian."""
    if is_geographic(crs) and east < west:
        east += 360
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    if is_geographic(crs):
        return Geometry(Polygon(corners), geodesic)
    return Geometry(Polygon(ring(corners, crs, geodesic)), geodesic)


def from_geojson(value: dict) -> Geometry:
    """A GeoJSON geometry, as it may stand in a property."""
    return Geometry(shape(value))


def point(x: float, y: float, crs: str = "EPSG:4326") -> Geometry:
    """One place."""
    lon, lat = reproject(crs, "EPSG:4326", x, y)
    return Geometry(Point(lon, lat))


def line(points, crs: str = "EPSG:4326") -> Geometry:
    """A line through points."""
    lon, lat = reproject(crs, "EPSG:4326", *np.asarray(points, float).T)
    return Geometry(LineString(np.column_stack([unwrap(lon), lat])))


def points(coordinates, crs: str = "EPSG:4326") -> Geometry:
    """Several places."""
    lon, lat = reproject(crs, "EPSG:4326", *np.asarray(coordinates, float).T)
    return Geometry(MultiPoint(np.column_stack([lon, lat])))


def polygons(parts, crs: str = "EPSG:4326", geodesic: bool = True) -> Geometry:
    """Several polygons."""
    return Geometry(MultiPolygon([polygon(part, crs, geodesic).shape for part in parts]), geodesic)


EARTH = Geometry(Polygon([(-180, -90), (180, -90), (180, 90), (-180, 90), (-180, -90)]))
