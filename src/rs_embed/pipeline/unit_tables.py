"""The table of a work unit, read back: to see what is in it, and to put rows into it that were retried."""

import json
from dataclasses import dataclass
from pathlib import Path

from rs_embed.errors import StorageError
from rs_embed.writers.base import RunHeader
from rs_embed.writers.fields import HEADER_FIELD
from rs_embed.writers.table import parquet_options

RUN = "run_fingerprint"
"""Under this name a file's header says to which run it belongs."""


@dataclass(frozen=True)
class UnitTable:
    """What a unit's file says of itself."""

    run: str
    """Fingerprint of the run's request."""
    rows: list[int]
    failed: list[int]
    hrefs: list[str]
    """Of grids, relative to the folder of the table; none for vectors."""


def read_unit(path: Path) -> UnitTable | None:
    """What is in the file; `None` if it is not there or is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        names = [name for name in ("row", "status", "href") if name in schema.names]
        columns = pq.read_table(path, columns=names).to_pydict()
        header = RunHeader.from_json(json.loads(schema.metadata[b"emb"])[HEADER_FIELD])
        failed = [row for row, status in zip(columns["row"], columns["status"], strict=True) if status == "failed"]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, StorageError):
        return None
    hrefs = [href for href in columns.get("href", ()) if href is not None]
    return UnitTable(str(header.extra.get(RUN)), columns["row"], failed, hrefs)


def merge_units(old: Path, retried: Path, into: Path) -> None:
    """The rows of `old` in their order, with those of `retried` in place of their own.

    Every other row keeps its bytes: nothing is read into numbers and written again.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    before, again = pq.read_table(old), pq.read_table(retried)
    at = {row: index for index, row in enumerate(before["row"].to_pylist())}
    order = list(range(len(before)))
    for index, row in enumerate(again["row"].to_pylist()):
        order[at[row]] = len(before) + index
    both = pa.concat_tables([before, again.cast(before.schema)]).unify_dictionaries()
    merged = both.take(pa.array(order, pa.int64())).replace_schema_metadata(before.schema.metadata)
    header = RunHeader.from_json(json.loads(before.schema.metadata[b"emb"])[HEADER_FIELD])
    pq.write_table(merged.combine_chunks(), into, **parquet_options(header))
