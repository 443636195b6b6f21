"""What tests of the engines compare."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from export_worker import MODEL


def vectors(run: Path, model: str = MODEL) -> dict[int, bytes]:
    """The bytes of every vector, by row; fails if a row is there twice."""
    found: dict[int, bytes] = {}
    for path in sorted(run.glob(f"{model}/units/*.parquet")):
        table = pq.read_table(path)
        for row, vector in zip(table["row"].to_pylist(), table["embedding"].combine_chunks(), strict=True):
            assert row not in found
            found[row] = np.asarray(vector.values).tobytes() if vector.is_valid else b""
    return found


def table_without_times(path: Path) -> dict[str, list[object]]:
    """All columns but the one that holds when each row was made."""
    table = pq.read_table(path)
    return {name: table[name].to_pylist() for name in table.column_names if name not in ("meta", "embedding")}
