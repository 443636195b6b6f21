"""The table of a work unit with rows put into it: those that were done since it was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.formats.geoparquet import geo_key
from rs_embed.formats.reading import TableFile
from rs_embed.formats.table import save_table

if TYPE_CHECKING:
    import pyarrow as pa

RUN = "run_fingerprint"
"""Under this name a file's header says to which run it belongs."""


def merge_units(old: Path, new: Path, into: Path, order: Sequence[int]) -> None:
    """The rows of both in this order: those of `new` where both have one, and the others of `old` as they are.

    No vector is read into numbers and written again, so every one keeps its bytes. The table is that which one call
    would have written.

    Args:
        old: A table of the unit.
        new: Another one.
        into: Written to exactly this path.
        order: Numbers of the rows to take, each in one of the tables.

    Raises:
        StorageError: A table is damaged.
    """
    import pyarrow as pa

    before, again = TableFile(old), TableFile(new)
    parts = [before.table(), again.table()]
    both = pa.concat_tables([parts[0], parts[1].cast(parts[0].schema)]).unify_dictionaries()
    at = {row: index for index, row in enumerate(both["row"].to_pylist())}
    merged = _plain_dictionaries(both.take(pa.array([at[row] for row in order], pa.int64())).combine_chunks())
    keys = {name: before.keys[name] for name in before.keys if name != "geo"}
    save_table(merged, into, before.meta, {**keys, "geo": geo_key(merged)})


def _plain_dictionaries(table: "pa.Table") -> "pa.Table":
    """Dictionaries with the values that are there, in the order in which they come: as if written at once."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(index).combine_chunks()
            table = table.set_column(index, field.name, column.dictionary_decode().dictionary_encode())
    return table
