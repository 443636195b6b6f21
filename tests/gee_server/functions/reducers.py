# ruff: noqa: A006 - arguments are called as Earth Engine calls them
"""Reducers, and what they make of stacks of images."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from gee_server.errors import EarthEngineError
from gee_server.grid import COMPOSITE
from gee_server.image import Band, Collection, Image
from gee_server.interpreter import function
from gee_server.pixels import BOOLEAN, DOUBLE, FLOAT, Node, PixelType, full
from gee_server.values import Reducer


def _count(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return valid.sum(axis=0)


def _filled(stack: np.ndarray, valid: np.ndarray, filling: float) -> np.ndarray:
    return stack if valid.all() else np.where(valid, stack, filling)


@cache
def _comparators(count: int) -> tuple[tuple[int, int], ...]:
    """Which two to put in order, one after the other, to sort so many: Batcher's merge exchange (Knuth 5.2.2, M)."""
    found, reach = [], 1 << max(count - 1, 0).bit_length() >> 1
    first = step = reach
    while step:
        last, offset, distance = first, 0, step
        while True:
            found += [(i, i + distance) for i in range(count - distance) if i & step == offset]
            if last == step:
                break
            distance, last, offset = last - step, last >> 1, step
        step >>= 1
    return tuple(found)


def _sort(stack: np.ndarray) -> np.ndarray:
    """Along the first axis, in place; for few large planes several times faster than numpy's."""
    if len(stack) > 32:
        stack.sort(axis=0)
        return stack
    for i, j in _comparators(len(stack)):
        low = np.minimum(stack[i], stack[j])
        np.maximum(stack[i], stack[j], out=stack[j])
        stack[i] = low
    return stack


def _median(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if valid.all():
        ordered, middle = _sort(stack.copy()), len(stack) // 2
        return (ordered[(len(stack) - 1) // 2].astype(float) + ordered[middle]) / 2
    ordered = _sort(np.where(valid, stack, np.inf))
    count = valid.sum(axis=0)[None]
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(stack) - 1), axis=0)[0]
    return np.where(count[0] > 0, (low + np.where(count[0] > 0, high, 0)) / 2, 0)


def _mean(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _filled(stack, valid, 0).sum(axis=0) / np.maximum(valid.sum(axis=0), 1)


def _variance(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _mean((stack - _mean(stack, valid)) ** 2, valid)


def _first(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.take_along_axis(stack, valid.argmax(axis=0)[None], axis=0)[0]


def _last(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _first(stack[::-1], valid[::-1])


def _min(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _filled(stack, valid, np.inf).min(axis=0)


def _max(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _filled(stack, valid, -np.inf).max(axis=0)


def _mode(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    best, most = np.zeros(stack.shape[1:]), np.zeros(stack.shape[1:], int)
    for value in np.unique(stack[valid]):
        times = ((stack == value) & valid).sum(axis=0)
        best, most = np.where(times > most, value, best), np.maximum(times, most)
    return best


def _double(type: PixelType) -> PixelType:
    return DOUBLE if type.precision != "float" else FLOAT


def _same(type: PixelType) -> PixelType:
    return type


_SIMPLE: dict[str, tuple[Callable, Callable]] = {
    "median": (_median, _double),
    "mean": (_mean, _double),
    "min": (_min, _same),
    "max": (_max, _same),
    "sum": (lambda stack, valid: _filled(stack, valid, 0).sum(axis=0), lambda type: DOUBLE),
    "product": (lambda stack, valid: _filled(stack, valid, 1).prod(axis=0), lambda type: DOUBLE),
    "count": (_count, lambda type: PixelType("int", 0, 4294967295)),
    "first": (_first, _same),
    "firstNonNull": (_first, _same),
    "last": (_last, _same),
    "lastNonNull": (_last, _same),
    "mode": (_mode, _same),
    "variance": (_variance, _double),
    "stdDev": (lambda stack, valid: np.sqrt(_variance(stack, valid)), _double),
    "anyNonZero": (lambda stack, valid: ((stack != 0) & valid).any(axis=0), lambda type: BOOLEAN),
    "allNonZero": (lambda stack, valid: ((stack != 0) | ~valid).all(axis=0), lambda type: BOOLEAN),
}


def _simple(name: str) -> Reducer:
    stacked, type_of = _SIMPLE[name]

    def flat(values: Sequence[float]):
        numbers = np.asarray(values, float)
        result = stacked(numbers[:, None], np.ones((len(numbers), 1), bool))[0] if len(numbers) else None
        return None if result is None else (int(result) if name == "count" else float(result))

    return Reducer(name, (name,), lambda stack, valid: [stacked(stack, valid)], flat, type_of)


for _name in _SIMPLE:
    function(f"Reducer.{_name}")(lambda name=_name, **options: _simple(name))
function("Reducer.and")(lambda: _simple("allNonZero"))
function("Reducer.or")(lambda: _simple("anyNonZero"))


@function("Reducer.percentile")
def _percentile(percentiles: list, outputNames, maxBuckets, minBucketWidth, maxRaw) -> Reducer:
    names = tuple(outputNames or (f"p{int(one)}" for one in percentiles))

    def stacked(stack, valid):
        with np.errstate(all="ignore"):
            holes = np.where(valid, stack, np.nan)
            return list(np.nan_to_num(np.nanpercentile(holes, percentiles, axis=0)))

    def flat(values):
        return dict(zip(names, np.percentile(values, percentiles).tolist(), strict=True))

    return Reducer("percentile", names, stacked, flat, _double)


@function("Reducer.minMax")
def _min_max() -> Reducer:
    return _combine(_simple("min"), _simple("max"), "", True)


@function("Reducer.combine")
def _combine(reducer1: Reducer, reducer2: Reducer, outputPrefix, sharedInputs) -> Reducer:
    if not sharedInputs:
        raise EarthEngineError("The loopback Earth Engine server combines reducers with sharedInputs only.")
    second = tuple(f"{outputPrefix or ''}{name}" for name in reducer2.outputs)

    def flat(values):
        parts = (_named(reducer1, reducer1.outputs, values), _named(reducer2, second, values))
        return {**parts[0], **parts[1]}

    return Reducer(
        "combine",
        (*reducer1.outputs, *second),
        lambda stack, valid: [*reducer1.stack(stack, valid), *reducer2.stack(stack, valid)],
        flat,
        _double,
    )


def _named(reducer: Reducer, names: Sequence[str], values) -> dict:
    result = reducer.flat(values)
    return dict(zip(names, result.values() if isinstance(result, dict) else [result], strict=True))


@function("Reducer.toList")
def _to_list(tupleSize, numOptional) -> Reducer:
    def refuse(stack, valid):
        raise EarthEngineError("The loopback Earth Engine server has no array images.")

    return Reducer("toList", ("list",), refuse, list, _same)


class Stacked(Node):
    """One output of a reducer over the same band of many images."""

    def __init__(self, reducer: Reducer, output: int, nodes: Sequence[Node]) -> None:
        kind = reducer.type(nodes[0].type)
        super().__init__(kind, COMPOSITE, nodes)
        self._reducer, self._output = reducer, output

    def compute(self, look, grid):
        planes = [full(look.plane(node, grid), grid) for node in self.parents]
        valid = np.stack([plane[1] for plane in planes])
        known = valid.any(axis=0)
        if self._reducer.name == "count":
            return valid.sum(axis=0), np.ones_like(known)
        stack = np.stack([plane[0] for plane in planes])
        values = self._reducer.stack(stack, valid)[self._output]
        return (values if known.all() else np.where(known, values, 0)), known


def check_alike(images: Sequence[Image], asker: str) -> None:
    """Refuse images whose bands differ.

    Raises:
        EarthEngineError: As the service says it.
    """
    first = images[0]
    for image in images[1:]:
        if image.names != first.names:
            raise EarthEngineError(
                f"{asker}: Expected a homogeneous image collection, but an image with incompatible bands was "
                f"encountered. First image type: {len(first.bands)} bands ([{', '.join(first.names)}]). "
                f"Current image type: {len(image.bands)} bands ([{', '.join(image.names)}])."
            )


def reduced(collection: Collection, reducer: Reducer, asker: str, *, suffix: bool) -> Image:
    """A composite: no properties, no projection, no bands at all out of an empty collection."""
    images = list(collection.elements)
    if not images:
        return Image({})
    check_alike(images, asker)
    bands = []
    for i, name in enumerate(images[0].names):
        nodes = [image.bands[i].node for image in images]
        for output, label in enumerate(reducer.outputs):
            bands.append(Band(f"{name}_{label}" if suffix else name, Stacked(reducer, output, nodes)))
    return Image({}, None, tuple(bands))


@function("ImageCollection.reduce")
def _reduce(collection: Collection, reducer: Reducer, parallelScale) -> Image:
    return reduced(collection, reducer, "ImageCollection.reduce", suffix=True)


for _name in ("min", "max", "count", "sum", "product", "mean", "median", "mode"):
    function(f"reduce.{_name}")(
        lambda collection, name=_name: reduced(collection, _simple(name), f"reduce.{name}", suffix=False)
    )
function("reduce.and")(lambda collection: reduced(collection, _simple("allNonZero"), "reduce.and", suffix=False))
function("reduce.or")(lambda collection: reduced(collection, _simple("anyNonZero"), "reduce.or", suffix=False))


@function("Image.reduce")
def _reduce_bands(image: Image, reducer: Reducer) -> Image:
    if not image.bands:
        return Image({})
    nodes = [band.node for band in image.bands]
    bands = [Band(label, Stacked(reducer, i, nodes)) for i, label in enumerate(reducer.outputs)]
    return image.derived(bands)
