"""The index of a run's vectors, kept in its folder: built from the unit files, and used while they do not change."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core.atomic import locked, make_folder, part_of, remove, remove_parts, storing
from rs_embed.core.optional import require
from rs_embed.core.progress import Advance, progress_bar
from rs_embed.embedding.similarity import ModelFacts
from rs_embed.errors import SpecError
from rs_embed.exports.results.index import IndexFacts, VectorIndex, damaged
from rs_embed.exports.results.index_build import build, sample_for
from rs_embed.exports.results.kept_index import DIGEST, IndexReport, records_digest
from rs_embed.formats.reading import TableFile
from rs_embed.formats.stack import Stack

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = "rows.arrow"
"""Table of the rows in the order of the units, with the columns that a search returns or filters by."""
_NOT_KEPT = {
    "embedding", "scale", "href", "geometry", "bbox", "datetime", "model_id", "weights_id", "source_ids", "proj_code",
    "transform", "cloud_fraction", "stage", "error", "fingerprint", "meta",
}  # fmt: skip
_BATCH = 250_000
_CHUNK = 2**24
_MODEL, _UNITS, _CHECK = "model", "units", "rows_xxh3"


def columns_of(table: TableFile) -> list[str]:
    """The columns that a search returns or can filter by."""
    return [name for name in table.columns if name not in _NOT_KEPT]


def build_index(model: Path, tables: Callable[[], Stack], folder: Path, *, progress: bool = True) -> IndexReport:
    """See `Run.build_index`.

    Args:
        model: Folder of the model in the run.
        tables: Opens the tables of the model.
        folder: Folder of the index.
        progress: Show a bar on a terminal.
    """
    require("faiss", "search")
    rows = part_of(folder.with_name(ROWS))
    with locked(model.parent), storing(folder):
        digest, stack = records_digest(model), tables()
        if not stack.tables or stack.tables[0].is_index:
            raise SpecError(
                f"Expected a run with vectors, got {'one of grids' if stack.tables else 'none yet'}.",
                fix="export with output=OutputSpec.pooled()" if stack.tables else "run the export first",
            )
        make_folder(folder.parent)
        remove_parts(folder.parent)
        header, counts = stack.header, [len(table) for table in stack.tables]
        facts = ModelFacts(header.model_id, header.card_revision, header.weights or "", header.dim)
        about: dict[str, JsonValue] = {
            DIGEST: digest,
            _MODEL: asdict(facts),
            _UNITS: {table.path.stem: count for table, count in zip(stack.tables, counts, strict=True)},
        }
        try:
            with progress_bar(sum(counts), shown=progress) as advance:
                _write_rows(stack.tables, rows)
                about[_CHECK] = _checksum(rows)
                found = build(
                    _blocks(stack.tables, header.dim, advance),
                    folder,
                    sample=_sample(stack, sum(counts)),
                    count=sum(counts),
                    about=about,
                    beside={ROWS: rows},
                )
        finally:
            remove(rows)
    return IndexReport.of(folder, found)


def _blocks(
    tables: Sequence[TableFile], dim: int, advance: Advance
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    start = 0
    for table in tables:
        if table.meta.dim == dim:  # otherwise all of its rows failed
            vectors = table.matrix()
            yield np.arange(start, start + len(vectors)), vectors
        start += len(table)
        advance(len(table), 0)


def _sample(stack: Stack, count: int) -> NDArray[np.float32]:
    """A uniform sample of rows, from units across the run."""
    tables = [table for table in stack.tables if table.meta.dim == stack.dim]
    wanted, rng = sample_for(count), np.random.default_rng(0)
    share = min(1.0, 4 * wanted / count)  # a quarter of the rows of each unit that is read
    chosen = np.unique(np.linspace(0, len(tables) - 1, max(1, round(share * len(tables)))).astype(int))
    each = -(-wanted // len(chosen))
    parts = []
    for number in chosen.tolist():
        vectors = tables[number].matrix()
        parts.append(vectors[rng.permutation(len(vectors))[:each]])
    return np.concatenate(parts)


def _write_rows(tables: Sequence[TableFile], path: Path) -> None:
    import pyarrow as pa

    names = columns_of(tables[0])
    schema = tables[0].table(names).schema.remove_metadata()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        waiting: list[pa.Table] = []
        for number, table in enumerate(tables):
            waiting.append(table.table(names).replace_schema_metadata(None).cast(schema))
            if sum(map(len, waiting)) >= _BATCH or number == len(tables) - 1:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting = []


def _checksum(path: Path) -> str:
    """Checksum of a file; a fast one, as it is compared each time the file is opened."""
    total = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            total.update(part)
    return total.hexdigest()


class RunIndex:
    """An open index made by `build_index`.

    Raises:
        StorageError: It is damaged.
        MissingDependency: The extra `search` is not installed.
    """

    def __init__(self, folder: Path, facts: IndexFacts) -> None:
        self.vectors = VectorIndex(folder, facts)
        self.facts = facts
        if _checksum(folder / ROWS) != facts.about[_CHECK]:
            raise damaged(folder, f"{ROWS} is of another content")

    @property
    def model(self) -> ModelFacts:
        """The model of the vectors."""
        return ModelFacts(**self.facts.about[_MODEL])  # type: ignore[arg-type]

    @cached_property
    def rows(self) -> "pa.Table":
        """The rows in the order of the units, memory-mapped; the ids of the index are positions in it."""
        require("pyarrow", "export")
        import pyarrow as pa

        return pa.ipc.open_file(pa.memory_map(str(self.vectors.folder / ROWS))).read_all()

    @cached_property
    def _units(self) -> tuple[list[str], list[int]]:
        units = cast("dict[str, int]", self.facts.about[_UNITS])
        return list(units), list(accumulate(units.values(), initial=0))

    def unit_of(self, place: int) -> tuple[str, int]:
        """Return the unit of a row, and its position in that unit."""
        names, starts = self._units
        number = int(np.searchsorted(starts, place, side="right")) - 1
        return names[number], place - starts[number]
