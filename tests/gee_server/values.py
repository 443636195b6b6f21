"""The plain values of an expression: dates, ranges, filters, reducers; and how a value becomes another's type."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gee_server.errors import EarthEngineError
from gee_server.geometry import Geometry, from_geojson
from gee_server.grid import Projection, check_crs
from gee_server.image import Band, Collection, Element, Image
from gee_server.pixels import DOUBLE, ConstantNode, PixelType


@dataclass(frozen=True)
class Date:
    """A moment."""

    ms: float

    @property
    def when(self) -> datetime:
        """In UTC."""
        return datetime.fromtimestamp(self.ms / 1000, UTC)


@dataclass(frozen=True)
class DateRange:
    """Half-open."""

    start: Date
    end: Date

    def contains(self, moment: Date) -> bool:
        """Whether it begins at or before the moment and ends after it."""
        return self.start.ms <= moment.ms < self.end.ms


@dataclass(frozen=True)
class Filter:
    """Whether an element stays; `fast` says it of a whole archive at once, where it can."""

    test: Callable[[Element], bool]
    fast: Callable | None = None
    join: Callable[[Element, Element], bool] | None = None
    """Of two fields, for joins."""
    exact: bool = False
    """Whether `fast` alone decides; else it may let through too many."""


@dataclass(frozen=True)
class Reducer:
    """Many values in, a few out."""

    name: str
    outputs: tuple[str, ...]
    stack: Callable
    """(planes, grid) -> one plane per output."""
    flat: Callable[[Sequence[float]], object]
    """Of plain numbers."""
    type: Callable[[PixelType], PixelType]


class Closure:
    """A function written by the client."""

    def __init__(self, names: Sequence[str], call: Callable[[dict], object]) -> None:
        self.names = list(names)
        self._call = call

    def __call__(self, *values):
        return self._call(dict(zip(self.names, values, strict=False)))


def parse_date(value, asker: str = "Date") -> Date:
    """A date out of milliseconds or text.

    Raises:
        EarthEngineError: It is neither.
    """
    if isinstance(value, Date):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Date(float(value))
    if isinstance(value, str) and re.fullmatch(r"\d{4}(-\d\d){0,2}([T ].*)?", value):
        padded = value if len(value) > 7 else (value + "-01-01")[:10]
        try:
            when = datetime.fromisoformat(padded.replace("Z", "+00:00"))
        except ValueError:
            when = None
        if when is not None:
            return Date((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
    raise EarthEngineError(f"{asker}: Invalid date string or number: '{value}'.")


def type_name(value) -> str:
    """What the service calls it."""
    if isinstance(value, Image):
        return "Image<[" + ", ".join(value.names) + "]>"
    if isinstance(value, Collection):
        return "ImageCollection" if value.elements and value.is_of_images else "FeatureCollection"
    names = {bool: "Boolean", int: "Integer", float: "Float", str: "String", list: "List", dict: "Dictionary"}
    names |= {Element: "Feature", Closure: "Algorithm", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _image(value) -> Image | None:
    if isinstance(value, Image):
        return value
    if isinstance(value, bool | int | float):
        return constant_image(value)
    if isinstance(value, list) and all(isinstance(one, int | float | Image) for one in value):
        return constant_image(value)
    return None


def constant_image(value) -> Image:
    """The same everywhere: one band `constant`, or one for each of a list or a dictionary."""
    if isinstance(value, dict):
        named = list(value.items())
    elif isinstance(value, list):
        named = [("constant" if i == 0 else f"constant_{i}", one) for i, one in enumerate(value)]
    else:
        named = [("constant", value)]
    bands = []
    for name, one in named:
        whole = isinstance(one, int | bool)
        number_type = PixelType("int", int(one), int(one)) if whole else DOUBLE
        bands.append(Band(name, ConstantNode(one, number_type)))
    return Image({}, None, tuple(bands))


def _collection(value) -> Collection | None:
    if isinstance(value, Collection):
        return value
    if isinstance(value, Element):
        return Collection([value])
    if isinstance(value, list) and all(isinstance(one, Element) for one in value):
        return Collection(value)
    return Collection([Element({}, value)]) if isinstance(value, Geometry) else None


def _whole(value) -> int | None:
    if isinstance(value, bool | int):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _geometry(value) -> Geometry | None:
    if isinstance(value, Geometry):
        return value
    if isinstance(value, Element):
        return value.footprint
    return from_geojson(value) if isinstance(value, dict) and "coordinates" in value else None


def _projection(value) -> Projection | None:
    if isinstance(value, Projection):
        return value
    return Projection(check_crs(value), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)) if isinstance(value, str) else None


def _exactly(*types: type) -> Callable:
    return lambda value: value if isinstance(value, types) else None


_CASTS: dict[str, Callable] = {
    "Image": _image,
    "ImageCollection": _collection,
    "FeatureCollection": _collection,
    "Element": _exactly(Element),
    "Feature": lambda value: Element({}, value) if isinstance(value, Geometry) else _exactly(Element)(value),
    "String": _exactly(str),
    "Integer": _whole,
    "Long": _whole,
    "Float": lambda value: float(value) if isinstance(value, bool | int | float) else None,
    "Number": _exactly(int, float),
    "Boolean": lambda value: bool(value) if isinstance(value, bool | int | float | str) else None,
    "List": _exactly(list),
    "Dictionary": _exactly(dict),
    "Date": lambda value: parse_date(value) if isinstance(value, Date | str | int | float) else None,
    "DateRange": _exactly(DateRange),
    "Geometry": _geometry,
    "Projection": _projection,
    "Filter": _exactly(Filter),
    "Reducer": _exactly(Reducer),
    "Algorithm": _exactly(Closure),
    "PixelType": _exactly(PixelType),
}


def coerce(value, wanted: str, asker: str, argument: str):
    """A value as the type that an argument declares.

    Raises:
        EarthEngineError: The service would not take it.
    """
    make = _CASTS.get(wanted.split("<", maxsplit=1)[0])
    if make is None:
        return value
    made = make(value)
    if made is None:
        raise EarthEngineError(
            f"{asker}, argument '{argument}': Invalid type.\nExpected type: {wanted}.\n"
            f"Actual type: {type_name(value)}.\nActual value: {str(value)[:200]}"
        )
    return made
