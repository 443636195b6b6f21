"""The long job: unit after unit is fetched, encoded, written and recorded, and what is finished is never done again."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from rs_embed._place_columns import Place, Places
from rs_embed.embedding import Embedding
from rs_embed.errors import RSEmbedError, SpecError, StorageError
from rs_embed.pipeline.durable import (
    is_about_space,
    make_folder,
    part_of,
    publish,
    remove,
    remove_parts,
    require_room,
    storing,
)
from rs_embed.pipeline.journal import Record, UnitStore
from rs_embed.pipeline.plan import Job, Plan, plan_items
from rs_embed.pipeline.unit_tables import merge_units
from rs_embed.pipeline.units import Unit, Units
from rs_embed.writers.base import SUFFIX, GridFormat, Row, RunHeader
from rs_embed.writers.grids import write_grid
from rs_embed.writers.reading import TableFile
from rs_embed.writers.stac import items_of, write_stac
from rs_embed.writers.table import write_index, write_table

OnError = Literal["keep", "raise"]
Advance = Callable[[int, int], None]
"""Told after each row: how many were done, and how many of them failed."""
COLLECTION = "collection.json"
MAX_ITEMS = 100_000
"""More grids than this get no catalog: a file for each of a million helps nobody, and the tables list them."""
_SLUG_CHARS = 40
"""Of an id in a file's name; the row number before it is what makes the name unique."""


class Failed(Protocol):
    """What the pipeline says of a row that could not be done."""

    @property
    def stage(self) -> str: ...  # noqa: D102

    @property
    def error(self) -> Exception: ...  # noqa: D102


@dataclass(frozen=True)
class Unplanned:
    """A row that cannot be meant for this model: too small for a pixel, too wide for a zone."""

    error: Exception
    stage: str = "plan"


Outcome = Embedding | Failed


@dataclass(frozen=True)
class ModelExport:
    """One model of an export."""

    job: Job
    header: RunHeader
    store: UnitStore


@dataclass(frozen=True)
class Export:
    """Everything that decides what an export does."""

    folder: Path
    places: Places
    units: Units
    models: tuple[ModelExport, ...]
    grid_format: GridFormat | None
    """`None` for vectors."""
    on_error: OnError = "keep"


def run_export(export: Export, advance: Advance) -> None:
    """Do what is missing of every unit.

    Raises:
        StorageError: The disk refuses; at once, not once a row.
        RSEmbedError: That of the first failed row, with `on_error="raise"`.
    """
    changed = {model.store.folder: False for model in export.models}
    for unit in export.units:
        for model in run_unit(export, unit, advance):
            changed[model.store.folder] = True
    with storing(export.folder):
        for model in export.models:
            too_many = export.grid_format is not None and len(export.places) > MAX_ITEMS
            if not too_many and (changed[model.store.folder] or not _has_catalog(model.store.folder)):
                _write_catalog(model, export.units)


def _has_catalog(folder: Path) -> bool:
    """Whether the collection, which is written last, is whole."""
    try:
        json.loads((folder / COLLECTION).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True


def _write_catalog(model: ModelExport, units: Units) -> None:
    """STAC beside the data: an item for each table of vectors, or for each grid."""
    folder = model.store.folder
    remove(folder / COLLECTION)
    tables = [model.store.table(unit) for unit in units]
    write_stac(folder, TableFile(tables[0]).meta, [item for table in tables for item in items_of(table, folder)])


def run_unit(export: Export, unit: Unit, advance: Advance) -> list[ModelExport]:
    """Do what is missing of one unit: a function of the export and the unit, whatever was done before.

    Returns:
        The models of which a file was written.
    """
    written = []
    groups: dict[tuple[int, ...], list[ModelExport]] = {}
    with storing(export.folder):
        for model in export.models:
            record = model.store.read(unit)
            model.store.clean(unit, record)
            missing = model.store.missing(unit, record)
            advance(len(unit.rows) - len(missing), 0)
            if missing:
                groups.setdefault(missing, []).append(model)
    for rows, models in groups.items():
        with storing(export.folder):
            sinks = [_UnitSink(model, unit, export.grid_format) for model in models]
        places = export.places.take(rows)
        for which, position, outcome in _outcomes([model.job for model in models], places):
            if not isinstance(outcome, Embedding) and (export.on_error == "raise" or _is_disk(outcome.error)):
                raise outcome.error
            with storing(export.folder):
                sinks[which].put(places[position], outcome)
            advance(1, int(not isinstance(outcome, Embedding)))
        with storing(export.folder):
            written += [model for model, sink in zip(models, sinks, strict=True) if sink.close() is not None]
    return written


def _outcomes(jobs: Sequence[Job], places: Places) -> Iterator[tuple[int, int, Outcome]]:
    """(model, place, outcome) of every place for every model; rows that cannot be meant fail at "plan"."""
    asked = list(places)
    bad = [_unplanned(job, asked) for job in jobs]
    for which, failures in enumerate(bad):
        yield from ((which, position, failure) for position, failure in failures.items())
    shared = [position for position in range(len(asked)) if not any(position in failures for failures in bad)]
    yield from _run(range(len(jobs)), jobs, asked, shared)
    for which, job in enumerate(jobs):
        alone = [at for at in range(len(asked)) if at not in bad[which] and any(at in failures for failures in bad)]
        yield from _run([which], [job], asked, alone)


def _run(
    names: Sequence[int], jobs: Sequence[Job], asked: Sequence[Place], positions: Sequence[int]
) -> Iterator[tuple[int, int, Outcome]]:
    if not positions:
        return
    from rs_embed.pipeline.run import run_together  # loads torch

    plans = [_plan(job, [asked[at] for at in positions]) for job in jobs]
    for index, results in run_together(plans):
        for which, result in zip(names, results, strict=True):
            yield which, positions[index], result


def _plan(job: Job, asked: Sequence[Place]) -> Plan:
    return plan_items(job, [place.spatial for place in asked], [place.window for place in asked])


def _unplanned(job: Job, asked: Sequence[Place]) -> dict[int, Unplanned]:
    """Places that have no plan; found one by one only where there are any."""
    try:
        _plan(job, asked)
    except SpecError:
        failures = {}
        for position, place in enumerate(asked):
            try:
                _plan(job, [place])
            except SpecError as error:
                failures[position] = Unplanned(error)
        return failures
    return {}


class _UnitSink:
    """Where the outcomes of a unit go: grids to files at once, everything else to one table at the end."""

    def __init__(self, model: ModelExport, unit: Unit, grid_format: GridFormat | None) -> None:
        self._model, self._unit, self._format = model, unit, grid_format
        self._rows: dict[int, Row] = {}
        self._hrefs: dict[int, str] = {}
        make_folder(model.store.table(unit).parent)
        remove_parts(model.store.table(unit).parent)

    def put(self, place: Place, outcome: Outcome) -> None:
        """Take one outcome; of a grid only the metadata are kept in memory."""
        embedding, error, stage = None, None, None
        if not isinstance(outcome, Embedding):
            error, stage = _said(outcome.error), outcome.stage
        elif self._format is None:
            embedding = outcome
        else:
            self._hrefs[place.index] = self._write_grid(place, outcome, self._format)
            embedding = replace(outcome, data=np.zeros((outcome.data.shape[0], 0, 0), np.float32))
        self._rows[place.index] = Row(place.index, place.id, place.spatial, place.window, embedding, error, stage)

    def _write_grid(self, place: Place, embedding: Embedding, grid_format: GridFormat) -> str:
        folder = self._model.store.grids(self._unit)
        make_folder(folder)
        require_room(folder, 2 * embedding.data.nbytes)
        path = folder / f"{place.index:09d}{slug(place.id)}{SUFFIX[grid_format]}"
        part = part_of(path)
        remove(part)
        written = write_grid(part.with_name(part.name.removesuffix(SUFFIX[grid_format])), embedding, grid_format)
        publish(written, path)
        return os.path.relpath(path, self._model.store.table(self._unit).parent)

    def close(self) -> Record | None:
        """Put the table and the record in place; `None` if nothing that was retried could be done."""
        before = self._model.store.read(self._unit)
        rows = [self._rows[row] for row in self._unit.rows.tolist() if row in self._rows]
        if before is not None and all(row.embedding is None for row in rows):
            return None
        table = self._model.store.table(self._unit)
        part = part_of(table)
        self._write_table(part, rows)
        failed = [row.index for row in rows if row.embedding is None]
        grids = [table.parent / href for href in self._hrefs.values()]
        if before is not None and before.ok:
            merged = part_of(table.with_name(f"merged-{table.name}"))
            merge_units(table, part, merged)
            os.replace(merged, part)
            grids += [self._model.store.folder / name for name in before.files if name.startswith("grids/")]
        publish(part, table)
        return self._model.store.finish(self._unit, failed, sorted(grids))

    def _write_table(self, path: Path, rows: Sequence[Row]) -> None:
        dims = (row.embedding.data.shape[0] for row in rows if row.embedding is not None)
        header = replace(self._model.header, dim=next(dims, self._model.header.dim))
        if self._format is None:
            write_table(path, rows, header)
        else:
            write_index(path, rows, header, [self._hrefs.get(row.index) for row in rows])


def _is_disk(error: Exception) -> bool:
    """Whether the next row would fail alike: the chip cache or a temporary file found no room."""
    return isinstance(error, StorageError) or (isinstance(error, OSError) and is_about_space(error))


def _said(error: Exception) -> str:
    """What went wrong, in one line."""
    text = error.headline if isinstance(error, RSEmbedError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}"


def slug(name: str) -> str:
    """An id as a part of a file's name: ASCII letters, digits, dot and dash; `-` before it, nothing if none is left."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in name)
    short = "-".join(part for part in kept.split("-") if part)[:_SLUG_CHARS]
    return f"-{short}" if short else ""
