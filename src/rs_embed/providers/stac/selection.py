"""Select the items of a catalogue that a chip is made from, and report those that are left out."""

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
"""Largest number of scenes that a note names; errors list a few times as many names."""


class Finder(Protocol):
    """Finds the items of a catalogue."""

    def title(self) -> str:
        """The catalogue's title."""
        ...

    def items(self, collection: StacCollection, geobox: GeoBox, window: TemporalSpec | None) -> tuple[CatalogItem, ...]:
        """Return the items around a grid (in a wider area), taken in the window, each scene once."""
        ...

    def lacks(self, collection: str) -> tuple[str, ...] | None:
        """Return the collections it has instead of a missing one; `None` if it has that one or does not list them."""
        ...


@dataclass(frozen=True)
class Selected:
    """The items that a chip is made from."""

    items: list[CatalogItem]
    """One item or more, in order of time."""
    notes: list[str]
    """Notes on scenes that are left out although they meet every condition that could be checked."""


@dataclass(frozen=True)
class Selection:
    """Selects the items of a catalogue.

    Args:
        catalog: The catalogue.
        finder: Finds its items.
        skip: Whether a scene with a missing file is left out, or is an error.
    """

    catalog: StacCatalog
    finder: Finder
    skip: bool

    def selected(self, query: Query, geobox: GeoBox, collection: StacCollection) -> Selected:
        """Return the items that touch a grid, have the requested files, and meet the conditions of the sensor.

        Raises:
            SensorNotOffered: The catalogue has no such collection.
            OutsideCoverage: An undated collection has nothing at this place.
            NoImagery: No item meets the conditions.
            ReadError: An item lacks a file, and `skip` is false.
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
        """The items around the grid."""
        try:
            listed = self.finder.items(collection, geobox, query.window)
        except ReadError:  # some catalogues answer with an error if the collection is unknown
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
    """The number of scenes, and the names of the first."""
    more = ", ..." if len(items) > NAMED else ""
    return f"{len(items)} scene{'s' if len(items) > 1 else ''} ({', '.join(item.id for item in items[:NAMED])}{more})"
