"""Validity of tokens: the share of valid pixels under each, from the masks of the chips."""

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
"""Edges of tokens are rounded to a millionth of a pixel, so that 205.00000000000003 does not include the next pixel."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Where the chip of one modality has values."""

    counts: NDArray[np.uint16]
    """`[H, W]`: number of frames in which every band has a value."""
    frames: int
    """Number of frames."""
    grid_px: int
    """Chip pixels along the side of one frame pixel."""


def seen_in(chips: Mapping[str, Chip], request: ModelRequest) -> dict[str, Seen]:
    """Return the masks of the modalities that have nodata. Chips without nodata need no mask."""
    return {
        modality.name: Seen(
            np.isfinite(chip.values).all(axis=1).sum(axis=0, dtype=np.uint16), len(chip.times), modality.grid_px
        )
        for modality, _ in request.inputs
        if modality.name in chips and (chip := chips[modality.name]).valid_fraction < 1
    }


@dataclass(frozen=True)
class Validity:
    """Which tokens of one item lie on enough valid pixels."""

    seen: Mapping[str, Seen]
    """Masks of the modalities with nodata."""
    frame: Frame
    embedder: Embedder
    absent: Collection[str] = ()
    """Modalities that the place lacks."""

    @property
    def _all(self) -> tuple[str, ...]:
        names = (modality.name for modality, _ in self.embedder.request.inputs)
        return tuple(name for name in names if name not in self.absent)

    def share(self, cells: tuple[int, int], modalities: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Compute the share of valid pixels under each token, over frames and modalities.

        Padding does not count; a token that lies wholly on padding has a share of 1.

        Args:
            cells: Rows and columns of the tokens that span the frame.
            modalities: The modalities that the tokens see, with equal weights; `None` for all.

        Returns:
            `[row, col]`, from 0 to 1; 0 only where no modality has a valid pixel in any frame.
        """
        names = self._all if modalities is None else modalities
        whole = np.ones(cells)
        shares = [_share(self.seen[name], self.frame, cells) if name in self.seen else whole for name in names]
        mean: NDArray[np.float32] = np.mean(shares, axis=0).astype(np.float32)
        return mean

    def tokens(self, whole: Tokens) -> Tensor:
        """Return a mask `[N]` of the tokens with enough valid pixels. Prefix tokens are always included."""
        if self.embedder.readout.keeps_nodata:
            return whole.values[0].isfinite().all(dim=-1)
        prefix = torch.ones(whole.layout.prefix, dtype=torch.bool)
        grids = [self._enough(grid, (grid.height, grid.width)).flatten() for grid in whole.layout.grids]
        return torch.cat([prefix, *grids])

    def merged(self, whole: Tokens) -> tuple[Tensor, Tensor]:
        """Merge the token grids into one.

        A cell is merged from the grids that have enough valid pixels both in the cell and under their token there.

        Returns:
            The merged grid `[C, H, W]`, NaN on nodata, and the mask of its values: `[1, H, W]`, or one layer for each
            block of channels.
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
        """Return a mask `[row, col]` of enough valid pixels for a grid's tokens, in cells of the grid or finer ones."""
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
    """Sum along the first axis between consecutive edges; a pixel cut by an edge counts in proportion."""
    sums = np.zeros((len(edges) - 1, values.shape[1]))
    for row, (start, stop) in enumerate(pairwise(edges)):
        pixels = np.arange(int(start), math.ceil(stop))
        parts = np.minimum(pixels + 1, stop) - np.maximum(pixels, start)
        sums[row] = parts @ values[pixels[0] : pixels[-1] + 1] if len(pixels) else 0
    return sums
