"""MOSAIKS random convolutional features (RCF): one fixed convolution, a two-sided ReLU, and an average per cell.

Nothing is trained: the filters are whitened pieces of real imagery (`embedders/whitening.py`).

Source: Rolf et al. 2021, doi:10.1038/s41467-021-24638-z, with the two sides of torchgeo's RCF: relu(y) and
relu(-y), y = conv(x) + bias. The authors' own code thresholds both sides, relu(conv(x) - 1) and
relu(-conv(x) - 1); |conv(x)| has a median of 14 on held-out chips, so that the two hardly differ.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BandMismatch, SpecError

_FILTERS_AT_ONCE = 64  # two maps of 64 x height x width float32 live at once: 34 MB at 256 x 256 px


class RcfEncoder(nn.Module):
    """Random convolutional features on a grid of cells.

    A new encoder has Gaussian filters and the bias -1, which is a baseline in itself. Load a filter bank for MOSAIKS.

    Args:
        filters: Number of filters. Each gives two features, so a token has `2 * filters` channels.
        bands: Number of channels of the input.
    """

    weight: Float[Tensor, "filter band 3 3"]
    bias: Float[Tensor, " filter"]

    def __init__(self, *, filters: int = 512, bands: int = 12) -> None:
        super().__init__()
        weight = torch.empty(filters, bands, 3, 3)
        # A bank follows where the device is `meta`, on which torch imports sympy for this: half a second.
        self.register_buffer("weight", weight if weight.is_meta else weight.normal_())
        self.register_buffer("bias", torch.full((filters,), -1.0))

    def forward(self, pixels: Float[Tensor, "batch band height width"], *, patch_px: int = 8) -> Tokens:
        """Compute tokens `[batch, cell, 2 * filters]`: the positive sides of all filters, then the negative ones.

        The outermost pixels are repeated beyond the edge, so that the map has the size of the input. Chips and filters
        are processed one after the other. Beyond input and output (twice in memory for a moment), the peak is 34 MB at
        256 x 256 px for any batch size, and the result of a chip does not depend on its batch.

        Args:
            pixels: Standardised with the bank's mean and std, in its band order, without NaN.
            patch_px: Side of the square cell that one token averages, pixels.

        Raises:
            BandMismatch: The number of channels is not `bands`.
            SpecError: Height or width is not a multiple of `patch_px`.
        """
        _, bands, height, width = pixels.shape
        if bands != self.weight.shape[1]:
            raise BandMismatch(
                f"Expected {self.weight.shape[1]} bands for the filter bank, got {bands}.",
                fix="pass every band of the bank, in its order",
            )
        if height % patch_px or width % patch_px:
            raise SpecError(
                f"Expected height and width as multiples of {patch_px} px, got {height} x {width}.",
                fix="choose a patch size that divides both, or crop",
            )
        grid = TokenGrid("cell", height // patch_px, width // patch_px)
        values = torch.stack([self._features(chip, patch_px) for chip in pixels])
        return Tokens(values, TokenLayout((grid,)))

    def _features(self, chip: Float[Tensor, "band height width"], patch_px: int) -> Float[Tensor, "cell feature"]:
        padded = F.pad(chip[None], (1, 1, 1, 1), mode="replicate")
        positive, negative = [], []
        for first in range(0, len(self.weight), _FILTERS_AT_ONCE):
            some = slice(first, first + _FILTERS_AT_ONCE)
            responses = F.conv2d(padded, self.weight[some], self.bias[some])
            positive.append(F.avg_pool2d(responses.relu(), patch_px))
            negative.append(F.avg_pool2d(responses.neg_().relu_(), patch_px))
        return torch.cat(positive + negative, dim=1)[0].flatten(1).T
