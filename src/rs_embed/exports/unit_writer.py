"""Write the results of a unit: grids to files at once, everything else to one table at each checkpoint."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rs_embed.core.atomic import make_folder, part_of, remove, replacing
from rs_embed.core.resources import require_room
from rs_embed.embedding.batch import Result
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import RSEmbedError
from rs_embed.exports.records import Record, Stamp, UnitStore, rows_in_order
from rs_embed.exports.region.grid import MapGrid
from rs_embed.exports.unit import WorkUnit
from rs_embed.exports.unit_tables import merge_units
from rs_embed.formats.base import Row, RunHeader
from rs_embed.formats.files import format_named
from rs_embed.formats.table import write_index, write_table
from rs_embed.pipeline.plan import Job
from rs_embed.places.columns import Place
from rs_embed.redact import redacted

_SLUG_CHARS = 40
"""Longest part of an id in a file name; the row number before it makes the name unique."""


@dataclass(frozen=True)
class ModelExport:
    """One model of an export."""

    job: Job
    header: RunHeader
    store: UnitStore
    region: MapGrid | None = None
    """For a map: tokens outside of its region have no value."""


class UnitSink:
    """Takes the results of one unit of one model.

    A result that was `put` can be stored once it is settled, and is safe once it is stored; the caller decides when.
    """

    def __init__(self, model: ModelExport, unit: WorkUnit, grid_format: str | None, record: Record | None) -> None:
        """Begin or resume a unit.

        Args:
            model: The model.
            unit: The unit.
            grid_format: Format of grids; `None` for vectors.
            record: The state of the unit, as `UnitStore.read` returned it.
        """
        self.model = model
        self._unit = unit
        self._grid_format = grid_format
        self.record: Record = model.store.begin(unit) if record is None else record
        """The record of what is stored."""
        self._rows: dict[int, Row] = {}
        self._hrefs: dict[int, str] = {}
        self._grids: dict[int, dict[str, Stamp]] = {}
        self._settled: dict[int, Row] = {}

    def put(self, place: Place, outcome: Result) -> None:
        """Take one result. A grid is written at once; only its metadata stay in memory."""
        embedding, error, stage = None, None, None
        if not isinstance(outcome, Embedding):
            error, stage = _said(outcome.error), outcome.stage
        elif self._grid_format is None:
            embedding = outcome
        else:
            files = self._write_grid(place, outcome, self._grid_format)
            first = self.model.store.folder / next(iter(files))
            self._hrefs[place.index] = os.path.relpath(first, self.model.store.table(self._unit).parent)
            self._grids[place.index] = files
            embedding = replace(outcome, data=np.zeros((outcome.data.shape[0], 0, 0), np.float32))
        self._rows[place.index] = Row(
            place.index, place.id, place.spatial, place.window, embedding, error, stage, place.kept
        )

    def _write_grid(self, place: Place, embedding: Embedding, grid_format: str) -> dict[str, Stamp]:
        """The files that hold the tokens, by path inside the model's folder."""
        store = self.model.store
        if self.model.region is not None:
            embedding = self.model.region.masked(embedding)
        if store.tiles is not None:
            return store.tiles.write(store.folder, place.index, embedding)
        folder, chosen = store.grids(self._unit), format_named(grid_format)
        make_folder(folder)
        require_room(folder, chosen.room(embedding))
        path = folder / f"{stem_of(place)}{chosen.suffix}"
        with replacing(path) as part:
            chosen.write(embedding, part)
            stamp = Stamp.of(part)
            if path.is_dir():  # from an earlier try
                remove(path)
        return {store.name(path): stamp}

    def settle(self) -> None:
        """Mark everything put so far as ready to be stored."""
        self._settled |= self._rows
        self._rows = {}

    def store(self) -> None:
        """Write settled results into the table and the record, if there are new ones."""
        settled = self._settled
        done = {row for row, one in settled.items() if one.embedding is not None}
        if not done and settled.keys() <= set(self.record.failed):
            self._settled = {}
            return
        before, store = self.record, self.model.store
        failed = rows_in_order(self._unit, (settled.keys() | set(before.failed)) - done)
        missing = tuple(row for row in before.missing if row not in settled)
        table = store.table(self._unit)
        part = part_of(table)
        store.make_folders()
        self._write_table(part, [settled[row] for row in rows_in_order(self._unit, settled)])
        if before.rows > len(before.missing):
            merged = part_of(table.with_name(f"merged-{table.name}"))
            merge_units(table, part, merged, rows_in_order(self._unit, set(self._unit.rows.tolist()) - set(missing)))
            os.replace(merged, part)
        files = {name: stamp for name, stamp in before.files.items() if name != store.name(table)}
        for row in done & self._grids.keys():
            files |= self._grids[row]
        update = {"ok": before.rows - len(failed) - len(missing), "failed": failed, "missing": missing, "files": files}
        fresh = store.begin(self._unit)
        self.record = store.put(self._unit, part, fresh.model_copy(update=update))
        self._settled = {}  # not earlier: after an interrupt, the caller may try again

    def _write_table(self, path: Path, rows: Sequence[Row]) -> None:
        header = self.model.header
        if self._grid_format is None:
            write_table(path, rows, header)
        else:
            write_index(path, rows, header, [self._hrefs.get(row.index) for row in rows])


def _said(error: Exception) -> str:
    """Describe an error in one line."""
    text = error.headline if isinstance(error, RSEmbedError) else str(error)
    return redacted(f"{type(error).__name__}: {' '.join(text.split())}")


def stem_of(place: Place) -> str:
    """Return the prefix of a row's file names; the row number makes it unique."""
    return f"{place.index:09d}{slug(place.id)}"


def slug(name: str) -> str:
    """Return an id as part of a file name: `-` and its ASCII letters, digits, dots and dashes; "" if none is left."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in name)
    short = "-".join(part for part in kept.split("-") if part)[:_SLUG_CHARS]
    return f"-{short}" if short else ""
