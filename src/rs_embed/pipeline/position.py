"""What tokens carry of their place in the window, estimated as the mean token of each place over many windows.

A network with positions writes them into its tokens: a picture of a stitched grid then shows its windows. The mean
token of a place, less the mean of all, is taken out; it is the same for every window, so taking it out before windows
are stitched and taking its stitched form out after are the same, and the level of the grid stays.
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
from rs_embed.embedding.embedding import Debiased
from rs_embed.embedding.position import PositionMeans
from rs_embed.encoders.tokens import TokenLayout, Tokens
from rs_embed.errors import RSEmbedError, SpecError
from rs_embed.pipeline.plan import Job, numbers_of, queries_for
from rs_embed.pipeline.validity import Validity, seen_in

MIN_WINDOWS = 32
"""A region with so many windows is its own sample. The mean of n windows holds 1/n of the variance that the ground
has, which is what is wrongly taken out, and what remains of the place: 3 % of it for 32."""
SHIFTS = 8
"""Along either side of the sample scene, mirrored: 64 windows. Windows at places all over a mirrored scene show each
place in the window the same ground, so that less of the ground is in their means than in those of a region."""
_BATCH = 8
_DAYS = TemporalSpec.range("2017-06-01", "2017-07-01")
"""Of the sample scene."""


@dataclass(frozen=True, eq=False)
class Offsets:
    """The mean token of each place in a window, less the mean of its token grid."""

    values: Tensor
    """`[N, D]`, zero for prefix tokens."""
    layout: TokenLayout
    """Of the window."""
    about: Debiased
    """Where they come from."""

    def taken_out(self, whole: Tokens, frame: Frame) -> Tokens:
        """The tokens of a stitched chip without them.

        Args:
            whole: What `stitch` made of the windows of the frame.
            frame: The windows that tokens see each other in.
        """
        everywhere = self.values.expand(len(frame.windows), *self.values.shape)
        return Tokens(whole.values - stitch(everywhere, self.layout, frame).values, whole.layout)

    def compact(self, embedder: Embedder, frame: Frame) -> PositionMeans | None:
        """In cells of the merged grid, to be kept beside it; `None` where they do not add up: of a maximum of grids."""
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
    """Those of the region itself; `None` where a place in the window was not seen in `MIN_WINDOWS`.

    Tokens on padding and nodata do not count.

    Args:
        tokens: `[windows, N, D]`.
        layout: Of a window.
        validity: Of the frame with those windows.
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
    """Those of the sample scene, through the same network with the same knobs; computed once while networks are kept.

    Raises:
        SpecError: The sample scene does not have what the model is fed.
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
    return _KEPT.get(key, lambda: _of_sample(frame, missing, job))


_KEPT: KeptNetworks[Offsets] = KeptNetworks(8)


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
    """The whole sample scene, in what the model is fed at the place."""
    if job.reference is None:
        raise SpecError("Expected imagery for a reference, got none.", fix="plan the job with debias in its output")
    try:
        for modality, sensor in job.request.inputs:
            if modality.name not in absent:
                job.reference.require(modality.name, sensor)
        queries = queries_for(job.request, job.reference, None, _DAYS)
        return {query.modality: job.reference.fetch(query) for query in queries if query.modality not in absent}
    except RSEmbedError as error:
        side_km = 6 * frame.windows[0].height * job.request.scale_m / 1000
        raise SpecError(
            f"Expected {MIN_WINDOWS} windows, or imagery that the sample scene has, to take out what tokens carry of "
            f"their place, got {len(frame.windows)} window(s).",
            sample=error.headline,
            fix=f"a region of some {side_km:.0f} km a side with input_prep='tile', other modalities, or debias='none'",
        ) from error


def _shifts(chips: dict[str, Chip], job: Job) -> list[tuple[int, int]]:
    """North-west corners of windows, pixels of the shared grid: spread evenly over the scene and its mirror images."""
    modality = next(modality for modality, _ in job.request.inputs if modality.name in chips)
    height, width = (2 * px // modality.grid_px for px in chips[modality.name].shape_px)
    steps = [(i, j) for i in range(SHIFTS) for j in range(SHIFTS)]
    # Sheared, so that every window starts on a row and a column of its own.
    return [(int(height * (i + j / SHIFTS) / SHIFTS), int(width * (j + i / SHIFTS) / SHIFTS)) for i, j in steps]


def _cut(chips: dict[str, Chip], start: tuple[int, int], size: tuple[int, int], job: Job) -> dict[str, Chip]:
    """A window of the mirrored scene; as a place it has the scene's north-west corner."""
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
    """Which pixels of a side are met from one on, if it is reflected at both ends for ever."""
    places = np.arange(first, first + count) % (2 * side)
    return np.where(places < side, places, 2 * side - 1 - places)


def _each(frame: Frame) -> Iterator[Frame]:
    """A frame for each window alone."""
    ends = [start + keep for start, keep in zip(frame.origin_px, frame.keep_px, strict=True)]
    for window in frame.windows:
        size = (window.height, window.width)
        keep = (min(window.height, ends[0] - window.row), min(window.width, ends[1] - window.col))
        yield replace(frame, windows=(window,), origin_px=(window.row, window.col), extent_px=size, keep_px=keep)


def _counted(tokens: Tensor, layout: TokenLayout, validity: Validity) -> Tensor:
    """`[N]`: the patch tokens of a window that lie on the chip, and on something to see."""
    return kept_tokens(layout, validity.frame) & validity.tokens(Tokens(tokens[None], layout))


def _averaged(coming: Iterable[tuple[Tensor, Tensor]], layout: TokenLayout) -> tuple[Tensor, int]:
    """Means of places less the mean of their grid `[N, D]`, and over how many windows: the fewest of any place.

    Args:
        coming: Of each window its tokens `[N, D]`, and which of them count, `[N]`.
        layout: Of a window.
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
