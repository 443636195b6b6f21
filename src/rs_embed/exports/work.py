"""The long job: unit after unit is fetched, encoded, written and recorded, and what is finished is never done again."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rs_embed.core.atomic import storage_error, storing
from rs_embed.core.resources import is_about_space
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedding.batch import Result
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import Failure, RSEmbedError, SpecError, StorageError
from rs_embed.exports.fetching.reader import PlannedProvider, planned_fetches
from rs_embed.exports.unit import WorkUnit
from rs_embed.exports.unit_writer import ModelExport, UnitSink, stem_of
from rs_embed.pipeline.plan import Job, Workload, plan_items
from rs_embed.places.columns import Place, Places
from rs_embed.providers.base import Provider

OnError = Literal["keep", "raise"]
Advance = Callable[[int, int], None]
"""Told after each row: how many were done, and how many of them failed."""
Keep = Callable[[Sequence[str], Sequence[Workload]], None]
"""Told before workloads are run what the names of each item's files begin with."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Work:
    """What decides how units are done, but for their rows. Made again in every process that does some."""

    folder: Path
    models: tuple[ModelExport, ...]
    """All with the same provider."""
    grid_format: str | None
    """Its name; `None` for vectors."""
    on_error: OnError = "keep"
    readers: tuple[Callable[[Provider], PlannedProvider], ...] = ()
    """What stands between the models and their provider, the innermost first; made for each unit."""
    verify: bool = False
    """Whether every byte of what is finished is compared with its record, and not only sizes."""
    checkpoint_s: float = LibrarySettings.model_fields["checkpoint_s"].default
    """After so many seconds what is done of a unit is stored."""
    stored: Callable[[], None] = _nothing
    """Told when files of the unit have changed, but not on the way out of an error."""


@dataclass(frozen=True, eq=False)
class Task:
    """One unit with its rows: all that has to travel."""

    unit: WorkUnit
    places: Places
    """The rows of the unit, in its order."""


def run_unit(work: Work, task: Task, advance: Advance) -> None:
    """Do what is missing of one unit: a function of the work and the task, whatever was done before.

    What is done is stored after each `work.checkpoint_s` seconds, and in any case on the way out.

    Raises:
        StorageError: The disk refuses; at once, not once a row.
        RSEmbedError: That of the first failed row, with `on_error="raise"`.
    """
    for rows, sinks in _passes(_sinks(work, task.unit, advance)):
        places = _rows_of(task, rows)
        jobs, keep = _with_readers(work, task.unit, [sink.model.job for sink in sinks])
        # Closed first: an error at one row ends the fetches of the others.
        with _stored(work, sinks) as settle, closing(_outcomes(jobs, places, keep, settle)) as outcomes:
            for which, position, outcome in outcomes:
                if not isinstance(outcome, Embedding):
                    _stop_at(outcome.error, work)
                with storing(work.folder):
                    sinks[which].put(places[position], outcome)
                advance(1, int(not isinstance(outcome, Embedding)))


def give_up(error: RSEmbedError, work: Work, task: Task, advance: Advance) -> None:
    """Record rows that no worker could do as failed, with that error; rows that are done stay as they are."""
    for rows, sinks in _passes(_sinks(work, task.unit, advance)):
        _stop_at(error, work)
        with _stored(work, sinks):
            for sink in sinks:
                for place in _rows_of(task, rows):
                    sink.put(place, Failure(place.index, "worker", error))
                    advance(1, 1)


def _sinks(work: Work, unit: WorkUnit, advance: Advance) -> list[UnitSink]:
    """Where the outcomes of each model go, beginning with what is done already."""
    sinks = []
    with storing(work.folder):
        for model in work.models:
            record = model.store.read(unit, verify=work.verify)
            model.store.clean(unit, record)
            sinks.append(UnitSink(model, unit, work.grid_format, record))
            advance(sinks[-1].record.ok, 0)
    return sinks


def _passes(sinks: Sequence[UnitSink]) -> list[tuple[tuple[int, ...], list[UnitSink]]]:
    """Row numbers that are to be done together, and the sinks that lack just these.

    Rows that were not tried yet come first and by themselves: so they are in the same batches, and have the same
    bits, as if nobody had stopped the export between them.
    """
    untried: dict[tuple[int, ...], list[UnitSink]] = {}
    failed: dict[tuple[int, ...], list[UnitSink]] = {}
    for sink in sinks:
        untried.setdefault(sink.record.missing, []).append(sink)
        failed.setdefault(sink.record.failed, []).append(sink)
    return [(rows, group) for rows, group in [*untried.items(), *failed.items()] if rows]


@contextmanager
def _stored(work: Work, sinks: Sequence[UnitSink]) -> Iterator[Callable[[], None]]:
    """Store what is done: now and then, at the end, and also if there is an error or somebody stops it.

    Gives what is to be called where a batch ends. Of a batch that is not ended nothing is kept, so that the same rows
    are together in it when it is done again.
    """
    due = time.monotonic() + work.checkpoint_s

    def store() -> None:
        with storing(work.folder):
            for sink in sinks:
                sink.store()

    def settle() -> None:
        nonlocal due
        for sink in sinks:
            sink.settle()
        if time.monotonic() >= due:
            store()
            work.stored()
            due = time.monotonic() + work.checkpoint_s

    try:
        yield settle
    except BaseException:
        with suppress(RSEmbedError):  # what ends it is told, not what follows from it
            store()
        raise
    for sink in sinks:
        sink.settle()
    store()
    work.stored()


def _rows_of(task: Task, rows: Sequence[int]) -> Places:
    at = {row: position for position, row in enumerate(task.unit.rows.tolist())}
    return task.places.take([at[row] for row in rows])


def _with_readers(work: Work, unit: WorkUnit, jobs: Sequence[Job]) -> tuple[list[Job], Keep | None]:
    """The jobs with all that stands between them and the provider, and who is to be told what will be asked."""
    if not work.readers:
        return list(jobs), None
    first, *others = work.readers
    outermost = first(jobs[0].provider)
    for reader in others:
        outermost = reader(outermost)

    def keep(stems: Sequence[str], works: Sequence[Workload]) -> None:
        outermost.announce(unit.name, planned_fetches(stems, works))

    return [replace(job, provider=outermost) for job in jobs], keep


def _outcomes(
    jobs: Sequence[Job], places: Places, keep: Keep | None, settle: Callable[[], None]
) -> Generator[tuple[int, int, Result]]:
    """(model, place, outcome) of every place for every model; invalid rows fail at "plan"."""
    asked = list(places)
    bad = [_unplanned(job, asked) for job in jobs]
    for which, failures in enumerate(bad):
        yield from ((which, position, failure) for position, failure in failures.items())
    shared = [position for position in range(len(asked)) if not any(position in failures for failures in bad)]
    run = partial(_run, asked=asked, keep=keep, settle=settle)
    yield from run(range(len(jobs)), jobs, shared)
    for which, job in enumerate(jobs):
        alone = [at for at in range(len(asked)) if at not in bad[which] and any(at in failures for failures in bad)]
        yield from run([which], [job], alone)


def _run(
    names: Sequence[int],
    jobs: Sequence[Job],
    positions: Sequence[int],
    *,
    asked: Sequence[Place],
    keep: Keep | None,
    settle: Callable[[], None],
) -> Generator[tuple[int, int, Result]]:
    if not positions:
        return
    from rs_embed.pipeline.run import run_together  # loads torch

    works = [_laid(job, [asked[at] for at in positions]) for job in jobs]
    if keep is not None:
        keep([stem_of(asked[at]) for at in positions], works)
    with closing(run_together(works, between=settle)) as done:
        for index, results in done:
            for which, result in zip(names, results, strict=True):
                yield which, positions[index], result


def _laid(job: Job, asked: Sequence[Place]) -> Workload:
    return plan_items(job, [place.spatial for place in asked], [place.window for place in asked])


def _unplanned(job: Job, asked: Sequence[Place]) -> dict[int, Failure]:
    """Places that have no plan; found one by one only where there are any."""
    try:
        _laid(job, asked)
    except SpecError:
        failures = {}
        for position, place in enumerate(asked):
            try:
                _laid(job, [place])
            except SpecError as error:
                failures[position] = Failure(place.index, "plan", error)
        return failures
    return {}


def _stop_at(error: Exception, work: Work) -> None:
    """Raise what ends an export: any error if so asked, and a full disk always, as the next row would fail alike."""
    if work.on_error == "raise" or isinstance(error, StorageError):
        raise error
    if isinstance(error, OSError) and is_about_space(error):
        raise storage_error(work.folder, error) from error
