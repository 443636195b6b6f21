"""Which of the items of a catalogue a chip is made of, and what is said of those that are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from odc.geo.geobox import GeoBox

from rs_embed.core.bands import did_you_mean
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import NoImagery, OutsideCoverage, ReadError, SensorNotOffered
from rs_embed.providers.base import Query
from rs_embed.providers.common.absence import WIDEN
from rs_embed.providers.common.grids import in_degrees
from rs_embed.providers.stac.catalogs import StacCatalog, StacCollection, conditions_of
from rs_embed.providers.stac.items import CatalogItem

NAMED = 5
"""Scenes that a note names, at most; an error lists some times as many names."""


class Finder(Protocol):
    """Finds the items of a catalogue."""

    def title(self) -> str:
        """What the catalogue calls itself."""
        ...

    def items(self, collection: StacCollection, geobox: GeoBox, window: TemporalSpec | None) -> tuple[CatalogItem, ...]:
        """All items around a grid (an area wider than it), taken in the window, each scene once."""
        ...

    def lacks(self, collection: str) -> tuple[str, ...] | None:
        """What it has instead of a collection; `None` if it has it, or does not tell."""
        ...


@dataclass(frozen=True)
class Selected:
    """What a chip is made of."""

    items: list[CatalogItem]
    """In order of time; one or more."""
    notes: list[str]
    """Of scenes that are left out though they meet all conditions, as far as can be told."""


@dataclass(frozen=True)
class Selection:
    """Selects the items of a catalogue.

    Args:
        catalog: Which.
        finder: Finds its items.
        skip: Whether a scene that lacks a file is left out, or is an error.
    """

    catalog: StacCatalog
    finder: Finder
    skip: bool

    def selected(self, query: Query, geobox: GeoBox, collection: StacCollection) -> Selected:
        """The items that touch a grid, have the files wanted, and meet the conditions of the sensor.

        Raises:
            SensorNotOffered: The catalogue has no such collection.
            OutsideCoverage: It has nothing there, of what has no days.
            NoImagery: No item is left.
            ReadError: An item lacks a file, and none is to be left out.
            ProviderError: The catalogue could not, or would not, answer.
        """
        left = [item for item in self._listed(query, geobox, collection) if item.touches(geobox)]
        if not left and not collection.dated:
            raise OutsideCoverage(
                f"Expected {query.sensor.collection} at {in_degrees(geobox)}, got nothing: it has none there.",
                fix="choose another place or another collection",
            )
        counted, notes = [f"{len(left)} in the window"], []
        for condition in conditions_of(query.sensor, collection):
            silent = [item for item in left if condition.property not in item.properties]
            left = [item for item in left if condition.met_by(item.properties)]
            counted.append(f"{len(left)} {condition.name}")
            notes += [f"Left out {_named(silent)}: no {condition.property} is told."] if silent else []
        wanted = {collection.assets[band].partition(":")[0] for band in query.sensor.bands}
        wanted |= {collection.mask} if query.sensor.cloud_mask == "scl" and collection.mask else set()
        whole = [item for item in left if wanted <= set(item.assets)]
        counted.append(f"{len(whole)} with all files")
        poor = [item for item in left if not wanted <= set(item.assets)]
        if not whole:
            raise self._nothing(query, geobox, counted, wanted, poor)
        if poor and not self.skip:
            lacked = ", ".join(sorted(wanted - set(poor[0].assets)))
            raise ReadError(
                f"Expected all files of every scene, got {poor[0].id} without {lacked}.",
                scenes=_named(poor),
                fix="use on_missing='skip' to leave such scenes out, with a note",
            )
        for lacked in sorted({", ".join(sorted(wanted - set(item.assets))) for item in poor}):
            these = [item for item in poor if ", ".join(sorted(wanted - set(item.assets))) == lacked]
            notes.append(f"Left out {_named(these)}: without the files {lacked}.")
        return Selected(whole, notes)

    def _listed(self, query: Query, geobox: GeoBox, collection: StacCollection) -> Sequence[CatalogItem]:
        """What the catalogue has around the grid."""
        try:
            listed = self.finder.items(collection, geobox, query.window)
        except ReadError:  # some answer an unknown collection with an error
            self._require(collection)
            raise
        if not listed:
            self._require(collection)
        return listed

    def _require(self, collection: StacCollection) -> None:
        there = self.finder.lacks(collection.id)
        if there is None:
            return
        names = [*there[: 4 * NAMED], *([f"and {len(there) - 4 * NAMED} more"] if len(there) > 4 * NAMED else [])]
        raise SensorNotOffered(
            f"Expected the collection {collection.id!r} in the STAC catalogue {self.catalog.title}, "
            "got none of that name.",
            has=", ".join(names) or "no collection",
            fix=did_you_mean(collection.id, there) if there else "check the URL or path of the catalogue",
        )

    def _nothing(
        self, query: Query, geobox: GeoBox, counted: list[str], wanted: set[str], poor: Sequence[CatalogItem]
    ) -> NoImagery:
        window = query.window
        days = "of any day" if window is None else f"from {window.start} up to {window.end}"
        there = sorted(set(chain.from_iterable(item.offered for item in poor)))
        return NoImagery(
            f"Expected {query.sensor.collection} {days}, got no scene that can be used.",
            where=in_degrees(geobox),
            scenes=", of these ".join(counted),
            files_wanted=", ".join(sorted(wanted)) if poor else None,
            files_there=", ".join(there[: 8 * NAMED]) if poor else None,
            fix="check the asset names in the StacCollection" if poor else WIDEN,
        )


def _named(items: Sequence[CatalogItem]) -> str:
    """How many scenes, and the first of them."""
    more = ", ..." if len(items) > NAMED else ""
    return f"{len(items)} scene{'s' if len(items) > 1 else ''} ({', '.join(item.id for item in items[:NAMED])}{more})"
