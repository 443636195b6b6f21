"""Values as `value:compute` sends them."""

import math

import numpy as np

from gee_server.errors import EarthEngineError
from gee_server.geometry import Geometry
from gee_server.grid import Projection
from gee_server.image import Collection, Element, Image
from gee_server.pixels import PixelType
from gee_server.values import Date, DateRange

_MOST_ELEMENTS = 5000


def encode(value):
    """As JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"Infinity": "Infinity", "-Infinity": "-Infinity"}.get(str(value), "NaN")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, list | tuple):
        if len(value) > _MOST_ELEMENTS:
            raise EarthEngineError(f"List query aborted after accumulating over {_MOST_ELEMENTS} elements.")
        return [encode(one) for one in value]
    if isinstance(value, dict):
        return {str(key): encode(one) for key, one in value.items()}
    for kind, make in _ENCODERS.items():
        if isinstance(value, kind):
            return make(value)
    raise EarthEngineError(f"A result of type {type(value).__name__} cannot be sent.")


def _image(image: Image) -> dict:
    info = {"type": "Image", "bands": [_band(image, band) for band in image.bands]}
    if image.id is not None:
        info["id"] = image.id
    if image.properties:
        info["properties"] = encode(image.properties)
    return info


def _band(image: Image, band) -> dict:
    proj = band.node.proj
    info = {"id": band.name, "data_type": band.node.type.info(), "crs": proj.crs, "crs_transform": list(proj.transform)}
    if image.size is not None:
        info["dimensions"] = list(image.size(band.name)) if band.name in image.names else []
    return info


def feature(element: Element) -> dict:
    """One feature as GeoJSON."""
    shape = element.footprint.geojson() if element.footprint is not None else None
    index = element.properties.get("system:index")
    properties = {name: encode(one) for name, one in element.properties.items() if name != "system:index"}
    return {"type": "Feature", "geometry": shape, "id": index, "properties": properties}


def _collection(collection: Collection) -> dict:
    if len(collection.elements) > _MOST_ELEMENTS:
        raise EarthEngineError(f"Collection query aborted after accumulating over {_MOST_ELEMENTS} elements.")
    images = collection.is_of_images and bool(collection.elements)
    info = {"type": "ImageCollection" if images else "FeatureCollection"}
    if collection.id is not None:
        info["id"] = collection.id
    return {**info, "bands": [], "features": [encode(element) for element in collection.elements]}


_ENCODERS = {
    Image: _image,
    Element: feature,
    Collection: _collection,
    Geometry: Geometry.geojson,
    Date: lambda date: {"type": "Date", "value": int(date.ms)},
    DateRange: lambda one: {"type": "DateRange", "dates": [int(one.start.ms), int(one.end.ms)]},
    PixelType: PixelType.info,
    Projection: lambda proj: {"type": "Projection", "crs": proj.crs, "transform": list(proj.transform)},
}
