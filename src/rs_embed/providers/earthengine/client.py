"""The Earth Engine client in an instance of our own, to write expressions with: `from ..._ee_client import ee`.

The client keeps its settings, and the list of functions that Earth Engine can compute, in its modules. A process has
one set of these modules, which belongs to the user. Initialising it would change which project is billed for the user's
requests and how they are retried, and the user's changes would affect ours. So the client's unmodified files are loaded
a second time, under another name. This instance is never initialised: it only loads the list of functions (`learn`),
and sends no requests.
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
    """`import` inside our instance: imports of the client's own modules lead to our instance."""
    ours = re.sub(rf"^{_NAME}(?=\.|$)", _OURS, name) if level == 0 else name
    return builtins.__import__(ours, globals, locals, fromlist, level)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Loads our instance from the files of the client."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _OURS:
            return None
        client = _NAME + fullname.removeprefix(_OURS)
        found = PathFinder.find_spec(client, path)
        if found is None and path is None:  # installed in an unusual way, such as editable packages
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
        sys.meta_path.insert(0, _Finder())  # before the finder that searches the folder of our package
    return importlib.import_module(_OURS)


if TYPE_CHECKING:
    import ee as ee  # noqa: PLC0414  (imported from here)
else:
    ee = _loaded()


def knows() -> bool:
    """Return whether the list of Earth Engine's functions is loaded."""
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
            raise KeyError("algorithms")  # noqa: TRY301  (handled below)
        vars(ee.data)["getAlgorithms"] = lambda: functions  # otherwise it would send a request
        ee.ApiFunction.initialize()
    except (KeyError, TypeError, AttributeError) as error:
        raise ReadError(
            f"Expected a list of what Earth Engine can compute, got an answer without: {error!r}", fix="try again"
        ) from error


def forget() -> None:
    """Discard the list of functions."""
    ee.ApiFunction.reset()
