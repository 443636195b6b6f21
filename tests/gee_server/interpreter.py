"""Evaluates an expression as the client serialises it, against the signatures that the client was given."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from gee_server.errors import EarthEngineError
from gee_server.values import Closure, coerce

FUNCTIONS: dict[str, Callable] = {}
_RESERVED = {"and", "or", "not", "from", "lambda", "in", "is", "if"}


def function(*names: str) -> Callable[[Callable], Callable]:
    """Offer a Python function under the service's names; its arguments are called as in `algorithms.json`."""

    def offer(do: Callable) -> Callable:
        for name in names:
            if name in FUNCTIONS:
                raise ValueError(f"{name} is offered twice")
            FUNCTIONS[name] = do
        return do

    return offer


@cache
def algorithms_json() -> bytes:
    """What the `algorithms` call answers, from the client's own package."""
    return resources.files("ee").joinpath("tests/algorithms.json").read_bytes()


@dataclass(frozen=True)
class _Argument:
    """One argument of a function, as declared."""

    name: str
    type: str
    optional: bool
    default: object

    @property
    def spelt(self) -> str:
        """What the Python function calls it."""
        return self.name + "_" if self.name in _RESERVED else self.name


@cache
def signatures() -> Mapping[str, tuple[_Argument, ...]]:
    """Function -> its arguments."""
    listed = json.loads(algorithms_json())["algorithms"]
    return {one["name"].removeprefix("algorithms/"): _arguments(one) for one in listed}


def _arguments(algorithm: Mapping) -> tuple[_Argument, ...]:
    found = []
    for one in algorithm.get("arguments", ()):
        default = one.get("defaultValue")
        if default is not None and not isinstance(default, dict):
            default = coerce(default, one["type"], algorithm["name"], one["argumentName"])
        found.append(_Argument(one["argumentName"], one["type"], one.get("optional", False), default))
    return tuple(found)


class Interpreter:
    """One expression and the world it is about."""

    def __init__(self, expression: Mapping, world) -> None:
        self.world = world
        self._values = expression["values"]
        self._result = expression["result"]
        self._free: dict[str, frozenset[str]] = {}
        self.called: set[str] = set()

    def run(self):
        """Its value."""
        return self._named(self._result, _Frame({}, None))

    def _named(self, name: str, frame: _Frame):
        if name not in self._values:
            raise EarthEngineError(f"Expression refers to an unknown value '{name}'.")
        home = frame.home(self._free_in(name))
        if name not in home.done:
            home.done[name] = self._node(self._values[name], frame)
        return home.done[name]

    def _free_in(self, name: str) -> frozenset[str]:
        if name not in self._free:
            self._free[name] = self._free_in_node(self._values[name])
        return self._free[name]

    def _free_in_node(self, node: Mapping) -> frozenset[str]:
        kind, value = next(iter(node.items()))
        if kind == "argumentReference":
            return frozenset([value])
        if kind == "valueReference":
            return self._free_in(value)
        if kind == "functionDefinitionValue":
            return self._free_in(value["body"]) - frozenset(value.get("argumentNames", ()))
        if kind in ("arrayValue", "dictionaryValue"):
            inner = value.get("values", ())
            parts = inner.values() if isinstance(inner, dict) else inner
            return frozenset().union(*map(self._free_in_node, parts))
        if kind == "functionInvocationValue":
            found = frozenset().union(*map(self._free_in_node, value.get("arguments", {}).values()))
            return found | self._free_in(value["functionReference"]) if "functionReference" in value else found
        return frozenset()

    def _node(self, node: Mapping, frame: _Frame):
        kind, value = next(iter(node.items()))
        read = getattr(self, f"_read_{kind}", None)
        if read is None:
            raise EarthEngineError(f"Expression has a node of unknown kind '{kind}'.")
        return read(value, frame)

    def _read_constantValue(self, value, frame: _Frame):
        return value

    def _read_integerValue(self, value, frame: _Frame):
        return int(value)

    def _read_bytesValue(self, value, frame: _Frame):
        return base64.b64decode(value)

    def _read_valueReference(self, value, frame: _Frame):
        return self._named(value, frame)

    def _read_argumentReference(self, value, frame: _Frame):
        return frame.argument(value)

    def _read_arrayValue(self, value, frame: _Frame):
        return [self._node(one, frame) for one in value.get("values", ())]

    def _read_dictionaryValue(self, value, frame: _Frame):
        return {key: self._node(one, frame) for key, one in value.get("values", {}).items()}

    def _read_functionDefinitionValue(self, value, frame: _Frame):
        names = value.get("argumentNames", ())
        return Closure(names, lambda arguments: self._named(value["body"], _Frame(arguments, frame)))

    def _read_functionInvocationValue(self, value, frame: _Frame):
        arguments = {key: self._node(one, frame) for key, one in value.get("arguments", {}).items()}
        if "functionReference" in value:
            called = self._named(value["functionReference"], frame)
            return called(*(arguments.get(name) for name in called.names))
        return self.call(value["functionName"], arguments)

    def call(self, name: str, arguments: dict):
        """Call a function of the service, its arguments checked as the service checks them."""
        declared = signatures().get(name)
        if declared is None:
            raise EarthEngineError(f"Unrecognized function name: '{name}'.")
        do = FUNCTIONS.get(name)
        if do is None:
            raise EarthEngineError(f"The loopback Earth Engine server has no '{name}' yet: see tests/gee_server.")
        self.called.add(name)
        checked = {one.spelt: _checked(one, arguments.get(one.name), name) for one in declared}
        if not arguments.keys() <= {one.name for one in declared}:
            unknown = sorted(arguments.keys() - {one.name for one in declared})
            raise EarthEngineError(f"{name}: Unrecognized arguments: {unknown}.")
        if getattr(do, "wants_world", False):
            return do(self.world, **checked)
        return do(**checked)


def _checked(declared: _Argument, value, asker: str):
    """One argument: coerced, or its default."""
    if value is not None:
        return coerce(value, declared.type, asker, declared.name)
    if not declared.optional:
        raise EarthEngineError(f"{asker}: Parameter '{declared.name}' is required and may not be null.")
    return declared.default


class _Frame:
    """Arguments of a running function, and what was computed with them."""

    def __init__(self, arguments: Mapping, outer: _Frame | None) -> None:
        self._arguments = arguments
        self._outer = outer
        self.done: dict[str, object] = {}

    def argument(self, name: str):
        if name in self._arguments:
            return self._arguments[name]
        if self._outer is None:
            raise EarthEngineError(f"Expression refers to an unbound argument '{name}'.")
        return self._outer.argument(name)

    def home(self, free: frozenset[str]) -> _Frame:
        """The innermost frame that binds one of the free names; the outermost, if nothing is free."""
        if self._outer is None or not free.isdisjoint(self._arguments):
            return self
        return self._outer.home(free)
