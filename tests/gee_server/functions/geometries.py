"""Shapes, and projections as values."""

from shapely.geometry import box

from gee_server.errors import EarthEngineError
from gee_server.geometry import EARTH, Geometry, line, point, points, polygon, polygons, rectangle
from gee_server.grid import Projection, check_crs
from gee_server.interpreter import function


def _crs(projection) -> str:
    return projection.crs if projection is not None else "EPSG:4326"


def _geodesic(given, crs) -> bool:
    """By default edges are geodesic in degrees, straight in a projection."""
    return bool(given) if given is not None else _crs(crs) == "EPSG:4326"


@function("GeometryConstructors.Point")
def _point(coordinates: list, crs) -> Geometry:
    return point(*coordinates, _crs(crs))


@function("GeometryConstructors.MultiPoint")
def _multi_point(coordinates: list, crs) -> Geometry:
    return points(coordinates, _crs(crs))


@function("GeometryConstructors.LineString", "GeometryConstructors.LinearRing")
def _line(coordinates: list, crs, geodesic, maxError) -> Geometry:
    return line(coordinates, _crs(crs))


@function("GeometryConstructors.Polygon")
def _polygon(coordinates: list, crs, geodesic, maxError, evenOdd) -> Geometry:
    return polygon(coordinates, _crs(crs), _geodesic(geodesic, crs))


@function("GeometryConstructors.MultiPolygon")
def _multi_polygon(coordinates: list, crs, geodesic, maxError, evenOdd) -> Geometry:
    return polygons(coordinates, _crs(crs), _geodesic(geodesic, crs))


@function("GeometryConstructors.Rectangle")
def _rectangle(coordinates: list, crs, geodesic, evenOdd) -> Geometry:
    nested = isinstance(coordinates[0], list)
    (west, south), (east, north) = coordinates if nested else (coordinates[:2], coordinates[2:])
    bent = _geodesic(geodesic, crs)
    if not bent and east < west:
        west, east = east, west
    return rectangle(west, south, east, north, bent, _crs(crs))


@function("GeometryConstructors.BBox")
def _bbox(west: float, south: float, east: float, north: float) -> Geometry:
    if east - west >= 360:
        return EARTH
    return rectangle(west, south, east, north, False, "EPSG:4326")


@function("GeometryConstructors.MultiGeometry")
def _multi(geometries: list, crs, geodesic, maxError) -> Geometry:
    whole = geometries[0]
    for shape in geometries[1:]:
        whole = whole.union(shape)
    return whole


function("Geometry.intersects")(lambda left, right, maxError, proj: left.intersects(right))
function("Geometry.contains")(lambda left, right, maxError, proj: left.contains(right))
function("Geometry.containedIn")(lambda left, right, maxError, proj: right.contains(left))
function("Geometry.disjoint")(lambda left, right, maxError, proj: not left.intersects(right))
function("Geometry.intersection")(lambda left, right, maxError, proj: left.intersection(right))
function("Geometry.union")(lambda left, right, maxError, proj: left.union(right))
function("Geometry.area")(lambda geometry, maxError, proj: geometry.area_m2)
function("Geometry.bounds")(lambda geometry, maxError, proj: Geometry(box(*geometry.bounds)))
function("Geometry.centroid")(lambda geometry, maxError, proj: Geometry(geometry.shape.centroid))
function("Geometry.buffer")(lambda geometry, distance, maxError, proj: geometry.buffer(distance))
function("Geometry.type")(lambda geometry: geometry.shape.geom_type)
function("Geometry.coordinates")(lambda geometry: geometry.geojson()["coordinates"])
function("Geometry.transform")(lambda geometry, proj, maxError, geodesic: geometry)
function("Geometry.isUnbounded")(lambda geometry: geometry is EARTH)


@function("Projection", "Proj")
def _projection(crs, transform, transformWkt) -> Projection:
    if not isinstance(crs, str):
        raise EarthEngineError("Projection: The crs must be a string.")
    six = tuple(float(one) for one in transform) if transform else (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return Projection(check_crs(crs), six)


function("Projection.nominalScale")(lambda proj: proj.nominal_scale)
function("Projection.crs")(lambda projection: projection.crs)
function("Projection.atScale")(lambda projection, meters: projection.at_scale(meters))
function("Projection.transform")(lambda projection: str(list(projection.transform)))


@function("Projection.scale")
def _scale(projection: Projection, x: float, y: float) -> Projection:
    sx, shx, tx, shy, sy, ty = projection.transform
    return Projection(projection.crs, (sx * x, shx * y, tx, shy * x, sy * y, ty))


@function("Projection.translate")
def _translate(projection: Projection, x: float, y: float) -> Projection:
    sx, shx, tx, shy, sy, ty = projection.transform
    return Projection(projection.crs, (sx, shx, tx + sx * x + shx * y, shy, sy, ty + shy * x + sy * y))


@function("ErrorMargin")
def _error_margin(value, unit) -> dict:
    return {"type": "ErrorMargin", "value": value, "unit": unit}
