"""Read the tables of many units as one table, in the order of the user's table."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.optional import require
from rs_embed.errors import StorageError
from rs_embed.formats.base import RunHeader
from rs_embed.formats.reading import TableFile

if TYPE_CHECKING:
    import pyarrow as pa

_ALWAYS = ("row", "status")


class Stack:
    """Tables stacked on top of each other; every row is in one of them."""

    def __init__(self, tables: Sequence[TableFile]) -> None:
        self.tables = tables

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Indices that sort all rows into the user's order."""
        return np.argsort(np.concatenate([rows for rows, _ in self._rows]))

    @property
    def header(self) -> RunHeader:
        """The header of a table with embeddings; the header of a unit that failed wholly may be incomplete."""
        return self.tables[self._informed].meta

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.header.dim

    def joined(self, columns: Sequence[str] | None) -> "pa.Table":
        """Return all rows as one table, with the given columns or all.

        Raises:
            StorageError: A column does not exist.
        """
        require("pyarrow", "export")
        import pyarrow as pa

        if not self.tables:
            return pa.table({name: pa.array([], pa.string()) for name in columns or ("id", *_ALWAYS)})
        missing = set(columns or ()) - set(self.tables[0].columns)
        if missing:
            raise StorageError(
                f"Expected the columns {', '.join(sorted(missing))}, got none in {str(self.tables[0].path)!r}.",
                known=", ".join(self.tables[0].columns),
                fix="read `embedding` from tables of vectors, `href` from tables of grids",
            )
        parts = [table.table(columns) for table in self.tables]
        return pa.concat_tables(self._alike(parts)).unify_dictionaries().take(pa.array(self.order))

    def vectors(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield positions in the user's order with their vectors `[n, D]`, one table at a time.

        Raises:
            StorageError: The tables are indexes of grids.
        """
        places, start = np.argsort(self.order), 0
        for table, (_, done) in zip(self.tables, self._rows, strict=True):
            part = table.matrix() if done.any() or table.is_index else np.full((len(table), self.dim), np.nan)
            yield places[start : start + len(table)], part.astype(np.float32, copy=False)
            start += len(table)

    @cached_property
    def _rows(self) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """For each table, the row numbers, and whether each row has an embedding."""
        parts = [table.table(_ALWAYS) for table in self.tables]
        return [(part["row"].to_numpy(), np.array(part["status"].to_pylist(), object) == "ok") for part in parts]

    @cached_property
    def _informed(self) -> int:
        """Index of the first table with an embedding, or 0."""
        return next((i for i, (_, done) in enumerate(self._rows) if done.any()), 0)

    def _alike(self, parts: "Sequence[pa.Table]") -> "list[pa.Table]":
        """Convert the tables to one schema."""
        import pyarrow as pa

        if "embedding" not in parts[0].column_names:
            return list(parts)
        known = parts[self._informed].schema
        kind, at = known.field("embedding").type, known.get_field_index("embedding")
        return [
            part if part["embedding"].type == kind else part.set_column(at, "embedding", pa.nulls(len(part), kind))
            for part in parts
        ]
