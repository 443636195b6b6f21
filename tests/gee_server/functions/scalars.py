# ruff: noqa: A006 - arguments are called as Earth Engine calls them
"""Numbers, text, lists, dictionaries."""

import json
import math
import operator
import re

from gee_server.errors import EarthEngineError
from gee_server.interpreter import function
from gee_server.values import Closure, Reducer

_BINARY = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "pow": operator.pow, "min": min,
    "max": max, "mod": math.fmod, "hypot": math.hypot, "atan2": math.atan2,
}  # fmt: skip
_COMPARED = {
    "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le, "eq": operator.eq,
    "neq": operator.ne,
}  # fmt: skip
for _name, _op in _BINARY.items():
    function(f"Number.{_name}")(lambda left, right, op=_op: op(left, right))
for _name, _op in _COMPARED.items():
    function(f"Number.{_name}")(lambda left, right, op=_op: int(op(left, right)))
function("Number.divide")(lambda left, right: left / right if right else 0)
function("Number.and")(lambda left, right: int(bool(left) and bool(right)))
function("Number.or")(lambda left, right: int(bool(left) or bool(right)))
function("Number.not")(lambda input: int(not input))
for _name, _op in {
    "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "log": math.log, "log10": math.log10,
    "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "signum": lambda one: (one > 0) - (one < 0),
    "round": lambda one: math.floor(one + 0.5),
}.items():  # fmt: skip
    function(f"Number.{_name}")(lambda input, op=_op: op(input))
function("Number.int", "Number.toInt", "Number.long", "Number.toLong", "Number.toInt64", "Number.int64")(
    lambda input: int(input)
)
function("Number.float", "Number.toFloat", "Number.double", "Number.toDouble")(lambda input: float(input))
function("Number.clamp")(lambda number, min, max: sorted((min, number, max))[1])


@function("Number.format")
def _number_format(number, pattern: str) -> str:
    if pattern == "%s":
        return str(number)
    return pattern % (int(number) if pattern.endswith("d") else number)


@function("Number.parse")
def _number_parse(input: str, radix: int) -> float:
    try:
        return int(input, radix)
    except ValueError:
        return float(input)


@function("String")
def _string(input) -> str:
    return input if isinstance(input, str) else str(input)


function("String.cat")(lambda string1, string2: string1 + string2)
function("String.length")(lambda string: len(string))
function("String.slice")(lambda string, start, end: string[start:end])
function("String.split")(lambda string, regex, flags: re.split(regex, string))
function("String.replace")(
    lambda input, regex, replacement, flags: re.sub(regex, replacement, input, count=0 if "g" in (flags or "") else 1)
)
function("String.toLowerCase")(lambda string: string.lower())
function("String.toUpperCase")(lambda string: string.upper())
function("String.trim")(lambda string: string.strip())
function("String.index")(lambda target, pattern: target.find(pattern))
function("String.equals")(lambda reference, target: reference == target)
function("String.compareTo")(lambda string1, string2: (string1 > string2) - (string1 < string2))
function("String.encodeJSON")(lambda object: json.dumps(object))
function("String.decodeJSON")(lambda string: json.loads(string))


@function("String.match")
def _match(input: str, regex: str, flags: str) -> list:
    found = re.search(regex, input)
    return [] if found is None else [found.group(0), *found.groups()]


@function("List.get", "List.getNumber", "List.getString", "List.getGeometry")
def _list_get(list: list, index: int):
    if not -len(list) <= index < len(list):
        raise EarthEngineError(f"List.get: List index must be between 0 and {len(list)}, or negative. Found {index}.")
    return list[index]


@function("List.map")
def _list_map(list: list, baseAlgorithm: Closure, dropNulls) -> list:
    results = [baseAlgorithm(one) for one in list]
    return [one for one in results if one is not None] if dropNulls else results


@function("List.iterate")
def _list_iterate(list: list, function: Closure, first):
    for one in list:
        first = function(one, first)
    return first


@function("List.sequence")
def _sequence(start, end, step, count) -> list:
    if count is not None:
        stride = (end - start) / (count - 1) if end is not None and count > 1 else step
        return [start + i * stride for i in range(count)]
    if end is None:
        raise EarthEngineError("List.sequence: One of 'end' or 'count' must be specified.")
    whole = all(float(one).is_integer() for one in (start, step))
    numbers = [start + i * step for i in range(math.floor((end - start) / step + 1e-9) + 1)]
    return [int(one) for one in numbers] if whole else numbers


@function("List.reduce")
def _list_reduce(list: list, reducer: Reducer):
    return reducer.flat(list)


@function("List.flatten")
def _flatten(list: list) -> list:
    return [one for inner in list for one in (_flatten(inner) if type(inner) is _LIST else [inner])]


@function("List.distinct")
def _list_distinct(list: list) -> list:
    return [one for i, one in enumerate(list) if one not in list[:i]]


_LIST = list
function("List.size", "List.length")(lambda list: len(list))
function("List.cat")(lambda list, other: list + other)
function("List.add")(lambda list, element: [*list, element])
function("List.contains")(lambda list, element: element in list)
function("List.indexOf")(lambda list, element: list.index(element) if element in list else -1)
function("List.slice")(lambda list, start, end, step: list[start:end:step])
function("List.sort")(lambda list, keys: sorted(list))
function("List.reverse")(lambda list: list[::-1])
function("List.join")(lambda list, separator: (separator or "").join(map(str, list)))
function("List.zip")(lambda list, other: [[a, b] for a, b in zip(list, other, strict=False)])
function("List.repeat")(lambda value, count: [value] * count)
function("List.removeAll")(lambda list, other: [one for one in list if one not in other])


@function("Dictionary")
def _dictionary(input) -> dict:
    if isinstance(input, _LIST):
        return dict(zip(input[::2], input[1::2], strict=True))
    return input or {}


@function("Dictionary.get", "Dictionary.getNumber", "Dictionary.getString")
def _dictionary_get(dictionary: dict, key: str, defaultValue=None):
    if key not in dictionary and defaultValue is None:
        raise EarthEngineError(f"Dictionary.get: Dictionary does not contain key: '{key}'.")
    return dictionary.get(key, defaultValue)


@function("Dictionary.map")
def _dictionary_map(dictionary: dict, baseAlgorithm: Closure) -> dict:
    return {key: baseAlgorithm(key, value) for key, value in dictionary.items()}


function("Dictionary.fromLists")(lambda keys, values: dict(zip(keys, values, strict=True)))
function("Dictionary.set")(lambda dictionary, key, value: {**dictionary, key: value})
function("Dictionary.combine")(
    lambda first, second, overwrite: {**first, **second} if overwrite else {**second, **first}
)
function("Dictionary.keys")(lambda dictionary: sorted(dictionary))
function("Dictionary.values")(lambda dictionary, keys: [dictionary[key] for key in keys or sorted(dictionary)])
function("Dictionary.contains")(lambda dictionary, key: key in dictionary)
function("Dictionary.size")(lambda dictionary: len(dictionary))


@function("If")
def _if(condition, trueCase, falseCase):
    return trueCase if condition else falseCase


@function("IsEqual")
def _is_equal(left, right) -> bool:
    return left == right
