"""One item up to the network: fetch its chips, check them, make the network's inputs."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from odc.geo.geobox import GeoBox

from rs_embed.core.chip import Chip, Source
from rs_embed.core.geo import pixel_size_m, subgrid
from rs_embed.core.resources import require_memory
from rs_embed.core.stopping import Threads
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest
from rs_embed.embedders.prepare.framing import Frame, frame_chip
from rs_embed.embedders.prepare.normalize import counting_clipped, warn_of_clipped
from rs_embed.embedders.runtime.device import beside_the_network
from rs_embed.errors import (
    Failure,
    InputError,
    NoImagery,
    NoValidPixels,
    OutsideCoverage,
    PixelWarning,
    RSEmbedError,
    ScaleWarning,
    SensorNotOffered,
    Stage,
    warn,
)
from rs_embed.pipeline.fetching import Fetching, chip_threads
from rs_embed.pipeline.plan import Item, Job
from rs_embed.pipeline.readout import Prepared, input_meta
from rs_embed.pipeline.validity import seen_in

SCALE_TOLERANCE = 0.1
"""How far the true pixel size may be from the one that the model is told before it is worth a warning."""
COPIES = 3
"""A chip, its standardised pixels and the network's inputs exist at the same time."""
_ADVICE = {
    "array": "NaN, infinities, fill values and pixels of 0 in every Sentinel-2 band are nodata: check the array",
    "local": "check the place, and the nodata value of the file: LocalRasters(path, nodata=...)",
    "sample": "choose a place in the middle of the sample scene",
}
"""Provider -> what helps where there is no archive to ask for other days."""
_ABSENCES = (NoImagery, NoValidPixels, OutsideCoverage)
"""What says that a place lacks a modality; any other error is one."""


def prepare_together(
    items: Sequence[Item], jobs: Sequence[Job], threads: Threads | None = None
) -> tuple[Prepared | Failure, ...]:
    """The same place for several models; imagery that more than one of them wants is fetched once.

    Args:
        items: One for each job.
        jobs: What to prepare them for.
        threads: Fetch the chips of the place at the same time; `None`: one after another.
    """
    fetching = Fetching(threads)
    try:
        begun = [_begin(item, job, fetching) for item, job in zip(items, jobs, strict=True)]
        return tuple(
            failure or _prepare(item, job, fetching) for failure, item, job in zip(begun, items, jobs, strict=True)
        )
    finally:
        fetching.cancel()


def fetch_checked(item: Item, job: Job) -> tuple[dict[str, Chip], tuple[int, int], GeoBox | None]:
    """The chips of an item, with the shape and the grid that they share, without an embedding.

    Raises:
        RSEmbedError: They could not be had, do not lie on one ground, or hold too little.
    """
    with chip_threads(min(job.request.knobs.fetch_workers, len(item.queries))) as threads:
        fetching = Fetching(threads)
        fetching.begin(item.queries, job.provider)
        chips = {query.modality: fetching.take(query, job.provider) for query in item.queries}
    shape_px = _shared_shape(chips, job.request)
    for name, chip in chips.items():
        _with_pixels(name, chip, job.request.knobs.min_valid_fraction)
    return chips, shape_px, _shared_geobox(chips, shape_px, job.request)


def _begin(item: Item, job: Job, fetching: Fetching) -> Failure | None:
    """Start to fetch the chips of an item, if the machine can hold them."""
    try:
        size = sum(query.nbytes for query in item.queries)
        require_memory(COPIES * size, f"{len(item.queries)} chip(s) of {size / 1e9:.1f} GB for one place")
        fetching.begin(item.queries, job.provider)
    except Exception as error:  # noqa: BLE001  (kept whole in the Failure, raised by single calls)
        return Failure(item.index, "fetch", error)
    return None


def _prepare(item: Item, job: Job, fetching: Fetching) -> Prepared | Failure:
    """The per-item boundary: whatever goes wrong with one item must not stop the others."""
    stage: Stage = "fetch"
    try:
        if item.cells is not None:
            stage = "prepare"
            return _told_the_place(item, item.cells, job)
        queries = {query.modality: query for query in item.queries}
        request = job.request
        chips, absent = _there(request, queries, lambda name: fetching.take(queries[name], job.provider))
        stage = "prepare"
        shape_px = _shared_shape(chips, request)
        floor = request.knobs.min_valid_fraction
        chips, empty = _there(request, chips, lambda name: _with_pixels(name, chips[name], floor))
        frame = frame_chip(shape_px, job.prep, job.embedder.geometry())
        inputs, clipped = _inputs(job.embedder, chips, frame)
        warn_of_clipped(clipped)
        geobox = _shared_geobox(chips, shape_px, request)
        gsd_m = _input_gsd_m(geobox, frame, request)
        metas = tuple(
            input_meta(chips[m.name], m.name, sensor, clipped.get(m.name, 0.0))
            for m, sensor in request.inputs
            if m.name in chips
        )
        return Prepared(item, metas, frame, tuple(inputs), gsd_m, geobox, seen_in(chips, request), {**absent, **empty})
    except Exception as error:  # noqa: BLE001  (kept whole in the Failure, raised by single calls)
        return Failure(item.index, stage, error)


def _told_the_place(item: Item, cells: GeoBox, job: Job) -> Prepared:
    """Without imagery: what a model is told about the place."""
    shape_px = (int(cells.shape[0]), int(cells.shape[1]))
    size = 4 * job.embedder.readout.dim * shape_px[0] * shape_px[1]
    require_memory(COPIES * size, f"a grid of {size / 1e9:.1f} GB for one place")
    frame = frame_chip(shape_px, job.prep, job.embedder.geometry())
    ground = Chip(np.empty((1, 0, *shape_px), np.float32), (), cells, (None,), Source("none", "none"))
    inputs = job.embedder.prepare(dict.fromkeys(job.request.places, ground), frame)
    return Prepared(item, (), frame, tuple(inputs), pixel_size_m(cells), cells, {}, {})


def _there(
    request: ModelRequest, names: Collection[str], chip_of: Callable[[str], Chip]
) -> tuple[dict[str, Chip], dict[str, str]]:
    """The chips that a place has, and why it lacks others, which the model can do without.

    Raises:
        RSEmbedError: It lacks one that the model needs, or has none at all.
    """
    chips: dict[str, Chip] = {}
    absent: dict[str, RSEmbedError] = {}
    for modality in (modality for modality, _ in request.inputs if modality.name in names):
        try:
            chips[modality.name] = chip_of(modality.name)
        except _ABSENCES as error:
            if not modality.optional:
                raise
            absent[modality.name] = error
        except SensorNotOffered as error:
            if not request.may_lack(modality):
                raise
            absent[modality.name] = error
    if not chips:
        raise next(iter(absent.values()))
    return chips, {name: f"{type(error).__name__}: {error.headline}" for name, error in absent.items()}


def _inputs(
    embedder: Embedder, chips: Mapping[str, Chip], frame: Frame
) -> tuple[list[ModelInput], Mapping[str, float]]:
    """Made on the device, or here where it has no room: the batch that it works on may fill it.

    Beside them: modality -> share of its values that was clipped.
    """
    try:
        with beside_the_network(embedder.device), counting_clipped() as clipped:
            return embedder.prepare(chips, frame), clipped
    except torch.OutOfMemoryError:
        with counting_clipped() as clipped:
            return embedder.prepare(chips, frame), clipped


def _shared_shape(chips: Mapping[str, Chip], request: ModelRequest) -> tuple[int, int]:
    """Height and width of the grid that all chips lie on, or subdivide."""
    found = set()
    for modality in (modality for modality, _ in request.inputs if modality.name in chips):
        (rows, no_row), (cols, no_col) = (divmod(px, modality.grid_px) for px in chips[modality.name].shape_px)
        found.add((rows, cols) if no_row == no_col == 0 < min(rows, cols) else None)
    shape_px = found.pop()
    if found or shape_px is None:
        raise InputError(
            "Expected all modalities to cover the same ground in whole pixels of the coarsest, got other sizes.",
            **{name: "{} x {} px".format(*chip.shape_px) for name, chip in chips.items()},
            **{f"{m.name} per {request.scale_m:g} m": f"{m.grid_px} px" for m, _ in request.inputs if m.grid_px > 1},
            fix="cut them to the same square on the ground",
        )
    return shape_px


def _with_pixels(name: str, chip: Chip, floor: float) -> Chip:
    """The chip, if enough of it is valid; warns where that is little."""
    valid = chip.valid_fraction
    if valid == 0 or valid < floor:
        raise NoValidPixels(
            f"Expected valid pixels in {name}, got {valid:.1%}" + (f" (floor {floor:.0%})." if floor else "."),
            chip=chip.describe(),
            bands=_share_by_band(chip),
            fix=_ADVICE.get(chip.source.provider, "check place and window, widen the window or raise cloudy_pct"),
        )
    if valid < 0.5:
        # one text for all chips, which is shown once, not once for each share: meta tells it
        warn(f"Fewer than half of the pixels of {name} are valid (see valid_fraction).", PixelWarning)
    return chip


def _share_by_band(chip: Chip) -> str | None:
    """Which bands have how many valid pixels, where they differ: a pixel is valid if it has all of them."""
    shares = np.isfinite(chip.values).mean(axis=(0, 2, 3))
    if np.ptp(shares) == 0:
        return None
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(chip.band_names, shares, strict=True))


def _shared_geobox(chips: Mapping[str, Chip], shape_px: tuple[int, int], request: ModelRequest) -> GeoBox | None:
    modality = next(modality for modality, _ in request.inputs if modality.name in chips)
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
