"""Models and providers that other installed packages add, found by their entry points."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

MODELS, PROVIDERS = "rs_embed.models", "rs_embed.providers"
"""Entry-point groups: one or more cards, and a class or function that makes a provider."""


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package. Nothing of the package is imported before `load`."""

    name: str
    package: str
    """Name and version of the distribution, for messages."""
    entry: EntryPoint

    def load(self) -> object:
        """Import what the entry point names. The package's own exceptions pass through."""
        value: object = self.entry.load()
        return value


def plugins(group: str) -> tuple[Plugin, ...]:
    """List the entry points of a group, sorted by package name."""
    return _scanned(group, tuple(sys.path))


@lru_cache(maxsize=8)
def _scanned(group: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Scan once per search path: reading what is installed takes about 10 ms."""
    found = {
        (entry.name, entry.value): Plugin(entry.name, _package(entry), entry) for entry in entry_points(group=group)
    }
    return tuple(sorted(found.values(), key=lambda plugin: (plugin.package, plugin.name)))


def _package(entry: EntryPoint) -> str:
    return "an unnamed package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def load_plugins() -> None:
    """Import all plugins, so that the variables of their knobs are known."""
    for plugin in (*plugins(MODELS), *plugins(PROVIDERS)):
        with suppress(Exception):  # other people's code; naming such a plugin raises the error
            plugin.load()
