"""How much of the ground under each token was seen: the masks of the chips, in the geometry of the tokens."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.embedders._vit_mae_utils import merged_size, to_grid, to_valid_grid
from rs_embed.embedders.base import Embedder, ModelRequest
from rs_embed.embedders.prepare.framing import Frame
from rs_embed.encoders.tokens import TokenGrid, Tokens

EDGE_DECIMALS = 6
"""Edges of tokens are rounded to a millionth of a pixel: 205.00000000000003 must not see a sliver of the next pixel."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Where the chip of one modality has values."""

    counts: NDArray[np.uint16]
    """`[H, W]`: in how many frames every band has a value there."""
    frames: int
    """How many there are."""
    grid_px: int
    """Pixels of the chip along a pixel of the frame."""


def seen_in(chips: Mapping[str, Chip], request: ModelRequest) -> dict[str, Seen]:
    """The masks of those modalities that have nodata; a chip without any costs nothing."""
    return {
        modality.name: Seen(
            np.isfinite(chip.values).all(axis=1).sum(axis=0, dtype=np.uint16), len(chip.times), modality.grid_px
        )
        for modality, _ in request.inputs
        if modality.name in chips and (chip := chips[modality.name]).valid_fraction < 1
    }


@dataclass(frozen=True)
class Validity:
    """Which tokens of one item have something to see."""

    seen: Mapping[str, Seen]
    """Of the modalities with nodata."""
    frame: Frame
    embedder: Embedder
    absent: Collection[str] = ()
    """Modalities that the place lacks: nobody sees them."""

    @property
    def _all(self) -> tuple[str, ...]:
        names = (modality.name for modality, _ in self.embedder.request.inputs)
        return tuple(name for name in names if name not in self.absent)

    def share(self, cells: tuple[int, int], modalities: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Share of valid pixels under each token: of the pixels of the chip, over frames and modalities.

        Padding is neither valid nor not: it does not count, and a token that lies on nothing else has 1.

        Args:
            cells: Rows and columns of the tokens that span the frame.
            modalities: Those that the tokens see, each counting alike; `None`: all.

        Returns:
            `[row, col]`; 0 only where no modality has a valid pixel in any frame.
        """
        names = self._all if modalities is None else modalities
        whole = np.ones(cells)
        shares = [_share(self.seen[name], self.frame, cells) if name in self.seen else whole for name in names]
        mean: NDArray[np.float32] = np.mean(shares, axis=0).astype(np.float32)
        return mean

    def tokens(self, whole: Tokens) -> Tensor:
        """`[N]`: those with something to see; prefix tokens always."""
        if self.embedder.readout.keeps_nodata:
            return whole.values[0].isfinite().all(dim=-1)
        prefix = torch.ones(whole.layout.prefix, dtype=torch.bool)
        grids = [self._enough(grid, (grid.height, grid.width)).flatten() for grid in whole.layout.grids]
        return torch.cat([prefix, *grids])

    def merged(self, whole: Tokens) -> tuple[Tensor, Tensor]:
        """The merged grid `[C, H, W]`, NaN on nodata, and where it has values: `[1, H, W]`, or of each run of channels.

        A cell is merged from the grids that have something to see there: on its own ground, and under their token.
        """
        values, layout = whole.values, whole.layout
        merge, parts = self.embedder.readout.merge, self.embedder.readout.parts
        there, size = self.tokens(whole), merged_size(layout)
        if self.embedder.readout.keeps_nodata:  # NaN already
            return to_grid(values, layout, merge, parts)[0], there.reshape(1, *size)
        cells = torch.stack([self._enough(grid, size) for grid in layout.grids])
        if bool(there.all()) and bool(cells.all()):
            return to_grid(values, layout, merge, parts)[0], cells[:1]
        merged, read = to_valid_grid(values, layout, there, cells, merge=merge, parts=parts)
        return merged[0], read

    def _enough(self, grid: TokenGrid, cells: tuple[int, int]) -> Tensor:
        """`[row, col]`: where what a grid's tokens see is valid enough, in cells of the grid or finer ones."""
        modalities = [name for name in self.embedder.readout.grids.get(grid.name, self._all) if name in self._all]
        if not modalities:
            return torch.zeros(cells, dtype=torch.bool)
        if not any(name in self.seen for name in modalities):
            return torch.ones(cells, dtype=torch.bool)
        share, floor = self.share(cells, modalities), np.float32(self.embedder.request.knobs.min_token_valid)
        return torch.from_numpy((share > 0) & (share >= floor))


def _share(seen: Seen, frame: Frame, cells: tuple[int, int]) -> NDArray[np.float64]:
    edges = [
        (np.round((start + extent * np.arange(count + 1) / count) * seen.grid_px, EDGE_DECIMALS)).clip(0, side)
        for start, extent, count, side in zip(
            frame.token_origin_px, frame.extent_px, cells, seen.counts.shape, strict=True
        )
    ]
    heights, widths = (np.diff(one) for one in edges)
    pixels = heights[:, None] * widths * seen.frames
    valid = _sums(_sums(seen.counts, edges[0]).T, edges[1]).T
    shares: NDArray[np.float64] = np.divide(valid, pixels, out=np.ones(cells), where=pixels > 0)
    return shares


def _sums(values: NDArray[np.generic], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums along the first axis between one edge and the next; a pixel that an edge cuts counts by its part."""
    sums = np.zeros((len(edges) - 1, values.shape[1]))
    for row, (start, stop) in enumerate(pairwise(edges)):
        pixels = np.arange(int(start), math.ceil(stop))
        parts = np.minimum(pixels + 1, stop) - np.maximum(pixels, start)
        sums[row] = parts @ values[pixels[0] : pixels[-1] + 1] if len(pixels) else 0
    return sums
