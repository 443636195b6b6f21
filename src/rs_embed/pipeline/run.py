"""Run a plan: fetch ahead, prepare, encode in batches, read out, in the order of the items."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

import torch
from odc.geo.geobox import GeoBox

from rs_embed.chip import Chip
from rs_embed.embedders._framing import Frame, frame_chip
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest
from rs_embed.embedding import Embedding
from rs_embed.encoders.tokens import TokenLayout
from rs_embed.errors import InputError, NoValidPixels, PixelWarning, ScaleWarning, warn
from rs_embed.geo import pixel_size_m, subgrid
from rs_embed.pipeline.plan import Item, Job, Plan
from rs_embed.pipeline.readout import Prepared, read_out

Stage = Literal["fetch", "prepare", "encode"]
BATCH_CPU, BATCH_GPU = 4, 32
"""Network inputs encoded at once. On a CPU a larger batch buys nothing (MODELS.md, section 6)."""
SCALE_TOLERANCE = 0.1
"""How far the true pixel size may be from the one that the model is told before it is worth a warning."""


@dataclass(frozen=True)
class Failure:
    """An item that could not be done, and why. The others go on."""

    index: int
    stage: Stage
    error: Exception


Result = Embedding | Failure


def run(plan: Plan) -> Iterator[tuple[int, Result]]:
    """Embeddings in the order of the items, failures among them.

    Memory: the chips of `fetch_workers` items ahead and the inputs of one batch, however long the plan.
    """
    embedder = plan.job.embedder
    embedder.load()  # first: missing weights must not cost a fetch
    batch_size = BATCH_CPU if embedder.device.type == "cpu" else BATCH_GPU
    waiting: list[Prepared | Failure] = []
    windows = 0
    for outcome in _prepared(plan):
        waiting.append(outcome)
        windows += 0 if isinstance(outcome, Failure) else len(outcome.inputs)
        if max(windows, len(waiting)) >= batch_size:
            yield from _encode_all(waiting, plan, batch_size)
            waiting, windows = [], 0
    yield from _encode_all(waiting, plan, batch_size)


def _prepared(plan: Plan) -> Iterator[Prepared | Failure]:
    """Fetch and prepare ahead of the encoder, in order."""
    if len(plan.items) == 1:  # a single call pays for no thread
        yield _prepare(plan.items[0], plan.job)
        return
    workers = plan.job.request.knobs.fetch_workers
    with ThreadPoolExecutor(workers, thread_name_prefix="rs-embed-fetch") as pool:
        items = iter(plan.items)
        pending: deque[Future[Prepared | Failure]] = deque()
        for item in islice(items, workers):
            pending.append(pool.submit(_prepare, item, plan.job))
        while pending:
            outcome = pending.popleft().result()
            for item in islice(items, 1):
                pending.append(pool.submit(_prepare, item, plan.job))
            yield outcome


def _prepare(item: Item, job: Job) -> Prepared | Failure:
    """The per-item boundary: whatever goes wrong with one item must not stop the others."""
    stage: Stage = "fetch"
    try:
        chips = {query.modality: job.provider.fetch(query) for query in item.queries}
        stage = "prepare"
        shape_px = _shared_shape(chips, job.request)
        _check_pixels(chips, job.request.knobs.min_valid_fraction)
        frame = frame_chip(shape_px, job.prep, job.embedder.geometry())
        inputs = job.embedder.prepare(chips, frame)
        geobox = _shared_geobox(chips, shape_px, job.request)
        gsd_m = _input_gsd_m(geobox, frame, job.request)
        return Prepared(item, chips, frame, tuple(inputs), gsd_m, geobox)
    except Exception as error:  # noqa: BLE001  (kept whole in the Failure, raised by single calls)
        return Failure(item.index, stage, error)


def _shared_shape(chips: Mapping[str, Chip], request: ModelRequest) -> tuple[int, int]:
    """Height and width of the grid that all chips lie on, or subdivide."""
    found = set()
    for modality, _ in request.inputs:
        (rows, no_row), (cols, no_col) = (divmod(px, modality.grid_px) for px in chips[modality.name].shape_px)
        found.add((rows, cols) if no_row == no_col == 0 < min(rows, cols) else None)
    shape_px = found.pop()
    if found or shape_px is None:
        raise InputError(
            "Wanted all modalities to cover the same ground in whole pixels of the coarsest, found other sizes.",
            **{name: "{} x {} px".format(*chip.shape_px) for name, chip in chips.items()},
            **{f"{m.name} per {request.scale_m:g} m": f"{m.grid_px} px" for m, _ in request.inputs if m.grid_px > 1},
            fix="cut them to the same square on the ground",
        )
    return shape_px


def _check_pixels(chips: Mapping[str, Chip], floor: float) -> None:
    for name, chip in chips.items():
        valid = chip.valid_fraction
        if valid == 0 or valid < floor:
            raise NoValidPixels(
                f"Wanted valid pixels in {name}, found {valid:.1%}" + (f" (floor {floor:.0%})." if floor else "."),
                chip=chip.describe(),
                fix="check the place and the window, widen the window or raise cloudy_pct",
            )
        if valid < 0.5:
            warn(f"Only {valid:.0%} of the pixels of {name} are valid.", PixelWarning)


def _shared_geobox(chips: Mapping[str, Chip], shape_px: tuple[int, int], request: ModelRequest) -> GeoBox | None:
    modality, _ = request.inputs[0]
    geobox = chips[modality.name].geobox
    if geobox is None or modality.grid_px == 1:
        return geobox
    return subgrid(geobox, (0, 0), modality.grid_px, shape_px)


def _input_gsd_m(geobox: GeoBox | None, frame: Frame, request: ModelRequest) -> float:
    """True ground size of an input pixel; warns where the model is told something else."""
    told_m = request.scale_m
    gsd_m = (told_m if geobox is None else pixel_size_m(geobox)) * frame.zoom
    if abs(gsd_m / told_m - 1) > SCALE_TOLERANCE:
        warn(
            f"{request.card.id} expects pixels of {told_m:g} m, but after the resize they are {gsd_m:.3g} m; "
            'input_prep="crop" or "tile" keeps the native pixel size (meta["gsd_m"] holds the truth).',
            ScaleWarning,
        )
    return gsd_m


def _encode_all(waiting: list[Prepared | Failure], plan: Plan, batch_size: int) -> Iterator[tuple[int, Result]]:
    prepared = [one for one in waiting if isinstance(one, Prepared)]
    tokens = _encode_windows([w for one in prepared for w in one.inputs], plan.job.embedder, batch_size)
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
        yield one.item.index, read_out(one, values, done[0][1], plan.job)


def _encode_windows(
    inputs: list[ModelInput], embedder: Embedder, batch_size: int
) -> Iterator[tuple[torch.Tensor, TokenLayout] | Exception]:
    """Tokens `[N, D]` and layout of every input, in order; equal signatures are encoded together."""
    results: dict[int, tuple[torch.Tensor, TokenLayout] | Exception] = {}
    groups: dict[object, list[int]] = {}
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
