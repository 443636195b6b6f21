"""The first layer of Galileo: kernels for patches of any size, and the codes of dates, months and positions."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rs_embed.encoders.kernels.linear import linear
from rs_embed.encoders.layers import CachesFromWeights

KERNEL_PX = 8
"""Side of the stored kernels, pixels, which is also the largest patch."""
MOST_DATES = 24
"""Rows of the table of dates."""
MONTHS = 12
TEMPERATURE = 10_000.0


@lru_cache(maxsize=KERNEL_PX)
def shrinking(patch_px: int) -> Float[Tensor, "small 64"]:
    """Return the matrix that adapts a kernel of 8 x 8 to smaller patches.

    It is the pseudo-inverse of bicubic resizing with antialiasing, so that a resized patch gets the embedding of the
    original. Computed in float64 on the CPU; returned as float32.
    """
    with torch.inference_mode(False):
        units = torch.eye(KERNEL_PX**2, dtype=torch.float64, device="cpu").view(-1, 1, KERNEL_PX, KERNEL_PX)
        resized = interpolate(units, (patch_px, patch_px), mode="bicubic", antialias=True)
        inverse: Tensor = torch.linalg.pinv(resized.flatten(1))
        return inverse.float()


class Projection(CachesFromWeights):
    """The kernel of a group, for patches of any size up to its own."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj: nn.Conv2d = nn.Conv2d(channels, dim, KERNEL_PX)  # for the names of its parameters
        self._resized: dict[int, Tensor] = {}

    def drop_cached(self) -> None:
        """See `CachesFromWeights`."""
        self._resized.clear()

    def kernel(self, patch_px: int) -> Float[Tensor, "dim values"]:
        """Return the weights for the pixels of a patch, channel by channel."""
        flat = self.proj.weight.flatten(2)
        if patch_px == KERNEL_PX:
            return flat.flatten(1)
        if torch.is_grad_enabled():
            return (flat @ shrinking(patch_px).to(flat).mT).flatten(1)
        if patch_px not in self._resized:
            self._resized[patch_px] = (flat @ shrinking(patch_px).to(flat).mT).flatten(1)
        return self._resized[patch_px]

    def forward(
        self, pixels: Float[Tensor, "*batch channel height width"], patch_px: int
    ) -> Float[Tensor, "*batch row col dim"]:
        """Embed each patch."""
        cut = pixels.unflatten(-1, (-1, patch_px)).unflatten(-3, (-1, patch_px))  # [..., channel, row, y, col, x]
        patches = cut.movedim((-4, -2), (-5, -4)).flatten(-3)  # [..., row, col, channel y x]
        return linear(patches, self.kernel(patch_px), self.proj.bias)


def code(numbers: Num[Tensor, " n"], dim: int) -> Float[Tensor, "n dim"]:
    """Encode numbers as sines, then cosines.

    The exponent is a quarter of the usual one, as in the training of the weights. Computed in float64.
    """
    rates = TEMPERATURE ** (-torch.arange(dim // 2, dtype=torch.float64, device="cpu") / dim / 2)
    angles = numbers.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


@lru_cache(maxsize=64)
def places(rows: int, cols: int, step: float, dim: int) -> Float[Tensor, "row col dim"]:
    """Encode the positions of a grid by their distance from its north-west corner: first the column, then the row.

    Args:
        rows: Number of rows, from north to south.
        cols: Number of columns, from west to east.
        step: Distance between neighbouring positions, in pixels of 10 m.
        dim: Length of a code, a multiple of 4.
    """
    with torch.inference_mode(False):
        across, down = (code(torch.arange(count, device="cpu") * step, dim // 2) for count in (cols, rows))
        return torch.cat([across.expand(rows, -1, -1), down[:, None].expand(-1, cols, -1)], dim=-1)


def month_table(dim: int) -> Float[Tensor, "12 dim"]:
    """Return the codes of the months: half of the channels repeat one sine, the other half one cosine."""
    angles = torch.arange(MONTHS, dtype=torch.float64, device="cpu") * (2 * math.pi / MONTHS)
    both = torch.stack([angles.sin(), angles.cos()], dim=1)
    return both.repeat_interleave(dim // 2, dim=1).float()
