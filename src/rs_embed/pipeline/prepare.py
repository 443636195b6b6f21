"""Prepare one item for the network: fetch its chips, check them, build the network's inputs."""

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
from rs_embed.pipeline.needed import needed_windows
from rs_embed.pipeline.plan import Item, Job
from rs_embed.pipeline.readout import Prepared, input_meta
from rs_embed.pipeline.validity import seen_in

SCALE_TOLERANCE = 0.1
"""Relative difference between the true pixel size and the one passed to the model above which a warning is issued."""
COPIES = 3
"""Copies in memory at once: the chip, its standardised pixels and the network's inputs."""
_ADVICE = {
    "array": "check the array: NaN, infinity, fill values and Sentinel-2 pixels with 0 in every band count as nodata",
    "local": "check the place, and the nodata value of the file: LocalRasters(path, nodata=...)",
    "sample": "choose a place in the middle of the sample scene",
}
"""Provider -> advice for providers without an archive of other days."""
_ABSENCES = (NoImagery, NoValidPixels, OutsideCoverage)
"""Errors that mean a place lacks a modality. Any other error is raised."""


def prepare_together(
    items: Sequence[Item], jobs: Sequence[Job], threads: Threads | None = None
) -> tuple[Prepared | Failure, ...]:
    """Prepare the same place for several models. Imagery that several of them need is fetched once.

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
    """Fetch and check the chips of an item without computing an embedding.

    Returns:
        The chips by modality, the shape `(rows, cols)` in pixels that they share, and the grid that they share.

    Raises:
        RSEmbedError: The chips could not be fetched, cover different ground, or have too few valid pixels.
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
    """Prepare one item; an error becomes a `Failure`, so that it does not stop the other items."""
    stage: Stage = "fetch"
    try:
        if item.cells is not None:
            stage = "prepare"
            return _prepare_location(item, item.cells, job)
        queries = {query.modality: query for query in item.queries}
        request = job.request
        chips, absent = _available(request, queries, lambda name: fetching.take(queries[name], job.provider))
        stage = "prepare"
        shape_px = _shared_shape(chips, request)
        floor = request.knobs.min_valid_fraction
        chips, empty = _available(request, chips, lambda name: _with_pixels(name, chips[name], floor))
        geobox = _shared_geobox(chips, shape_px, request)
        frame = needed_windows(frame_chip(shape_px, job.prep, job.embedder.geometry()), geobox, item.spatial, job)
        inputs, clipped = _inputs(job.embedder, chips, frame)
        warn_of_clipped(clipped)
        gsd_m = _input_gsd_m(geobox, frame, request)
        metas = tuple(
            input_meta(chips[m.name], m.name, sensor, clipped.get(m.name, 0.0))
            for m, sensor in request.inputs
            if m.name in chips
        )
        return Prepared(item, metas, frame, tuple(inputs), gsd_m, geobox, seen_in(chips, request), {**absent, **empty})
    except Exception as error:  # noqa: BLE001  (the Failure keeps the error; single calls raise it)
        return Failure(item.index, stage, error)


def _prepare_location(item: Item, cells: GeoBox, job: Job) -> Prepared:
    """Prepare an item of a model that takes only a location."""
    shape_px = (int(cells.shape[0]), int(cells.shape[1]))
    size = 4 * job.embedder.readout.dim * shape_px[0] * shape_px[1]
    require_memory(COPIES * size, f"a grid of {size / 1e9:.1f} GB for one place")
    frame = frame_chip(shape_px, job.prep, job.embedder.geometry())
    ground = Chip(np.empty((1, 0, *shape_px), np.float32), (), cells, (None,), Source("none", "none"))
    inputs = job.embedder.prepare(dict.fromkeys(job.request.places, ground), frame)
    return Prepared(item, (), frame, tuple(inputs), pixel_size_m(cells), cells, {}, {})


def _available(
    request: ModelRequest, names: Collection[str], chip_of: Callable[[str], Chip]
) -> tuple[dict[str, Chip], dict[str, str]]:
    """Return the chips that the place has, and for each missing optional modality the reason.

    Raises:
        RSEmbedError: The place lacks a modality that the model needs, or has none at all.
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
    """Build the inputs on the device, or on the CPU if a running batch fills the device's memory.

    Also returns modality -> share of its values that were clipped.
    """
    try:
        with beside_the_network(embedder.device), counting_clipped() as clipped:
            return embedder.prepare(chips, frame), clipped
    except torch.OutOfMemoryError:
        with counting_clipped() as clipped:
            return embedder.prepare(chips, frame), clipped


def _shared_shape(chips: Mapping[str, Chip], request: ModelRequest) -> tuple[int, int]:
    """Return the height and width of the grid that all chips lie on or subdivide."""
    found = set()
    for modality in (modality for modality, _ in request.inputs if modality.name in chips):
        (rows, no_row), (cols, no_col) = (divmod(px, modality.grid_px) for px in chips[modality.name].shape_px)
        found.add((rows, cols) if no_row == no_col == 0 < min(rows, cols) else None)
    shape_px = found.pop()
    if found or shape_px is None:
        raise InputError(
            "Expected all modalities to cover the same ground in whole pixels of the coarsest, got different sizes.",
            **{name: "{} x {} px".format(*chip.shape_px) for name, chip in chips.items()},
            **{f"{m.name} per {request.scale_m:g} m": f"{m.grid_px} px" for m, _ in request.inputs if m.grid_px > 1},
            fix="crop them to the same square on the ground",
        )
    return shape_px


def _with_pixels(name: str, chip: Chip, floor: float) -> Chip:
    """Return the chip if enough of it is valid; warn if less than half is."""
    valid = chip.valid_fraction
    if valid == 0 or valid < floor:
        raise NoValidPixels(
            f"Expected valid pixels in {name}, got {valid:.1%}" + (f" (floor {floor:.0%})." if floor else "."),
            chip=chip.describe(),
            bands=_share_by_band(chip),
            fix=_ADVICE.get(chip.source.provider, "check the place and the days, add days, or raise cloudy_pct"),
        )
    if valid < 0.5:
        # One text for all chips, so that it is shown once: the metadata records each share.
        warn(f"Fewer than half of the pixels of {name} are valid (see valid_fraction).", PixelWarning)
    return chip


def _share_by_band(chip: Chip) -> str | None:
    """Return the valid share of each band if they differ, else `None`. A pixel is valid only if all its bands are."""
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
    """Return the true ground size of an input pixel, metres; warn if the model is given another value."""
    nominal_m = request.scale_m
    gsd_m = (nominal_m if geobox is None else pixel_size_m(geobox)) * frame.zoom
    if abs(gsd_m / nominal_m - 1) > SCALE_TOLERANCE:
        warn(
            f"{request.card.id} expects pixels of {nominal_m:g} m, but after resizing they are {gsd_m:.3g} m. "
            'Set input_prep="crop" or "tile" to keep the native pixel size. meta["gsd_m"] records the true size.',
            ScaleWarning,
        )
    return gsd_m
