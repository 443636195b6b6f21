"""Run workloads: fetch ahead, encode in batches, and read out in the order of the items."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from itertools import islice
from typing import cast

import torch

from rs_embed.core.progress import stage
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.stopping import Stop, Threads, current, outcome
from rs_embed.embedders.base import Embedder, ModelInput
from rs_embed.embedding.batch import Result
from rs_embed.encoders.tokens import TokenLayout, Tokens
from rs_embed.errors import Failure, OutOfMemory, RSEmbedError
from rs_embed.pipeline.batching import BatchSizes, MemoryOf, memory_of, out_of_memory
from rs_embed.pipeline.fetching import chip_threads
from rs_embed.pipeline.pace import Pace
from rs_embed.pipeline.plan import Item, Job, Workload
from rs_embed.pipeline.prepare import COPIES, prepare_together
from rs_embed.pipeline.readout import Prepared, read_out

_ENCODED: set[str] = set()
"""Types of the devices on which this process has encoded."""


def _one_thread_after_fork() -> None:
    """Use one thread in a forked process: GNU OpenMP hangs there if the parent has run it in parallel.

    torch's DataLoader does the same for its workers; this covers users who fork themselves.
    """
    if "cpu" in _ENCODED:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_one_thread_after_fork)

Place = tuple[Item, ...]
"""One item for each workload."""
Outcome = tuple[Prepared | Failure, ...]
"""What preparing one place gave, for each workload."""
OneEncoded = tuple[torch.Tensor, TokenLayout] | Exception
"""Tokens `[N, D]` of one network input, or why there are none."""


def run(work: Workload) -> Generator[tuple[int, Result]]:
    """Yield embeddings and failures in the order of the items; see `run_together`."""
    with closing(run_together([work])) as results:
        for index, (result,) in results:
            yield index, result


def run_together(
    works: Sequence[Workload],
    memory: MemoryOf = memory_of,
    between: Callable[[], None] = lambda: None,
    settings: LibrarySettings | None = None,
    *,
    sparing: bool = False,
) -> Generator[tuple[int, tuple[Result, ...]]]:
    """Yield the results of each place in order, one per workload. Imagery that several workloads need is fetched once.

    Memory use does not depend on the number of items: it is the items in flight, as many as `RS_EMBED_MEMORY_GB` allows
    (at least one), plus the inputs of one batch. If the iterator ends early, by an interrupt or by being closed,
    nothing more is fetched and downloads in progress are abandoned.

    Args:
        works: Workloads for the same places in the same order.
        memory: Gives the memory by which batches are sized.
        between: Called after each batch, once all of its results are consumed. A run that starts at that item forms
            the same batches.
        settings: The settings of the call; `None` reads them from the environment.
        sparing: Fetch only as many places ahead as the encoder needs, however many fit, and encode them one by one: for
            large places.
    """
    for work in works:
        _ENCODED.add(work.job.embedder.device.type)
        work.job.embedder.load()  # before any fetch, so that missing weights fail early
    settings = settings or LibrarySettings.read()
    places = list(zip(*(work.items for work in works), strict=True))
    room = _affordable(places, settings.memory_gb)
    sizes = [BatchSizes(memory(work.job.embedder.device), settings.batch) for work in works]
    waiting: list[Outcome] = []
    windows = 0
    coming = _prepared(
        places, [work.job for work in works], lambda: max(size.goal for size in sizes), room, sparing=sparing
    )
    with closing(coming):  # close it at once: the traceback of an error would keep it alive, and fetching
        for outcome in coming:
            waiting.append(outcome)
            windows += max(0 if isinstance(one, Failure) else len(one.inputs) for one in outcome)
            del outcome  # it may be large, and the next one is awaited
            if sparing or max(windows, len(waiting)) >= min(room, *(size.goal for size in sizes)):
                yield from _encode_all(waiting, works, sizes)
                waiting, windows = [], 0
                between()
    yield from _encode_all(waiting, works, sizes)
    between()


def _prepared(
    places: Sequence[Place], jobs: Sequence[Job], batch_size: Callable[[], int], room: int, *, sparing: bool
) -> Generator[Outcome]:
    """Fetch and prepare ahead of the encoder, in order, at most `room` places, and `fetch_workers` chips, at once."""
    most = max(job.request.knobs.fetch_workers for job in jobs)
    queries = max((sum(len(item.queries) for item in items) for items in places), default=0)
    if len(places) <= 1:
        for items in places:
            with stage("fetch", None, "places"):
                prepared = _prepared_alone(items, jobs, min(most, queries))
            yield prepared
        return
    workers, pace = min(room, len(places), most), Pace(min(room, most))
    stop = Stop(current())
    threads = Threads(workers, "rs-embed-fetch", stop)
    chips = Threads(most, "rs-embed-chip", stop) if queries > 1 else None
    try:
        upcoming = iter(places)
        pending: deque[Future[Outcome]] = deque()
        while True:
            # Twice the workers: while the next item in order is awaited, the other workers need work.
            ahead = pace.ahead if sparing else min(room, 2 * workers + batch_size())
            more = islice(upcoming, max(0, ahead - len(pending)))
            pending.extend(
                threads.submit(pace.prepare, partial(prepare_together, items, jobs, chips)) for items in more
            )
            if not pending:
                return
            yield pace.begin(outcome(pending.popleft()))
            pace.end()
    finally:
        stop.set()
        threads.close()
        if chips is not None:
            chips.close()


def _prepared_alone(items: Place, jobs: Sequence[Job], chips: int) -> Outcome:
    """One place: so many of its chips at the same time; those that a failure makes useless are stopped."""
    with chip_threads(chips) as threads:
        return prepare_together(items, jobs, threads)


def _affordable(places: Sequence[Place], memory_gb: float) -> int:
    """Return how many items may be in flight at once, judged by the largest."""
    largest = max((sum(query.nbytes for item in items for query in item.queries) for items in places), default=0)
    return max(1, int(memory_gb * 1e9 // max(1, COPIES * largest)))


def _encode_all(
    waiting: Sequence[Outcome], works: Sequence[Workload], sizes: Sequence[BatchSizes]
) -> Iterator[tuple[int, tuple[Result, ...]]]:
    if not waiting:
        return
    by_plan = [_encode(*column) for column in zip(zip(*waiting, strict=True), works, sizes, strict=True)]
    for results in zip(*by_plan, strict=True):
        yield results[0][0], tuple(result for _, result in results)


def _encode(waiting: Sequence[Prepared | Failure], work: Workload, sizes: BatchSizes) -> Iterator[tuple[int, Result]]:
    prepared = [one for one in waiting if isinstance(one, Prepared)]
    tokens = _encode_windows([w for one in prepared for w in one.inputs], work.job.embedder, sizes)
    for one in waiting:
        if isinstance(one, Failure):
            yield one.index, one
            continue
        parts = list(islice(tokens, len(one.inputs)))
        failed = next((part for part in parts if isinstance(part, Exception)), None)
        if failed is not None:
            yield one.item.index, Failure(one.item.index, "encode", failed)
            continue
        done = cast("list[tuple[torch.Tensor, TokenLayout]]", parts)
        values = torch.stack([value for value, _ in done])
        yield one.item.index, _read_out(one, values, done[0][1], work.job)


def _read_out(one: Prepared, tokens: torch.Tensor, layout: TokenLayout, job: Job) -> Result:
    try:
        return read_out(one, tokens, layout, job)
    except RSEmbedError as error:  # for example a polygon without valid pixels in a chip that has some
        return Failure(one.item.index, "encode", error)


def _encode_windows(inputs: list[ModelInput], embedder: Embedder, sizes: BatchSizes) -> Iterator[OneEncoded]:
    """Yield the result of every input in order; inputs of equal signature are encoded in batches that fit in memory."""
    results: dict[int, OneEncoded] = {}
    groups: dict[object, deque[int]] = {}
    for index, one in enumerate(inputs):
        groups.setdefault(one.signature, deque()).append(index)
    with stage("encode", len(inputs), "windows") as advance:
        for signature, left in groups.items():
            while left:
                current().check()
                batch = list(islice(left, sizes.of(signature)))
                encoded = _encode_batch([inputs[i] for i in batch], embedder, sizes)
                if isinstance(encoded, OutOfMemory) and len(batch) > 1:
                    sizes.ran_out(signature, len(batch))
                    continue
                for _ in batch:
                    left.popleft()
                advance(len(batch), 0)
                if isinstance(encoded, Exception):
                    results.update(dict.fromkeys(batch, encoded))
                else:
                    results.update(zip(batch, ((value, encoded.layout) for value in encoded.values), strict=True))
    return (results[index] for index in range(len(inputs)))


def _encode_batch(inputs: Sequence[ModelInput], embedder: Embedder, sizes: BatchSizes) -> Tokens | Exception:
    try:
        with sizes.measured(inputs[0].signature, len(inputs)):
            return embedder.run(ModelInput.stack(inputs))
    except Exception as error:  # noqa: BLE001  (the Failure of each item keeps the error)
        what = f"{len(inputs)} input(s) of {embedder.request.card.id}"
        return out_of_memory(error, what, embedder.device) or error
