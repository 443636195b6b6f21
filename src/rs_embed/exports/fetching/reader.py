"""Providers that are told beforehand what they will be asked for: they stand between a unit and its provider."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rs_embed.providers.base import Query, Wrapped, pixels_of

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Workload  # loads torch, which who only fetches must not


@dataclass(frozen=True)
class PlannedFetches:
    """What one place will ask for."""

    stem: str
    """What the names of its files begin with."""
    queries: tuple[Query, ...]
    """In order, each once; after one that fails, the others may not be asked for."""


class PlannedProvider(Wrapped):
    """A provider around another, made for one unit."""

    def announce(self, unit: str, planned: Sequence[PlannedFetches]) -> None:
        """Say what will be asked for from now on, place after place; what was announced before is forgotten."""
        if isinstance(self._provider, PlannedProvider):
            self._provider.announce(unit, planned)


def planned_fetches(stems: Sequence[str], works: "Sequence[Workload]") -> list[PlannedFetches]:
    """What workloads of the same places will ask for; models that share a chip ask for it once."""
    found = []
    for stem, *items in zip(stems, *(work.items for work in works), strict=True):
        seen: dict[Query, Query] = {}
        for item in items:
            for query in item.queries:
                seen.setdefault(pixels_of(query), query)
        found.append(PlannedFetches(stem, tuple(seen.values())))
    return found
