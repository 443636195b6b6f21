"""Find the rows of a run that are most similar to a vector: by its index, or by comparing all vectors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.similarity import ModelFacts, most_alike, require_same_model
from rs_embed.errors import SpecError
from rs_embed.exports.records import fault_in
from rs_embed.exports.results.filters import Filter
from rs_embed.exports.results.run_index import RunIndex, columns_of
from rs_embed.exports.unit import RECORDS, TABLES
from rs_embed.formats.reading import TableFile
from rs_embed.formats.stack import Stack

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Found = tuple[NDArray[np.intp], NDArray[np.float32]]
"""Positions, best first, and their similarities."""
Mask = NDArray[np.bool_]
_SHOWN = ("id", "row", "center_lon", "center_lat", "start_datetime", "end_datetime")


class Searched(ABC):
    """The rows of a model, identified by position, and how to find the nearest of them."""

    model: ModelFacts | None
    """The model of the rows; `None` if there are no rows."""
    columns: Sequence[str]
    """Columns to filter by."""
    attrs: Mapping[str, object]
    """How the results were found, for the user."""

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> "pa.Table":
        """Return these columns of all rows, in the order of positions."""

    @abstractmethod
    def vector(self, place: int) -> NDArray[np.float32]:
        """Return the vector of a row."""

    @abstractmethod
    def nearest(self, vector: NDArray[np.float32], top: int, only: Mask | None) -> Found:
        """Return the positions of the most similar vectors; only among those in `only`, if given."""


class ScannedRows(Searched):
    """Compares all vectors, one unit at a time. Positions follow the user's order."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.model, self.columns, self.attrs = None, (), {"exact": True}
        if stack.tables:
            header = stack.header
            self.model = ModelFacts(header.model_id, header.card_revision, header.weights or "", header.dim)
            self.columns = columns_of(stack.tables[0])

    def rows(self, columns: Sequence[str]) -> "pa.Table":
        """Read them from the units."""
        return self.stack.joined(columns)

    def vector(self, place: int) -> NDArray[np.float32]:
        """Read it from its unit."""
        only = np.zeros(len(self.stack.order), np.bool_)
        only[place] = True
        vector: NDArray[np.float32] = next(vectors[0] for _, vectors in self.stack.vectors(only))
        return vector

    def nearest(self, vector: NDArray[np.float32], top: int, only: Mask | None) -> Found:
        """Search all units, or those that contain some of `only`."""
        return most_alike(self.stack.vectors(only), vector, len(self.stack.order), top)


class IndexedRows(Searched):
    """Searches the index. Positions follow the order of the units."""

    def __init__(self, index: RunIndex, folder: Path) -> None:
        self.index, self.folder = index, folder
        self.model, self.columns = index.model, index.rows.column_names
        self.attrs = {"exact": False, "recall": index.facts.recall, "index": index.facts.library}

    def rows(self, columns: Sequence[str]) -> "pa.Table":
        """Memory-mapped."""
        return self.index.rows.select(list(columns))

    def vector(self, place: int) -> NDArray[np.float32]:
        """Read it from its unit, as exported."""
        unit, at = self.index.unit_of(place)
        name = f"{TABLES}/{unit}.parquet"
        table = TableFile(self.folder / name, partial(fault_in, self.folder / RECORDS / f"{unit}.json", name))
        vector: NDArray[np.float32] = table.matrix()[at]
        return vector

    def nearest(self, vector: NDArray[np.float32], top: int, only: Mask | None) -> Found:
        """Search the lists that are nearest to it."""
        ids, cosines = self.index.vectors.search(vector[None], min(top, len(self.index.vectors)), only=only)
        there = ids[0] >= 0
        return ids[0][there], cosines[0][there]


def search(searched: Searched, sought: str | int | Embedding, top: int, wanted: Filter) -> "pd.DataFrame":
    """See `Run.similar`."""
    if missing := [name for name in wanted.where if name not in searched.columns]:
        raise SpecError(
            f"Expected columns of the run in where, got {', '.join(missing)}.",
            fix=f"use one of {', '.join(searched.columns)}",
        )
    rows = searched.rows(list(dict.fromkeys([*_SHOWN, "status", *wanted.where])))
    own = None
    if isinstance(sought, Embedding):
        _check_like(sought, searched.model)
        vector = sought.data
    else:
        own = _place_of(rows, sought)
        vector = searched.vector(own)
    only = wanted.mask(rows) if wanted else None
    squares = float(np.einsum("d,d->", vector, vector, dtype=np.float64))
    best: NDArray[np.intp] = np.zeros(0, np.intp)
    likeness = np.zeros(0, np.float32)
    if np.isfinite(squares) and squares > 0 and len(rows):
        best, likeness = searched.nearest(vector, min(top, len(rows)) + 1, only)
    others = np.flatnonzero(best != own)[:top]
    found: pd.DataFrame = _taken(rows, best[others].tolist()).select(list(_SHOWN)).to_pandas()
    found.insert(2, "similarity", likeness[others])
    found = found.sort_values(["similarity", "row"], ascending=[False, True], ignore_index=True)
    found.attrs.update(searched.attrs)
    return found


def _taken(rows: "pa.Table", places: Sequence[int]) -> "pa.Table":
    """Take rows; Arrow's own `take` would first copy all text of a memory-mapped table."""
    import pyarrow as pa

    return pa.concat_tables([rows.slice(place, 1) for place in places] or [rows.slice(0, 0)])


def _place_of(rows: "pa.Table", name: str | int) -> int:
    """Return the position of an id's row: of several, the first in the user's table that did not fail."""
    import pyarrow.compute as pc

    if isinstance(name, bool) or not isinstance(name, str | int | np.integer):
        raise SpecError(
            f"Expected an id of the table or an Embedding, got {type(name).__name__}.",
            fix="for a bare vector: rs_embed.embedding.similarity.cosine(run.matrix(), vector)",
        )
    places = np.flatnonzero(pc.equal(rows["id"], str(name)).to_numpy())
    mine = _taken(rows.select(["row", "status"]), places.tolist()).to_pylist()
    done = [(one["row"], place) for one, place in zip(mine, places.tolist(), strict=True) if one["status"] == "ok"]
    if done:
        return min(done)[1]
    fix = "look at Run.failures()" if mine else "look at Run.to_frame()['id']"
    if not isinstance(name, str) and len(rows):
        for place in np.flatnonzero(pc.equal(rows["row"], int(name)).to_numpy()).tolist():
            fix = f"ids are text, and row {name} has the id {rows['id'][place].as_py()!r}"
    raise SpecError(
        f"Expected a row with the id {str(name)!r} and an embedding, got none among {len(rows)} rows.", fix=fix
    )


def _check_like(one: Embedding, model: ModelFacts | None) -> None:
    """Raise an error if an embedding cannot be compared with the vectors of a run."""
    if one.is_grid:
        raise SpecError("Expected a vector, got a grid.", fix="embed the place with output=OutputSpec.pooled()")
    if model is not None:
        mine = ModelFacts.of(one)
        known = ModelFacts(model.model_id, model.card_revision, model.weights or mine.weights, model.dim)
        require_same_model(mine, known, "run")
