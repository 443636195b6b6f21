"""What other installed packages add to this one: models and providers, named by their entry points."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

MODELS, PROVIDERS = "rs_embed.models", "rs_embed.providers"
"""Groups of entry points: a card or several, and a class or function that makes a provider."""


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package. Nothing of the package is imported before `load`."""

    name: str
    package: str
    """Name and version of the distribution, for messages."""
    entry: EntryPoint

    def load(self) -> object:
        """Import what the entry point names. Raises whatever the code of the package raises."""
        value: object = self.entry.load()
        return value


def plugins(group: str) -> tuple[Plugin, ...]:
    """The entry points of a group, by name of package."""
    return _scanned(group, tuple(sys.path))


@lru_cache(maxsize=8)
def _scanned(group: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Once for each search path: to read what is installed takes some ten milliseconds."""
    found = {
        (entry.name, entry.value): Plugin(entry.name, _package(entry), entry) for entry in entry_points(group=group)
    }
    return tuple(sorted(found.values(), key=lambda plugin: (plugin.package, plugin.name)))


def _package(entry: EntryPoint) -> str:
    return "an unnamed package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def load_plugins() -> None:
    """Import what all of them name, so that the variables of their knobs are known."""
    for plugin in (*plugins(MODELS), *plugins(PROVIDERS)):
        with suppress(Exception):  # the code of others; who asks for it by name is told what is wrong
            plugin.load()
