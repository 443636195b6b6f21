"""The main loop of an export: fetch, encode, write and record each unit, and never redo what is finished."""

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
"""Called after each row with the number of rows done since the last call, and how many of them failed."""
Keep = Callable[[Sequence[str], Sequence[Workload]], None]
"""Called before workloads run, with the prefix of each item's file names."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Work:
    """Everything needed to do units, except their rows. Each process makes its own."""

    folder: Path
    models: tuple[ModelExport, ...]
    """All models use the same provider."""
    grid_format: str | None
    """Name of the grid format; `None` for vectors."""
    on_error: OnError = "keep"
    readers: tuple[Callable[[Provider], PlannedProvider], ...] = ()
    """Wrappers of the provider, the innermost first; made for each unit."""
    verify: bool = False
    """Whether every byte of finished files is compared with the records, not only the sizes."""
    checkpoint_s: float = LibrarySettings.model_fields["checkpoint_s"].default
    """Seconds between checkpoints."""
    stored: Callable[[], None] = _nothing
    """Called when files of the unit have changed, except while an error is being raised."""
    sparing: bool = False
    """Whether only as many rows are fetched ahead as the models need: the large blocks of a map."""


@dataclass(frozen=True, eq=False)
class Task:
    """One unit with its rows: all that is sent to a worker."""

    unit: WorkUnit
    places: Places
    """The rows of the unit, in its order."""


def run_unit(work: Work, task: Task, advance: Advance) -> None:
    """Do the part of one unit that is not finished. The result depends only on the work and the task.

    Results are stored every `work.checkpoint_s` seconds, and always at the end, also after an error.

    Raises:
        StorageError: The disk fails; raised at once, not once per row.
        RSEmbedError: The first failed row, with `on_error="raise"`.
    """
    for rows, sinks in _passes(_sinks(work, task.unit, advance)):
        places = _rows_of(task, rows)
        jobs, keep = _with_readers(work, task.unit, [sink.model.job for sink in sinks])
        # `outcomes` is closed first: an error at one row ends the fetches of the others.
        with (
            _stored(work, sinks) as settle,
            closing(_outcomes(jobs, places, keep, settle, sparing=work.sparing)) as outcomes,
        ):
            for which, position, outcome in outcomes:
                if not isinstance(outcome, Embedding):
                    _stop_at(outcome.error, work)
                with storing(work.folder):
                    sinks[which].put(places[position], outcome)
                advance(1, int(not isinstance(outcome, Embedding)))


def give_up(error: RSEmbedError, work: Work, task: Task, advance: Advance) -> None:
    """Record rows that no worker could do as failed with this error; finished rows stay as they are."""
    for rows, sinks in _passes(_sinks(work, task.unit, advance)):
        _stop_at(error, work)
        with _stored(work, sinks):
            for sink in sinks:
                for place in _rows_of(task, rows):
                    sink.put(place, Failure(place.index, "worker", error))
                    advance(1, 1)


def _sinks(work: Work, unit: WorkUnit, advance: Advance) -> list[UnitSink]:
    """Return one sink per model, which starts from what is already done."""
    sinks = []
    with storing(work.folder):
        for model in work.models:
            record = model.store.read(unit, verify=work.verify)
            model.store.clean(unit, record)
            sinks.append(UnitSink(model, unit, work.grid_format, record))
            advance(sinks[-1].record.ok, 0)
    return sinks


def _passes(sinks: Sequence[UnitSink]) -> list[tuple[tuple[int, ...], list[UnitSink]]]:
    """Group row numbers that are to be done together, each with the sinks that lack exactly these rows.

    Rows that were not tried yet come first and by themselves. So they form the same batches, and give the same bits,
    as if the export had not been interrupted.
    """
    untried: dict[tuple[int, ...], list[UnitSink]] = {}
    failed: dict[tuple[int, ...], list[UnitSink]] = {}
    for sink in sinks:
        untried.setdefault(sink.record.missing, []).append(sink)
        failed.setdefault(sink.record.failed, []).append(sink)
    return [(rows, group) for rows, group in [*untried.items(), *failed.items()] if rows]


@contextmanager
def _stored(work: Work, sinks: Sequence[UnitSink]) -> Iterator[Callable[[], None]]:
    """Store results at checkpoints, at the end, and also after an error or interrupt.

    Yields a function to call at the end of each batch. Results of an unfinished batch are not stored, so that the same
    rows are batched together when they are redone.
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
        with suppress(RSEmbedError):  # report the first error, not what follows from it
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
    """Wrap the provider of the jobs, and return the function that announces coming requests."""
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
    jobs: Sequence[Job], places: Places, keep: Keep | None, settle: Callable[[], None], *, sparing: bool
) -> Generator[tuple[int, int, Result]]:
    """Yield (model, place, result) of every place for every model; invalid rows fail at "plan"."""
    asked = list(places)
    bad = [_unplanned(job, asked) for job in jobs]
    for which, failures in enumerate(bad):
        yield from ((which, position, failure) for position, failure in failures.items())
    shared = [position for position in range(len(asked)) if not any(position in failures for failures in bad)]
    run = partial(_run, asked=asked, keep=keep, settle=settle, sparing=sparing)
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
    sparing: bool,
) -> Generator[tuple[int, int, Result]]:
    if not positions:
        return
    from rs_embed.pipeline.run import run_together  # loads torch

    works = [_laid(job, [asked[at] for at in positions]) for job in jobs]
    if keep is not None:
        keep([stem_of(asked[at]) for at in positions], works)
    with closing(run_together(works, between=settle, sparing=sparing)) as done:
        for index, results in done:
            for which, result in zip(names, results, strict=True):
                yield which, positions[index], result


def _laid(job: Job, asked: Sequence[Place]) -> Workload:
    return plan_items(job, [place.spatial for place in asked], [place.window for place in asked])


def _unplanned(job: Job, asked: Sequence[Place]) -> dict[int, Failure]:
    """Find places without a valid plan; they are searched one by one only if there are any."""
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
    """Raise errors that end an export: any error with on_error="raise", and always a full disk."""
    if work.on_error == "raise" or isinstance(error, StorageError):
        raise error
    if isinstance(error, OSError) and is_about_space(error):
        raise storage_error(work.folder, error) from error
