"""Providers that know the coming requests: they stand between a unit and its provider."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rs_embed.providers.base import Query, Wrapped, pixels_of

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Workload  # loads torch, which a process that only fetches must not


@dataclass(frozen=True)
class PlannedFetches:
    """The chips that one place will request."""

    stem: str
    """Prefix of the names of its files."""
    queries: tuple[Query, ...]
    """In order, each once. After one fails, the rest may not be requested."""


class PlannedProvider(Wrapped):
    """A wrapper around a provider, made for one unit."""

    def announce(self, unit: str, planned: Sequence[PlannedFetches]) -> None:
        """Announce the coming requests, place after place; this replaces earlier announcements."""
        if isinstance(self._provider, PlannedProvider):
            self._provider.announce(unit, planned)


def planned_fetches(stems: Sequence[str], works: "Sequence[Workload]") -> list[PlannedFetches]:
    """Return the chips that workloads of the same places will request; a chip that models share counts once."""
    found = []
    for stem, *items in zip(stems, *(work.items for work in works), strict=True):
        seen: dict[Query, Query] = {}
        for item in items:
            for query in item.queries:
                seen.setdefault(pixels_of(query), query)
        found.append(PlannedFetches(stem, tuple(seen.values())))
    return found
