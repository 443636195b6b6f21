# ruff: noqa: A006 - arguments are called as Earth Engine calls them
"""Arithmetic of images, band by band."""

import numpy as np

from gee_server.errors import EarthEngineError
from gee_server.image import Band, Image
from gee_server.interpreter import function
from gee_server.pixels import BOOLEAN, DOUBLE, FLOAT, Node, OpNode, PixelType, both, cast


def pairs(one: Image, other: Image, asker: str) -> list[tuple[str, Node, Node]]:
    """Bands that belong together: by name, else by order, else one with all."""
    if len(one.bands) == len(other.bands):
        if set(one.names) == set(other.names):
            partner = {band.name: band.node for band in other.bands}
            return [(band.name, band.node, partner[band.name]) for band in one.bands]
        return [(a.name, a.node, b.node) for a, b in zip(one.bands, other.bands, strict=True)]
    if len(other.bands) == 1:
        return [(band.name, band.node, other.bands[0].node) for band in one.bands]
    if len(one.bands) == 1:
        return [(band.name, one.bands[0].node, band.node) for band in other.bands]
    raise EarthEngineError(
        f"{asker}: Images must contain the same number of bands or one of the images must contain 1 band. "
        f"Got {len(one.bands)} and {len(other.bands)}."
    )


def wider(a: PixelType, b: PixelType) -> str:
    """The precision that holds both."""
    order = ("int", "float", "double")
    return max(a.precision, b.precision, key=order.index)


def _interval(op, a: PixelType, b: PixelType) -> PixelType:
    """The type of a sum, difference or product: as wide as its operands' ranges make it."""
    if wider(a, b) != "int" or None in (a.low, b.low):
        return PixelType(wider(a, b))
    ends = [op(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return PixelType("int", float(min(ends)), float(max(ends)))


def _quotient(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=np.asarray(b) != 0)


def _power(a, b):
    with np.errstate(all="ignore"):
        return np.power(np.asarray(a, float), b)


_ARITHMETIC = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "min": np.minimum, "max": np.maximum}
_FRACTIONAL = {"divide": _quotient, "pow": _power, "hypot": np.hypot, "atan2": np.arctan2}
_LOGICAL = {
    "gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal, "eq": np.equal,
    "neq": np.not_equal, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip


def _whole(op):
    return lambda a, b: op(np.asarray(a).astype(np.int64), np.asarray(b).astype(np.int64)).astype(float)


_BITS = {
    "bitwiseAnd": _whole(np.bitwise_and),
    "bitwiseOr": _whole(np.bitwise_or),
    "bitwiseXor": _whole(np.bitwise_xor),
    "leftShift": _whole(np.left_shift),
    "rightShift": _whole(np.right_shift),
    "mod": np.mod,
}
_OLD_NAMES = {"bitwiseAnd": "bitwise_and", "bitwiseOr": "bitwise_or", "bitwiseXor": "bitwise_xor",
              "leftShift": "left_shift", "rightShift": "right_shift"}  # fmt: skip


def _logical(op):
    return lambda a, b: np.asarray(op(a, b), float)


def _offer_binary(name: str, op, type_of) -> None:
    names = [f"Image.{name}"] + ([f"Image.{_OLD_NAMES[name]}"] if name in _OLD_NAMES else [])

    def do(image1: Image, image2: Image) -> Image:
        bands = []
        for band, a, b in pairs(image1, image2, names[0]):
            result = type_of(a.type, b.type)
            bands.append(Band(band, OpNode(_binary(op, result), result, (a, b))))
        longer = image2 if len(image2.bands) > len(image1.bands) else image1
        return image1.derived(bands) if image1.properties or not longer.properties else longer.derived(bands)

    function(*names)(do)


def _binary(op, result: PixelType):
    def make(a, b):
        values = op(a[0], b[0])
        return (values.astype(np.float32) if result == FLOAT else values), both(a[1], b[1])

    return make


def _float_or_double(a: PixelType, b: PixelType) -> PixelType:
    return FLOAT if wider(a, b) == "float" else DOUBLE


for _name, _op in _ARITHMETIC.items():
    _offer_binary(_name, _op, lambda a, b, op=_op: _interval(op, a, b))
for _name, _op in _FRACTIONAL.items():
    _offer_binary(_name, _op, _float_or_double)
for _name, _op in _LOGICAL.items():
    _offer_binary(_name, _logical(_op), lambda a, b: BOOLEAN)
for _name, _op in _BITS.items():
    _offer_binary(_name, _op, lambda a, b: PixelType("int", min(a.low or 0, 0), max(a.high or 1, b.high or 1)))


def _quiet(op):
    def do(values):
        with np.errstate(all="ignore"):
            return op(values)

    return do


_SMOOTH = {
    "log10": np.log10, "log": np.log, "exp": np.exp, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "cbrt": np.cbrt,
}  # fmt: skip
_STEPS = {"round": np.rint, "floor": np.floor, "ceil": np.ceil, "abs": np.abs, "signum": np.sign}


def unary(image: Image, op, type_of) -> Image:
    """Every band changed on its own; properties are lost, as with arithmetic."""
    bands = []
    for band in image.bands:
        result = type_of(band.node.type)
        bands.append(Band(band.name, OpNode(lambda plane: (op(plane[0]), plane[1]), result, (band.node,))))
    return image.derived(bands)


def _offer_unary(name: str, op, type_of) -> None:
    @function(f"Image.{name}")
    def do(value: Image) -> Image:
        return unary(value, op, type_of)


def _stepped(type: PixelType) -> PixelType:
    if type.precision == "int":
        return PixelType("int", min(type.low or 0, 0), max(abs(type.low or 0), abs(type.high or 0)))
    return type


for _name, _op in _SMOOTH.items():
    _offer_unary(_name, _quiet(_op), lambda type: FLOAT if type == FLOAT else DOUBLE)
for _name, _op in _STEPS.items():
    _offer_unary(_name, _op, _stepped)
_offer_unary("not", lambda values: np.asarray(np.equal(values, 0), float), lambda type: BOOLEAN)
_offer_unary("bitwiseNot", lambda values: ~np.asarray(values).astype(np.int64), _stepped)

_INTEGERS = {"Uint8": "uint8", "Byte": "uint8", "Uint16": "uint16", "Uint32": "uint32", "Int8": "int8",
             "Int16": "int16", "Short": "int16", "Int32": "int32", "Int": "int32", "Int64": "int64",
             "Long": "int64"}  # fmt: skip
TYPES = {"float": FLOAT, "double": DOUBLE}
for _dtype in set(_INTEGERS.values()):
    TYPES[_dtype] = PixelType("int", float(np.iinfo(_dtype).min), float(np.iinfo(_dtype).max))
TYPES |= {"byte": TYPES["uint8"], "short": TYPES["int16"], "int": TYPES["int32"], "long": TYPES["int64"]}


def _offer_cast(name: str, result: PixelType) -> None:
    spelt = (f"Image.to{name}", f"Image.{name[0].lower()}{name[1:]}")

    @function(*spelt)
    def do(value: Image) -> Image:
        return unary(value, lambda values: cast(values, result), lambda _: result)


for _name, _dtype in _INTEGERS.items():
    _offer_cast(_name, TYPES[_dtype])
_offer_cast("Float", FLOAT)
_offer_cast("Double", DOUBLE)


@function("Image.cast")
def _cast(image: Image, bandTypes: dict, bandOrder) -> Image:
    bands = []
    for band in image.select(bandOrder, asker="Image.cast").bands if bandOrder else image.bands:
        wanted = bandTypes.get(band.name, band.node.type)
        result = TYPES.get(wanted) if isinstance(wanted, str) else wanted
        if result is None:
            raise EarthEngineError(f"Image.cast: Unknown type '{wanted}' for band '{band.name}'.")
        make = _binary_free(result)
        bands.append(Band(band.name, OpNode(make, result, (band.node,))))
    return image.derived(bands, keep=True)


def _binary_free(result: PixelType):
    return lambda plane: (cast(plane[0], result), plane[1])


@function("Image.clamp")
def _clamp(input: Image, low: float, high: float) -> Image:
    return unary(input, lambda values: np.clip(values, low, high), lambda type: type)


@function("Image.unitScale")
def _unit_scale(input: Image, low: float, high: float) -> Image:
    return unary(input, lambda values: (values - low) / (high - low), lambda type: DOUBLE)
