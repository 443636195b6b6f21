"""Masks and replacements."""

from functools import lru_cache

import numpy as np
import shapely

from gee_server.errors import EarthEngineError
from gee_server.functions.image_math import pairs, wider
from gee_server.geometry import Geometry
from gee_server.grid import Grid, reproject
from gee_server.image import Band, Collection, Element, Image
from gee_server.interpreter import function
from gee_server.pixels import DOUBLE, FLOAT, Node, OpNode, PixelType, both
from gee_server.values import constant_image


def _positive(plane) -> np.ndarray | bool:
    """Where a mask lets through."""
    passes = np.asarray(plane[0]) > 0
    return both(bool(passes) if passes.ndim == 0 else passes, plane[1])


@function("Image.updateMask")
def _update_mask(image: Image, mask: Image) -> Image:
    if len(mask.bands) not in (1, len(image.bands)):
        raise EarthEngineError(
            f"Image.updateMask: The mask must have 1 band or as many as the image. "
            f"Got {len(mask.bands)} and {len(image.bands)}."
        )
    nodes = [band.node for band in mask.bands] * (len(image.bands) if len(mask.bands) == 1 else 1)
    bands = [
        Band(band.name, OpNode(_masked, band.node.type, (band.node, node), band.node.proj))
        for band, node in zip(image.bands, nodes, strict=True)
    ]
    return image.derived(bands, keep=True)


def _masked(plane, mask):
    return plane[0], both(plane[1], _positive(mask))


def masked_everywhere(image: Image) -> Image:
    """The same bands without a valid pixel."""
    return _update_mask(image, constant_image(0))


@function("Image.selfMask")
def _self_mask(image: Image) -> Image:
    bands = [Band(b.name, OpNode(lambda p: _masked(p, p), b.node.type, (b.node,))) for b in image.bands]
    return image.derived(bands, keep=True)


@function("Image.mask")
def _mask(image: Image, mask) -> Image:
    if mask is None:
        bands = [Band(band.name, OpNode(_validity, FLOAT, (band.node,))) for band in image.bands]
        return image.derived(bands)
    bands = [
        Band(name, OpNode(lambda plane, new: (plane[0], _positive(new)), node.type, (node, new), node.proj))
        for name, node, new in pairs(image, mask, "Image.mask")
    ]
    return image.derived(bands, keep=True)


def _validity(plane):
    return np.asarray(plane[1], np.float32), True


@function("Image.unmask")
def _unmask(input: Image, value, sameFootprint) -> Image:
    filling = constant_image(0) if value is None else value
    bands = []
    for name, node, fill in pairs(input, filling, "Image.unmask"):
        make = _Unmask(node, fill, input.footprint if sameFootprint else None)
        bands.append(Band(name, make))
    return input.derived(bands, keep=True)


class _Unmask(Node):
    """Masked pixels filled; with a footprint, only within it."""

    def __init__(self, node: Node, fill: Node, footprint: Geometry | None) -> None:
        super().__init__(_common(node.type, fill.type), node.proj, (node, fill))
        self._footprint = footprint

    def compute(self, look, grid):
        (values, valid), (fill, fill_valid) = (look.plane(parent, grid) for parent in self.parents)
        if valid is True:
            return values, True
        filled = np.where(valid, values, fill)
        if self._footprint is None:
            return filled, fill_valid if fill_valid is True else valid | fill_valid
        return filled, valid | (inside(self._footprint, grid) & fill_valid)


def _common(one: PixelType, other: PixelType) -> PixelType:
    if wider(one, other) != "int" or None in (one.low, other.low):
        return PixelType(wider(one, other))
    return PixelType("int", min(one.low, other.low), max(one.high, other.high))


@lru_cache(maxsize=8)
def inside(shape: Geometry, grid: Grid) -> np.ndarray:
    """Which pixel centres lie in a shape."""
    lon, lat = reproject(grid.proj.crs, "EPSG:4326", *grid.centres)
    west, _, east, _ = shape.bounds
    found = np.zeros(lon.shape, bool)
    for shift in (-360.0, 0.0, 360.0):
        if (lon + shift).max() >= west and (lon + shift).min() <= east:
            found |= shapely.contains_xy(shape.shape, lon + shift, lat)
    return found


class _Clip(Node):
    def __init__(self, node: Node, shape: Geometry) -> None:
        super().__init__(node.type, node.proj, (node,))
        self._shape = shape

    def compute(self, look, grid):
        values, valid = look.plane(self.parents[0], grid)
        return values, both(valid, inside(self._shape, grid))


@function("Image.clip")
def _clip(input: Image, geometry) -> Image:
    shape = geometry.footprint if isinstance(geometry, Element) else geometry
    if isinstance(shape, Collection):
        shape = shape.elements[0].footprint
    if not isinstance(shape, Geometry):
        raise EarthEngineError("Image.clip: The geometry for image clipping must not be unbounded.")
    clipped = input.derived([Band(band.name, _Clip(band.node, shape)) for band in input.bands], keep=True)
    return Image(clipped.properties, shape, clipped.bands, clipped.id, clipped.size)


@function("Image.where")
def _where(input: Image, test: Image, value: Image) -> Image:
    bands = []
    for (name, node, condition), (_, _, other) in zip(
        pairs(input, test, "Image.where"), pairs(input, value, "Image.where"), strict=True
    ):
        kind = _common(node.type, other.type)
        bands.append(Band(name, OpNode(_replaced, kind, (node, condition, other), node.proj)))
    return input.derived(bands, keep=True)


def _replaced(plane, condition, other):
    chosen = np.asarray(_positive((np.not_equal(condition[0], 0), condition[1]))) & np.asarray(other[1])
    return np.where(chosen, other[0], plane[0]), plane[1]


@function("Image.remap")
def _remap(image: Image, from_: list, to: list, defaultValue, bandName) -> Image:
    if len(from_) != len(to):
        raise EarthEngineError("Image.remap: From and To lists must be the same size.")
    node = image.bands[0].node if bandName is None else image.select([bandName], asker="Image.remap").bands[0].node
    table = dict(zip(from_, to, strict=True))

    def make(plane):
        values = np.asarray(plane[0])
        result, known = np.zeros(values.shape), np.zeros(values.shape, bool)
        for old, new in table.items():
            result[values == old], known[values == old] = new, True
        if defaultValue is not None:
            return np.where(known, result, defaultValue), plane[1]
        return result, both(plane[1], known)

    numbers = [*to, *([] if defaultValue is None else [defaultValue])]
    whole = all(float(number).is_integer() for number in numbers)
    kind = PixelType("int", min(numbers), max(numbers)) if whole else DOUBLE
    return image.derived([Band("remapped", OpNode(make, kind, (node,)))])


@function("Image.normalizedDifference")
def _normalized_difference(input: Image, bandNames) -> Image:
    names = bandNames or input.names[:2]
    a, b = (band.node for band in input.select(names, asker="Image.normalizedDifference").bands)

    def make(one, other):
        total = one[0] + other[0]
        ratio = np.divide(one[0] - other[0], total, out=np.zeros(np.shape(total)), where=total != 0)
        return ratio, both(both(one[1], other[1]), (one[0] >= 0) & (other[0] >= 0))

    return input.derived([Band("nd", OpNode(make, FLOAT, (a, b)))])
