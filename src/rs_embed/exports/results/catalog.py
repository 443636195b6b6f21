"""STAC beside the data of a run, when all of its units are through."""

from collections.abc import Sequence

from rs_embed.core.atomic import remove, remove_parts, storing
from rs_embed.exports.object_store import Remote
from rs_embed.exports.records import UnitStore
from rs_embed.exports.unit import TABLES, Units
from rs_embed.formats.base import RunHeader
from rs_embed.formats.reading import TableFile
from rs_embed.formats.stac import COLLECTION, ITEMS, StacItem, items_of, write_stac

MAX_GRIDS = 100_000
"""More grids than this get no catalog: a file for each of a million helps nobody, and the tables list them."""


def write_catalogs(stores: Sequence[UnitStore], units: Units, *, grids: bool, remote: Remote | None = None) -> None:
    """A collection and its items for each model that has none: an item for each table of vectors, or for each grid.

    A catalog is removed before anything that it lists is changed (see `UnitSink`), so what is there is right.

    Args:
        stores: Of the models.
        units: Of the run, all finished.
        grids: Whether the run holds grids.
        remote: Where the run lies, if it is not where the stores say; its tables are brought one after the other.
    """
    if grids and len(units.order) > MAX_GRIDS:
        return
    for store in stores:
        name, folder = store.folder.name, store.folder
        if store.catalog.is_file() if remote is None else remote.size(f"{name}/{COLLECTION}") is not None:
            continue
        with storing(folder):
            remove_parts(folder, lambda file: file == COLLECTION)  # of a process that was killed over it
            items: list[StacItem] = []
            header: RunHeader | None = None
            for unit in units:
                if remote is not None:
                    remote.get(f"{name}/{TABLES}/{unit.name}.parquet", folder.parent)
                items += items_of(store.table(unit), folder)
                header = header or TableFile(store.table(unit)).meta
                if remote is not None:
                    remove(store.table(unit))
            if header is not None:
                write_stac(folder, header, items)
        if remote is not None:
            remote.put(folder.parent, f"{name}/{ITEMS}")
            remote.put(folder.parent, f"{name}/{COLLECTION}")
