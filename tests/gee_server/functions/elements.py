# ruff: noqa: A006 - arguments are called as Earth Engine calls them
"""Features and properties of elements."""

from gee_server.errors import EarthEngineError
from gee_server.geometry import Geometry
from gee_server.image import Element, Image, footprint_of
from gee_server.interpreter import function
from gee_server.values import Date, coerce


@function("Feature")
def _feature(geometry, metadata, geometryKey) -> Element:
    return Element(dict(metadata or {}), geometry)


def property_of(element: Element, name: str):
    """A property; a stored image also knows its id."""
    if name == "system:id" and isinstance(element, Image):
        return element.id
    return element.properties.get(name)


function("Element.get")(lambda object, property: property_of(object, property))


def _offer_typed(name: str, wanted: str) -> None:
    @function(name)
    def do(object: Element, property: str):
        value = property_of(object, property)
        return None if value is None else coerce(value, wanted, name, "property")


_offer_typed("Element.getNumber", "Number")
_offer_typed("Element.getString", "String")


@function("Element.set")
def _set(object: Element, key: str, value) -> Element:
    properties = dict(object.properties)
    properties[key] = value
    return object.with_properties({name: one for name, one in properties.items() if one is not None})


@function("Element.setMulti")
def _set_multi(object: Element, properties: dict) -> Element:
    return object.with_properties({**object.properties, **properties})


@function("Element.copyProperties", "Image.copyProperties")
def _copy(destination, source, properties, exclude) -> Element:
    """As the real one: never `system:index`, and `system:` ones only by name."""
    found = source.properties
    if properties is not None:
        chosen = {name: found[name] for name in properties if name in found}
    else:
        skipped = {*(exclude or ()), "system:index", "system:footprint"}
        chosen = {name: one for name, one in found.items() if name not in skipped and not name.startswith("system:")}
    return destination.with_properties({**destination.properties, **chosen})


@function("Element.propertyNames")
def _names(element: Element) -> list:
    return list(element.properties)


@function("Element.toDictionary")
def _to_dictionary(element: Element, properties) -> dict:
    if properties is None:
        return {name: one for name, one in element.properties.items() if not name.startswith("system:")}
    missing = next((name for name in properties if name not in element.properties), None)
    if missing is not None:
        raise EarthEngineError(f"Element.toDictionary: Property '{missing}' not found.")
    return {name: element.properties[name] for name in properties}


@function("Element.geometry", "Feature.geometry", "Image.geometry")
def _geometry(feature: Element, maxError, proj, geodesics) -> Geometry:
    return footprint_of(feature)


@function("Image.id", "Feature.id")
def _id(element: Element) -> str | None:
    return element.properties.get("system:index")


@function("Image.date")
def _date(image: Image) -> Date:
    start = image.properties.get("system:time_start")
    if start is None:
        raise EarthEngineError("Image.date: Image does not have a 'system:time_start' property.")
    return Date(float(start))


@function("Feature.select")
def _select(input: Element, propertySelectors: list, newProperties, retainGeometry) -> Element:
    names = newProperties or propertySelectors
    found = {
        new: input.properties[old] for old, new in zip(propertySelectors, names, strict=True) if old in input.properties
    }
    return Element(found, input.footprint if retainGeometry else None)


@function("Feature.setGeometry")
def _set_geometry(feature: Element, geometry) -> Element:
    return Element(feature.properties, geometry)
