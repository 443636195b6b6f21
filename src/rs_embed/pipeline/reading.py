"""Providers that are told beforehand what they will be asked for: they stand between a unit and its provider."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rs_embed.providers.base import Query, Wrapped

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Plan  # loads torch, which who only fetches must not


class Reader(Wrapped):
    """A provider around another, made for one unit."""

    @abstractmethod
    def expect(self, unit: str, stems: Sequence[str], plans: Sequence["Plan"]) -> None:
        """Say what will be asked for from now on; what was expected before is forgotten.

        Args:
            unit: Name of the unit.
            stems: What the names of an item's files begin with, in the order of the items.
            plans: Of the same items, one per model; all that stands in them is asked for, item after item.
        """


def pixels_of(query: Query) -> Query:
    """The query as far as a provider sees it: equal for all models that share a chip."""
    return replace(query, modality="", sensor=replace(query.sensor, fill_value=0.0))
