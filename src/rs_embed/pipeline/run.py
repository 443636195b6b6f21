"""Run plans: fetch ahead, encode in batches, read out, in the order of the items."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import cast

import torch

from rs_embed.embedders.base import Embedder, ModelInput
from rs_embed.encoders.tokens import TokenLayout
from rs_embed.errors import RSEmbedError
from rs_embed.pipeline.plan import Item, Job, Plan
from rs_embed.pipeline.prepare import prepare_together
from rs_embed.pipeline.readout import Prepared, read_out
from rs_embed.results import Failure, Result
from rs_embed.settings import LibrarySettings

BATCH_CPU, BATCH_GPU = 4, 32
"""Network inputs encoded at once. On a CPU a larger batch buys nothing (MODELS.md, section 6)."""
COPIES = 3
"""A chip, its standardised pixels and the network's inputs exist at the same time."""
Outcome = tuple[Prepared | Failure, ...]
"""Of one place, for each plan."""


def run(plan: Plan) -> Iterator[tuple[int, Result]]:
    """Embeddings in the order of the items, failures among them; see `run_together`."""
    for index, (result,) in run_together([plan]):
        yield index, result


def run_together(plans: Sequence[Plan]) -> Iterator[tuple[int, tuple[Result, ...]]]:
    """Results for each place, one per plan, in order. Imagery that several plans want is fetched once.

    Memory: the items on their way, as far as `RS_EMBED_MEMORY_GB` allows (but always one), and the inputs of one
    batch, however long the plans. Closing the iterator waits for no more than the fetches that have begun.

    Args:
        plans: Of the same places in the same order.
    """
    for plan in plans:
        plan.job.embedder.load()  # first: missing weights must not cost a fetch
    batch_size = min(batch_size_of(plan.job.embedder) for plan in plans)
    waiting: list[Outcome] = []
    windows = 0
    for outcome in _prepared(plans):
        waiting.append(outcome)
        windows += max(0 if isinstance(one, Failure) else len(one.inputs) for one in outcome)
        if max(windows, len(waiting)) >= batch_size:
            yield from _encode_all(waiting, plans)
            waiting, windows = [], 0
    yield from _encode_all(waiting, plans)


def batch_size_of(embedder: Embedder) -> int:
    """How many network inputs are encoded at once."""
    return BATCH_CPU if embedder.device.type == "cpu" else BATCH_GPU


def _prepared(plans: Sequence[Plan]) -> Iterator[Outcome]:
    """Fetch and prepare ahead of the encoder, in order."""
    jobs = [plan.job for plan in plans]
    places = list(zip(*(plan.items for plan in plans), strict=True))
    if len(places) <= 1:  # a single call pays for no thread
        yield from (prepare_together(items, jobs) for items in places)
        return
    workers = max(job.request.knobs.fetch_workers for job in jobs)
    batch_size = max(batch_size_of(job.embedder) for job in jobs)
    # Twice the workers: while the next in order is awaited, the others must not run dry.
    ahead = max(1, min(2 * workers + batch_size, _affordable(places)))
    pool = ThreadPoolExecutor(min(workers, ahead), thread_name_prefix="rs-embed-fetch")
    try:
        upcoming = iter(places)
        pending: deque[Future[Outcome]] = deque(
            pool.submit(prepare_together, items, jobs) for items in islice(upcoming, ahead)
        )
        while pending:
            outcome = pending.popleft().result()
            pending.extend(pool.submit(prepare_together, items, jobs) for items in islice(upcoming, 1))
            yield outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _affordable(places: Sequence[Sequence[Item]]) -> int:
    """How many items may be on their way at once, judged by the largest of them."""
    budget = LibrarySettings.read().memory_gb * 1e9
    largest = max(sum(query.nbytes for item in items for query in item.queries) for items in places)
    return int(budget // max(1, COPIES * largest))


def _encode_all(waiting: Sequence[Outcome], plans: Sequence[Plan]) -> Iterator[tuple[int, tuple[Result, ...]]]:
    by_plan = [_encode(list(outcomes), plan) for outcomes, plan in zip(zip(*waiting, strict=True), plans, strict=False)]
    for results in zip(*by_plan, strict=True):
        yield results[0][0], tuple(result for _, result in results)


def _encode(waiting: Sequence[Prepared | Failure], plan: Plan) -> Iterator[tuple[int, Result]]:
    prepared = [one for one in waiting if isinstance(one, Prepared)]
    tokens = _encode_windows([w for one in prepared for w in one.inputs], plan.job.embedder)
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
        yield one.item.index, _read_out(one, values, done[0][1], plan.job)


def _read_out(one: Prepared, tokens: torch.Tensor, layout: TokenLayout, job: Job) -> Result:
    try:
        return read_out(one, tokens, layout, job)
    except RSEmbedError as error:  # such as a polygon without a valid pixel in a chip that has some
        return Failure(one.item.index, "encode", error)


def _encode_windows(
    inputs: list[ModelInput], embedder: Embedder
) -> Iterator[tuple[torch.Tensor, TokenLayout] | Exception]:
    """Tokens `[N, D]` and layout of every input, in order; equal signatures are encoded together."""
    results: dict[int, tuple[torch.Tensor, TokenLayout] | Exception] = {}
    groups: dict[object, list[int]] = {}
    batch_size = batch_size_of(embedder)
    for index, one in enumerate(inputs):
        groups.setdefault(one.signature, []).append(index)
    for members in groups.values():
        for start in range(0, len(members), batch_size):
            batch = members[start : start + batch_size]
            try:
                tokens = embedder.run(ModelInput.stack([inputs[i] for i in batch]))
            except Exception as error:  # noqa: BLE001  (kept whole in the Failure of each item)
                results.update(dict.fromkeys(batch, error))
            else:
                results.update(zip(batch, ((value, tokens.layout) for value in tokens.values), strict=True))
    return (results[index] for index in range(len(inputs)))
