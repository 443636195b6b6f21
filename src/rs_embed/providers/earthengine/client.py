"""The Earth Engine client in an instance of our own, to write expressions with: `from ..._ee_client import ee`.

The client keeps what it was initialised with, and what Earth Engine can compute, in its modules, of which a process
has one set: the user's. To initialise or reset that one would change who is billed for his requests, and how they are
retried; and what he does to it would change ours. So its unmodified files are loaded once more, under another name.
This instance is never initialised: it only learns what there is to compute (`learn`), and asks nobody anything.
"""

import builtins
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING

from rs_embed.errors import ReadError

_NAME, _OURS = "ee", "_rs_embed_ee"


def _import(
    name: str,
    globals: Mapping[str, object] | None = None,  # noqa: A002  (Python's own name for it)
    locals: Mapping[str, object] | None = None,  # noqa: A002
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> ModuleType:
    """`import`, as the modules of our instance do it: the client's modules among themselves are ours."""
    ours = re.sub(rf"^{_NAME}(?=\.|$)", _OURS, name) if level == 0 else name
    return builtins.__import__(ours, globals, locals, fromlist, level)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds our instance where the client lies."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _OURS:
            return None
        client = _NAME + fullname.removeprefix(_OURS)
        found = PathFinder.find_spec(client, path)
        if found is None and path is None:  # installed in a way of its own, as editable packages are
            found = importlib.util.find_spec(client)
        if found is None or found.origin is None:
            return None
        inside = found.submodule_search_locations
        loader = _Loader(fullname, found.origin)
        return importlib.util.spec_from_file_location(
            fullname, found.origin, loader=loader, submodule_search_locations=inside
        )


def _loaded() -> ModuleType:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # before the one that finds what lies in the folder of our package
    return importlib.import_module(_OURS)


if TYPE_CHECKING:
    import ee as ee  # noqa: PLC0414  (to be taken from here)
else:
    ee = _loaded()


def knows() -> bool:
    """Whether the list of Earth Engine's functions was loaded."""
    return bool(vars(ee.ApiFunction)["_api"])


def learn(answer: object) -> None:
    """Load the list of functions that Earth Engine can compute (the answer of `projects.algorithms.list`).

    Raises:
        ReadError: The answer is not a list of functions.
    """
    from_list: Callable[[object], dict[str, object]] = vars(ee._cloud_api_utils)["convert_algorithms"]
    try:
        functions = from_list(answer)
        if not functions:
            raise KeyError("algorithms")  # noqa: TRY301  (as if it had been missed there)
        vars(ee.data)["getAlgorithms"] = lambda: functions  # of our instance: else it would ask, uninitialised
        ee.ApiFunction.initialize()
    except (KeyError, TypeError, AttributeError) as error:
        raise ReadError(
            f"Expected a list of what Earth Engine can compute, got an answer without: {error!r}", fix="try again"
        ) from error


def forget() -> None:
    """Drop the list of functions, as at the start."""
    ee.ApiFunction.reset()
