"""The long job: unit after unit is fetched, encoded, written and recorded, and what is finished is never done again."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rs_embed._room import is_about_space
from rs_embed.embedding import Embedding
from rs_embed.errors import SpecError, StorageError
from rs_embed.pipeline.durable import remove, storage_error, storing
from rs_embed.pipeline.inputs import InputKeeper
from rs_embed.pipeline.plan import Job, Plan, plan_items
from rs_embed.pipeline.unit_sink import ModelExport, Outcome, UnitSink, Unplanned, stem_of
from rs_embed.pipeline.units import Unit, Units
from rs_embed.places.columns import Place, Places
from rs_embed.writers.base import GridFormat
from rs_embed.writers.reading import TableFile
from rs_embed.writers.stac import items_of, write_stac

OnError = Literal["keep", "raise"]
Advance = Callable[[int, int], None]
"""Told after each row: how many were done, and how many of them failed."""
Keep = Callable[[Sequence[str], Sequence[Plan]], None]
"""Told before plans are run what the names of each item's files begin with."""
COLLECTION = "collection.json"
MAX_ITEMS = 100_000
"""More grids than this get no catalog: a file for each of a million helps nobody, and the tables list them."""


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
    inputs: InputKeeper | None = None
    """The provider of all models, where chips are to be kept."""


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
            sinks = [UnitSink(model, unit, export.grid_format) for model in models]
        places = export.places.take(rows)
        keep = None if export.inputs is None else partial(export.inputs.expect, unit.name)
        for which, position, outcome in _outcomes([model.job for model in models], places, keep):
            if not isinstance(outcome, Embedding):
                _stop_at(outcome.error, export)
            with storing(export.folder):
                sinks[which].put(places[position], outcome)
            advance(1, int(not isinstance(outcome, Embedding)))
        with storing(export.folder):
            written += [model for model, sink in zip(models, sinks, strict=True) if sink.close() is not None]
    return written


def _outcomes(jobs: Sequence[Job], places: Places, keep: Keep | None) -> Iterator[tuple[int, int, Outcome]]:
    """(model, place, outcome) of every place for every model; rows that cannot be meant fail at "plan"."""
    asked = list(places)
    bad = [_unplanned(job, asked) for job in jobs]
    for which, failures in enumerate(bad):
        yield from ((which, position, failure) for position, failure in failures.items())
    shared = [position for position in range(len(asked)) if not any(position in failures for failures in bad)]
    run = partial(_run, asked=asked, keep=keep)
    yield from run(range(len(jobs)), jobs, shared)
    for which, job in enumerate(jobs):
        alone = [at for at in range(len(asked)) if at not in bad[which] and any(at in failures for failures in bad)]
        yield from run([which], [job], alone)


def _run(
    names: Sequence[int], jobs: Sequence[Job], positions: Sequence[int], *, asked: Sequence[Place], keep: Keep | None
) -> Iterator[tuple[int, int, Outcome]]:
    if not positions:
        return
    from rs_embed.pipeline.run import run_together  # loads torch

    plans = [_plan(job, [asked[at] for at in positions]) for job in jobs]
    if keep is not None:
        keep([stem_of(asked[at]) for at in positions], plans)
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


def _stop_at(error: Exception, export: Export) -> None:
    """Raise what ends an export: any error if so asked, and a full disk always, as the next row would fail alike."""
    if export.on_error == "raise" or isinstance(error, StorageError):
        raise error
    if isinstance(error, OSError) and is_about_space(error):
        raise storage_error(export.folder, error) from error
