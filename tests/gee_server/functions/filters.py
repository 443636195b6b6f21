"""Filters."""

import operator
import re
from collections.abc import Callable

from gee_server.errors import EarthEngineError
from gee_server.geometry import Geometry
from gee_server.image import Element
from gee_server.interpreter import function
from gee_server.values import Date, DateRange, Filter, coerce, parse_date


def _plain(value):
    """A value that can be compared."""
    return value.ms if isinstance(value, Date) else value


def value_of(element, field: str | None, value):
    """One side of a comparison: a property, the shape, or what was given."""
    if field is None:
        return value
    if field in (".all", ".geo", "geometry"):
        return element
    return element.properties.get(field)


def _comparison(name: str, test: Callable, fast: Callable | None = None) -> Callable:
    """A filter function of two sides; an element without the property never passes."""

    def do(leftField=None, rightValue=None, rightField=None, leftValue=None, maxError=None) -> Filter:
        if (leftField is None) == (leftValue is None) or (rightField is None) == (rightValue is None):
            raise EarthEngineError(f"{name}: Exactly one of field and value must be given on each side.")

        def joined(one, other) -> bool:
            left, right = value_of(one, leftField, leftValue), value_of(other, rightField, rightValue)
            return left is not None and right is not None and bool(test(_plain(left), _plain(right)))

        quick = fast(leftField, rightValue, rightField, leftValue) if fast else None
        exact = quick is not None and name == "Filter.dateRangeContains"
        return Filter(lambda element: joined(element, element), quick, joined, exact)

    return do


def _ordered(op: Callable) -> Callable:
    def test(left, right) -> bool:
        if isinstance(left, str) != isinstance(right, str):
            return False
        return op(left, right)

    return test


for _names, _op in {
    ("Filter.eq", "Filter.equals"): operator.eq,
    ("Filter.neq", "Filter.notEquals"): operator.ne,
    ("Filter.lt", "Filter.lessThan"): _ordered(operator.lt),
    ("Filter.lte", "Filter.lessThanOrEquals"): _ordered(operator.le),
    ("Filter.gt", "Filter.greaterThan"): _ordered(operator.gt),
    ("Filter.gte", "Filter.greaterThanOrEquals"): _ordered(operator.ge),
    ("Filter.listContains",): lambda left, right: isinstance(left, list) and right in left,
    ("Filter.inList",): lambda left, right: left in right,
    ("Filter.stringContains",): lambda left, right: right in left,
    ("Filter.stringStartsWith",): lambda left, right: left.startswith(right),
    ("Filter.stringEndsWith",): lambda left, right: left.endswith(right),
}.items():
    function(*_names)(_comparison(_names[0], _op))


def _shape(value) -> Geometry:
    if isinstance(value, Element) or hasattr(value, "footprint"):
        value = value.footprint
    return coerce(value, "Geometry", "Filter.intersects", "value")


def _fast_shape(leftField, rightValue, rightField, leftValue):
    given = rightValue if leftField is not None else leftValue
    if given is None:
        return None
    shape = _shape(given)
    return lambda archive: archive.near(shape)


function("Filter.intersects")(
    _comparison("Filter.intersects", lambda one, other: _shape(one).intersects(_shape(other)), _fast_shape)
)
function("Filter.contains")(
    _comparison("Filter.contains", lambda one, other: _shape(one).contains(_shape(other)), _fast_shape)
)
function("Filter.isContained")(
    _comparison("Filter.isContained", lambda one, other: _shape(other).contains(_shape(one)), _fast_shape)
)
function("Filter.disjoint")(
    _comparison("Filter.disjoint", lambda one, other: not _shape(one).intersects(_shape(other)))
)


def _in_range(left, right) -> bool:
    if isinstance(left, DateRange):
        return left.contains(parse_date(right))
    return right.contains(parse_date(left))


def _fast_date(leftField, rightValue, rightField, leftValue):
    if rightField != "system:time_start" or not isinstance(leftValue, DateRange):
        return None
    return lambda archive: (
        (archive.columns["time"] >= leftValue.start.ms) & (archive.columns["time"] < leftValue.end.ms)
    )


function("Filter.dateRangeContains")(_comparison("Filter.dateRangeContains", _in_range, _fast_date))


@function("Filter.and")
def _and(filters: list) -> Filter:
    def fast(archive):
        masks = [one.fast(archive) for one in filters if one.fast is not None]
        return _all(masks, len(archive.scenes))

    return Filter(
        lambda element: all(one.test(element) for one in filters),
        fast if any(one.fast for one in filters) else None,
        lambda one, other: all(each.join(one, other) for each in filters),
        all(one.exact for one in filters),
    )


def _all(masks: list, size: int):
    import numpy as np  # noqa: PLC0415

    return np.logical_and.reduce(masks) if masks else np.ones(size, bool)


@function("Filter.or")
def _or(filters: list) -> Filter:
    return Filter(
        lambda element: any(one.test(element) for one in filters),
        None,
        lambda one, other: any(each.join(one, other) for each in filters),
    )


@function("Filter.not")
def _not(filter: Filter) -> Filter:
    return Filter(lambda element: not filter.test(element), None, lambda one, other: not filter.join(one, other))


function("Filter.always")(lambda: Filter(lambda element: True))
function("Filter.never")(lambda: Filter(lambda element: False))


@function("Filter.notNull")
def _not_null(properties: list) -> Filter:
    return Filter(lambda element: all(element.properties.get(name) is not None for name in properties))


@function("Filter.rangeContains")
def _range_contains(field: str, minValue, maxValue) -> Filter:
    def test(element) -> bool:
        value = _plain(element.properties.get(field))
        return value is not None and _plain(minValue) <= value <= _plain(maxValue)

    return Filter(test)


@function("Filter.maxDifference")
def _max_difference(difference: float, leftField, rightValue, rightField, leftValue) -> Filter:
    near = _comparison("Filter.maxDifference", lambda left, right: abs(left - right) <= difference)
    return near(leftField, rightValue, rightField, leftValue)


_FIELDS: dict[str, Callable] = {
    "year": lambda when: when.year,
    "month": lambda when: when.month,
    "day_of_month": lambda when: when.day,
    "day_of_year": lambda when: when.timetuple().tm_yday,
    "hour": lambda when: when.hour,
    "minute": lambda when: when.minute,
    "day_of_week": lambda when: (when.isoweekday() % 7) + 1,
}


@function("Filter.calendarRange")
def _calendar_range(start: int, end, field: str) -> Filter:
    part = _FIELDS.get(re.sub(r"s$", "", field))
    if part is None:
        raise EarthEngineError(f"Filter.calendarRange: Unknown field '{field}'.")
    last = start if end is None else end

    def test(element) -> bool:
        when = element.properties.get("system:time_start")
        if when is None:
            return False
        value = part(parse_date(when).when)
        return start <= value <= last if start <= last else value >= start or value <= last

    return Filter(test)


@function("Filter.dayOfYear")
def _day_of_year(start: int, end: int) -> Filter:
    return _calendar_range(start, end, "day_of_year")
