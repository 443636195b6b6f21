"""Merge new rows into the table of a unit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.formats.geoparquet import geo_key
from rs_embed.formats.reading import TableFile
from rs_embed.formats.table import save_table

if TYPE_CHECKING:
    import pyarrow as pa

RUN = "run_fingerprint"
"""Key of a file's header that names the run it belongs to."""


def merge_units(old: Path, new: Path, into: Path, order: Sequence[int]) -> None:
    """Merge two tables in the given order: rows of `new` where both have one, the other rows of `old` unchanged.

    Vectors are copied as bytes, so none of them changes. The result equals the table that a single call would have
    written.

    Args:
        old: A table of the unit.
        new: Another one.
        into: The path to write.
        order: Row numbers to take, each in one of the tables.

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
    """Rebuild the dictionaries with the values in use, in order of appearance, as if written at once."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(index).combine_chunks()
            table = table.set_column(index, field.name, column.dictionary_decode().dictionary_encode())
    return table
