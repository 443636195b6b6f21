"""Tables of several units as one: rows in their order, byte for byte, under one header."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.errors import StorageError
from rs_embed.exports.unit_tables import RUN
from rs_embed.formats.base import RunHeader
from rs_embed.formats.geoparquet import geo_key
from rs_embed.formats.reading import TableFile
from rs_embed.formats.table import save_table

if TYPE_CHECKING:
    import pyarrow as pa


def merge_tables(tables: Sequence[TableFile], into: Path, folder: Path) -> int:
    """Write the rows of all tables to one file of one row group, and read back that they are there.

    Args:
        tables: Of one run and model, in the order in which their rows are to stand.
        into: Where it is written now.
        folder: Where the file will lie: paths of grids become relative to it.

    Returns:
        How many rows it has.

    Raises:
        StorageError: The tables are not of one run, or a row is not there afterwards.
    """
    import pyarrow as pa

    header = tables[0].meta
    for table in tables:
        if _identity(table.meta) != _identity(header):
            raise StorageError(
                f"Expected tables of one run, got {str(table.path)!r} of another than {str(tables[0].path)!r}.",
                fix="run the export again: it mends its files",
            )
    parts = [_with_paths_from(table, folder) for table in tables]
    merged = pa.concat_tables([part.cast(parts[0].schema) for part in parts]).unify_dictionaries()
    merged = merged.combine_chunks()
    keys = {**tables[0].keys, "geo": geo_key(merged)}
    save_table(merged, into, header, keys)
    wanted, found = merged["row"].to_pylist(), TableFile(into).table(["row"])["row"].to_pylist()
    if wanted != found:
        raise StorageError(
            f"Expected {len(wanted)} rows in {str(into)!r}, got {len(found)}, or others.",
            fix="check the disk, then run the same again",
        )
    return len(wanted)


def _identity(header: RunHeader) -> RunHeader:
    """Without what may differ within a run: knobs that change no number, and the number of a GPU."""
    return replace(header, extra={RUN: header.extra.get(RUN)})


def _with_paths_from(table: TableFile, folder: Path) -> "pa.Table":
    import pyarrow as pa

    rows = table.table()
    if not table.is_index:
        return rows
    here = [None if href is None else table.path.parent / href for href in rows["href"].to_pylist()]
    paths = [None if path is None else os.path.relpath(path, folder) for path in here]
    return rows.set_column(rows.column_names.index("href"), "href", pa.array(paths, pa.string()))
