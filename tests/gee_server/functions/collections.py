"""Collections: loading, filtering, mapping, sorting, compositing."""

import math

from gee_server.archive import Archive
from gee_server.errors import EarthEngineError
from gee_server.functions.reducers import check_alike
from gee_server.geometry import Geometry
from gee_server.grid import COMPOSITE
from gee_server.image import Band, Collection, Element, Image
from gee_server.interpreter import function
from gee_server.pixels import Node, full
from gee_server.values import Closure, Date, Filter, Reducer, type_name


@function("ImageCollection.load")
def _load(world, id: str, version) -> Collection:
    return world.collection(id)


_load.wants_world = True


@function("ImageCollection.fromImages")
def _from_images(images: list) -> Collection:
    for image in images:
        if not isinstance(image, Image):
            raise EarthEngineError(f"ImageCollection.fromImages: Wanted images, found {type_name(image)}.")
    return Collection([_indexed(image, str(i)) for i, image in enumerate(images)])


def _indexed(image: Element, index: str) -> Element:
    if "system:index" in image.properties:
        return image
    return image.with_properties({**image.properties, "system:index": index})


@function("Collection")
def _collection(features: list) -> Collection:
    return Collection([_indexed(one, str(i)) for i, one in enumerate(features)])


@function("Collection.filter")
def _filter(collection: Collection, filter) -> Collection:
    if not isinstance(filter, Filter):
        raise EarthEngineError("Collection.filter: The filter is not a Filter.")
    if isinstance(collection, Archive) and filter.fast is not None:
        return collection.kept(filter.fast(collection), filter)
    return collection.of([element for element in collection.elements if filter.test(element)])


@function("Collection.map")
def _map(collection: Collection, baseAlgorithm: Closure, dropNulls) -> Collection:
    mapped = []
    for element in collection.elements:
        index = element.properties.get("system:index")
        try:
            result = baseAlgorithm(element)
        except EarthEngineError as error:
            raise EarthEngineError(f"Error in map(ID={index}):\n{error.message}", error.status) from error
        if result is None and dropNulls:
            continue
        if not isinstance(result, Element):
            raise EarthEngineError(
                f"Collection.map: A mapped algorithm must return a Feature or Image. Found {type_name(result)}."
            )
        mapped.append(result.with_properties({**result.properties, "system:index": index}))
    return Collection(mapped, collection.id, collection.properties)


@function("Collection.iterate")
def _iterate(collection: Collection, function: Closure, first):
    for element in collection.elements:
        first = function(element, first)
    return first


def order(value) -> tuple:
    """A sort key for any property; what is missing comes last."""
    if isinstance(value, Date):
        value = value.ms
    return (value is None, isinstance(value, str), value if value is not None else 0)


@function("Collection.limit")
def _limit(collection: Collection, limit, key, ascending) -> Collection:
    elements = list(collection.elements)
    if key is not None:
        known = [one for one in elements if one.properties.get(key) is not None]
        known.sort(key=lambda one: order(one.properties[key]), reverse=not ascending)
        elements = known + [one for one in elements if one.properties.get(key) is None]
    return collection.of(elements if limit is None else elements[:limit])


@function("Collection.first")
def _first(collection: Collection) -> Element | None:
    return next(iter(collection.elements), None)


@function("Collection.size")
def _size(collection: Collection) -> int:
    return len(collection.elements)


@function("Collection.toList")
def _to_list(collection: Collection, count: int, offset: int) -> list:
    return list(collection.elements)[offset : offset + count]


def _prefixed(collection: Collection, prefix: str) -> list[Element]:
    return [
        one.with_properties({**one.properties, "system:index": f"{prefix}_{one.properties.get('system:index')}"})
        for one in collection.elements
    ]


@function("Collection.merge", "ImageCollection.merge")
def _merge(collection1: Collection, collection2: Collection) -> Collection:
    return Collection(_prefixed(collection1, "1") + _prefixed(collection2, "2"))


@function("Collection.flatten")
def _flatten(collection: Collection) -> Collection:
    return Collection([one for inner in collection.elements for one in inner.elements])


@function("Collection.distinct")
def _distinct(collection: Collection, properties) -> Collection:
    names = properties if isinstance(properties, list) else [properties]
    seen = {}
    for element in collection.elements:
        seen.setdefault(tuple(repr(element.properties.get(name)) for name in names), element)
    return collection.of(list(seen.values()))


@function("Collection.geometry", "Collection.union")
def _geometry(collection: Collection, maxError) -> Geometry:
    shapes = [one.footprint for one in collection.elements if one.footprint is not None]
    if not shapes:
        raise EarthEngineError("Collection.geometry: The collection has no geometry.")
    whole = shapes[0]
    for shape in shapes[1:]:
        whole = whole.union(shape)
    return whole


@function("Collection.reduceColumns")
def _reduce_columns(collection: Collection, reducer: Reducer, selectors: list, weightSelectors) -> dict:
    rows = [[one.properties.get(name) for name in selectors] for one in collection.elements]
    rows = [row for row in rows if None not in row]
    if reducer.name == "toList":
        return {"list": [row[0] if len(selectors) == 1 else row for row in rows]}
    result = reducer.flat([row[0] for row in rows])
    return result if isinstance(result, dict) else {reducer.outputs[0]: result}


@function("AggregateFeatureCollection.array")
def _array(collection: Collection, property: str) -> list:
    return [value for value in (one.properties.get(property) for one in collection.elements) if value is not None]


def _offer_aggregate(name: str, make) -> None:
    @function(f"AggregateFeatureCollection.{name}")
    def do(collection: Collection, property: str):
        values = _array(collection, property)
        return make(values)


def _histogram(values: list) -> dict:
    return {str(value): float(values.count(value)) for value in sorted(set(values))}


for _name, _make in {
    "count": len,
    "count_distinct": lambda values: len(set(map(repr, values))),
    "first": lambda values: values[0] if values else None,
    "max": lambda values: max(values, default=None),
    "min": lambda values: min(values, default=None),
    "mean": lambda values: math.fsum(values) / len(values) if values else None,
    "sum": math.fsum,
    "histogram": _histogram,
}.items():
    _offer_aggregate(_name, _make)


class _Mosaic(Node):
    """The last valid one on top."""

    def __init__(self, nodes) -> None:
        super().__init__(nodes[0].type, COMPOSITE, nodes)

    def compute(self, look, grid):
        values, known = None, None
        for node in reversed(self.parents):
            plane = full(look.plane(node, grid), grid)
            if values is None:
                values, known = np_copy(plane[0]), np_copy(plane[1])
            else:
                new = plane[1] & ~known
                values[new], known = plane[0][new], known | new
            if known.all():
                break
        return values, known


def np_copy(array):
    """As floats, writable."""
    return array.astype(float if array.dtype != bool else bool)


@function("ImageCollection.mosaic")
def _mosaic(collection: Collection) -> Image:
    images = list(collection.elements)
    if not images:
        return Image({})
    check_alike(images, "ImageCollection.mosaic")
    bands = [Band(name, _Mosaic([image.bands[i].node for image in images])) for i, name in enumerate(images[0].names)]
    return Image({}, None, tuple(bands))


class _QualityMosaic(Node):
    """Of the image whose quality is best there."""

    def __init__(self, nodes, qualities) -> None:
        super().__init__(nodes[0].type, COMPOSITE, (*nodes, *qualities))
        self._count = len(nodes)

    def compute(self, look, grid):
        values, known, best = None, None, None
        for node, judge in zip(self.parents[: self._count], self.parents[self._count :], strict=True):
            plane, quality = full(look.plane(node, grid), grid), full(look.plane(judge, grid), grid)
            valid = plane[1] & quality[1]
            if values is None:
                values, known, best = np_copy(plane[0]), np_copy(valid), np_copy(quality[0])
                continue
            better = valid & (~known | (quality[0] > best))
            values[better], best[better] = plane[0][better], quality[0][better]
            known = known | valid
        return values, known


@function("ImageCollection.qualityMosaic")
def _quality_mosaic(collection: Collection, qualityBand: str) -> Image:
    images = list(collection.elements)
    if not images:
        return Image({})
    check_alike(images, "ImageCollection.qualityMosaic")
    judges = [image.select([qualityBand], asker="ImageCollection.qualityMosaic").bands[0].node for image in images]
    names = images[0].names
    bands = [
        Band(name, _QualityMosaic([image.bands[i].node for image in images], judges)) for i, name in enumerate(names)
    ]
    return Image({}, None, tuple(bands))


@function("ImageCollection.toBands")
def _to_bands(collection: Collection) -> Image:
    bands = []
    for image in collection.elements:
        bands += [Band(f"{image.properties.get('system:index')}_{band.name}", band.node) for band in image.bands]
    return Image({}, None, tuple(bands))
