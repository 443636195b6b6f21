"""STAC beside the data of a run, when all of its units are through."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from rs_embed.pipeline.durable import remove, storing
from rs_embed.pipeline.journal import UnitStore
from rs_embed.pipeline.units import Units
from rs_embed.writers.reading import TableFile
from rs_embed.writers.stac import items_of, write_stac

COLLECTION = "collection.json"
MAX_GRIDS = 100_000
"""More grids than this get no catalog: a file for each of a million helps nobody, and the tables list them."""


def write_catalogs(stores: Sequence[UnitStore], units: Units, changed: Collection[str], *, grids: bool) -> None:
    """A collection and its items for each model: an item for each table of vectors, or for each grid.

    Args:
        stores: Of the models.
        units: Of the run, all finished.
        changed: Names of the models of which a file was written; others keep the catalog that they have.
        grids: Whether the run holds grids.
    """
    if grids and len(units.order) > MAX_GRIDS:
        return
    for store in stores:
        if store.folder.name not in changed and _has_catalog(store.folder):
            continue
        with storing(store.folder):
            remove(store.folder / COLLECTION)
            tables = [store.table(unit) for unit in units]
            items = [item for table in tables for item in items_of(table, store.folder)]
            write_stac(store.folder, TableFile(tables[0]).meta, items)


def _has_catalog(folder: Path) -> bool:
    """Whether the collection, which is written last, is whole."""
    try:
        json.loads((folder / COLLECTION).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True
