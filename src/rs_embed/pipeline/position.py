"""Position offsets: the part of each token that depends on its position in the network's window.

A network with position embeddings passes them on to its tokens, so that a picture of a stitched grid shows its windows.
The offset of a position is the mean token there over many windows, less the mean of all tokens. Offsets are the same
for every window, so they can be subtracted before or after stitching, and the mean of the grid does not change.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from odc.geo.geobox import GeoBox
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.hashing import json_digest
from rs_embed.core.specs import TemporalSpec
from rs_embed.core.stopping import current
from rs_embed.embedders._vit_mae_utils import to_grid
from rs_embed.embedders.base import Embedder, ModelInput
from rs_embed.embedders.prepare.framing import Frame, Window, kept_tokens, stitch
from rs_embed.embedders.prepare.normalize import counting_clipped
from rs_embed.embedders.runtime.device import beside_the_network
from rs_embed.embedders.runtime.kept import KeptNetworks
from rs_embed.embedding.meta import Debiased
from rs_embed.embedding.position import PositionMeans
from rs_embed.encoders.tokens import TokenLayout, Tokens
from rs_embed.errors import RSEmbedError, SpecError
from rs_embed.pipeline.plan import Job, numbers_of, queries_for
from rs_embed.pipeline.validity import Validity, seen_in

MIN_WINDOWS = 32
"""A region with at least this many windows estimates its own offsets. The mean of n windows keeps 1/n of the variance
of the ground, which is then wrongly subtracted: 3 % for 32 windows."""
SHIFTS = 8
"""Windows along each side of the mirrored sample scene, 64 in total. Spread over a mirrored scene, they show every
position in the window the same ground, so their means keep less of the ground than those of a region."""
_BATCH = 8
_DAYS = TemporalSpec.range("2017-06-01", "2017-07-01")
"""The days of the sample scene."""


@dataclass(frozen=True, eq=False)
class Offsets:
    """The mean token of each position in a window, less the mean of its token grid."""

    values: Tensor
    """`[N, D]`, zero for prefix tokens."""
    layout: TokenLayout
    """The token layout of the window."""
    about: Debiased
    """How the offsets were estimated."""

    def subtracted_from(self, whole: Tokens, frame: Frame) -> Tokens:
        """Return the tokens of a stitched chip without the offsets.

        Args:
            whole: The tokens that `stitch` returned for the windows of the frame.
            frame: The windows within which tokens attend to each other.
        """
        everywhere = self.values.expand(len(frame.windows), *self.values.shape)
        return Tokens(whole.values - stitch(everywhere, self.layout, frame).values, whole.layout)

    def compact(self, embedder: Embedder, frame: Frame) -> PositionMeans | None:
        """Return the offsets in cells of the merged grid, to be stored with it.

        `None` if several grids were merged by their maximum, because offsets cannot be subtracted from that.
        """
        readout = embedder.readout
        if readout.merge == "max" and len(self.layout.grids) > 1:
            return None
        merged = to_grid(self.values[None], self.layout, readout.merge, readout.parts)[0].float().numpy()
        cell_px = frame.windows[0].height // merged.shape[1]
        rows, cols = ({start // cell_px for start in starts} for starts in _starts_of(frame))
        return PositionMeans(merged, tuple(sorted(rows)), tuple(sorted(cols)), self.about.windows)


def _starts_of(frame: Frame) -> tuple[set[int], set[int]]:
    return {window.row for window in frame.windows}, {window.col for window in frame.windows}


def of_region(tokens: Tensor, layout: TokenLayout, validity: Validity) -> Offsets | None:
    """Estimate offsets from the windows of the region itself.

    Tokens on padding and nodata do not count.

    Args:
        tokens: `[windows, N, D]`.
        layout: The token layout of one window.
        validity: The validity of the frame with those windows.

    Returns:
        The offsets, or `None` if a position has valid tokens in fewer than `MIN_WINDOWS` windows.
    """
    if len(tokens) < MIN_WINDOWS:
        return None
    counted = (
        (one, _counted(one, layout, replace(validity, frame=alone)))
        for one, alone in zip(tokens, _each(validity.frame), strict=True)
    )
    values, fewest = _averaged(counted, layout)
    if fewest < MIN_WINDOWS:
        return None
    return Offsets(values, layout, Debiased(by="position", estimated_on="region", windows=fewest))


def of_reference(frame: Frame, absent: Iterable[str], job: Job) -> Offsets:
    """Estimate offsets from the bundled sample scene, with the same network and knobs. The result is cached.

    Raises:
        SpecError: The sample scene lacks an input of the model.
    """
    missing, window = sorted(absent), frame.windows[0]
    facts = {
        **numbers_of(job.embedder, job.output, job.prep),
        "weights": job.embedder.network.weights_id,
        "window": [window.height, window.width, *frame.input_px, frame.token_shift_px],
        "absent": missing,
        "device": str(job.embedder.device),
    }
    key = type(job.embedder), tuple(job.request.card.arch.items()), json_digest(facts)
    return _CACHE.get(key, lambda: _of_sample(frame, missing, job))


_CACHE: KeptNetworks[Offsets] = KeptNetworks(8)


def _of_sample(frame: Frame, absent: list[str], job: Job) -> Offsets:
    chips = _scene(frame, absent, job)
    height, width = frame.windows[0].height, frame.windows[0].width
    alone = Frame("crop", (Window(0, 0, height, width),), frame.input_px, (0, 0), (height, width), (height, width),
                  frame.token_shift_px)  # fmt: skip
    layouts: list[TokenLayout] = []

    def encoded() -> Iterator[tuple[Tensor, Tensor]]:
        starts = _shifts(chips, job)
        for first in range(0, len(starts), _BATCH):
            current().check()
            cuts = [_cut(chips, start, (height, width), job) for start in starts[first : first + _BATCH]]
            with beside_the_network(job.embedder.device), counting_clipped():
                inputs = [one for cut in cuts for one in job.embedder.prepare(cut, alone)]
            tokens = job.embedder.run(ModelInput.stack(inputs))
            layouts.append(tokens.layout)
            for one, cut in zip(tokens.values, cuts, strict=True):
                seen = Validity(seen_in(cut, job.request), alone, job.embedder, tuple(absent))
                yield one, _counted(one, tokens.layout, seen)

    coming = encoded()
    first = next(coming)
    values, fewest = _averaged((one for some in ([first], coming) for one in some), layouts[0])
    return Offsets(values, layouts[0], Debiased(by="position", estimated_on="sample scene", windows=fewest))


def _scene(frame: Frame, absent: list[str], job: Job) -> dict[str, Chip]:
    """Fetch the whole sample scene, for the modalities that the model has at the place."""
    if job.reference is None:
        raise SpecError(
            "Expected a provider of reference imagery, got none.", fix="plan the job with debias set in its output"
        )
    try:
        for modality, sensor in job.request.inputs:
            if modality.name not in absent:
                job.reference.require(modality.name, sensor)
        queries = queries_for(job.request, job.reference, None, _DAYS)
        return {query.modality: job.reference.fetch(query) for query in queries if query.modality not in absent}
    except RSEmbedError as error:
        side_km = 6 * frame.windows[0].height * job.request.scale_m / 1000
        raise SpecError(
            f"Expected at least {MIN_WINDOWS} windows, or inputs that the sample scene has, to estimate the position "
            f"offsets of tokens, got {len(frame.windows)} window(s).",
            sample=error.headline,
            fix=f"use a region of about {side_km:.0f} km a side with input_prep='tile', other modalities, or "
            "debias='none'",
        ) from error


def _shifts(chips: dict[str, Chip], job: Job) -> list[tuple[int, int]]:
    """Return north-west corners of windows, shared-grid pixels, spread over the scene and its mirror images."""
    modality = next(modality for modality, _ in job.request.inputs if modality.name in chips)
    height, width = (2 * px // modality.grid_px for px in chips[modality.name].shape_px)
    steps = [(i, j) for i in range(SHIFTS) for j in range(SHIFTS)]
    # The lattice is sheared, so that no two windows start on the same row or column.
    return [(int(height * (i + j / SHIFTS) / SHIFTS), int(width * (j + i / SHIFTS) / SHIFTS)) for i, j in steps]


def _cut(chips: dict[str, Chip], start: tuple[int, int], size: tuple[int, int], job: Job) -> dict[str, Chip]:
    """Cut a window from the mirrored scene; its geobox starts at the scene's north-west corner."""
    cuts = {}
    for modality, _ in job.request.inputs:
        if modality.name in chips:
            chip, px = chips[modality.name], modality.grid_px
            rows, cols = (
                _mirrored(first * px, count * px, side)
                for first, count, side in zip(start, size, chip.shape_px, strict=True)
            )
            geobox = (
                None if chip.geobox is None else GeoBox((len(rows), len(cols)), chip.geobox.affine, chip.geobox.crs)
            )
            values = np.ascontiguousarray(chip.values[:, :, rows[:, None], cols])
            cuts[modality.name] = replace(chip, values=values, geobox=geobox)
    return cuts


def _mirrored(first: int, count: int, side: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the indices of `count` pixels from `first` on, along a side that is reflected at both ends for ever."""
    places = np.arange(first, first + count) % (2 * side)
    return np.where(places < side, places, 2 * side - 1 - places)


def _each(frame: Frame) -> Iterator[Frame]:
    """Yield a frame for each window on its own."""
    ends = [start + keep for start, keep in zip(frame.origin_px, frame.keep_px, strict=True)]
    for window in frame.windows:
        size = (window.height, window.width)
        keep = (min(window.height, ends[0] - window.row), min(window.width, ends[1] - window.col))
        yield replace(frame, windows=(window,), origin_px=(window.row, window.col), extent_px=size, keep_px=keep)


def _counted(tokens: Tensor, layout: TokenLayout, validity: Validity) -> Tensor:
    """Return a mask `[N]` of the patch tokens of a window that lie on valid pixels of the chip."""
    return kept_tokens(layout, validity.frame) & validity.tokens(Tokens(tokens[None], layout))


def _averaged(coming: Iterable[tuple[Tensor, Tensor]], layout: TokenLayout) -> tuple[Tensor, int]:
    """Average tokens over windows, position by position.

    Args:
        coming: For each window its tokens `[N, D]` and the mask `[N]` of those that count.
        layout: The token layout of one window.

    Returns:
        Means of the positions less the mean of their grid, `[N, D]`, and the smallest number of windows of any
        position.
    """
    total, counts = torch.zeros(()), torch.zeros(layout.length)
    for tokens, counted in coming:
        total = total + tokens.double().where(counted[:, None], 0)
        counts += counted
    means = total / counts.clamp(min=1)[:, None]
    start = layout.prefix
    means[:start] = 0
    for grid in layout.grids:
        means[start : start + grid.length] -= means[start : start + grid.length].mean(dim=0)
        start += grid.length
    return means.float(), int(counts[layout.prefix :].min())
