"""Embed pixels as AnySat's sub-tokens: a convolution for images, a small temporal attention for time series.

Source: gastruc/AnySat, models/networks/encoder/utils/patch_embeddings.py and utils/ltae.py; the temporal part is
L-TAE, Garnot and Landrieu 2020, arXiv:2007.00586.
"""

import itertools
import math

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.anysat.modalities import AnySatModality
from rs_embed.encoders.kernels.linear import Linear
from rs_embed.encoders.layers import at_once

TIME_HEADS = 16
"""Heads of the temporal attention, each for one sixteenth of the channels."""

KEY_DIM = 8
"""Length of the keys of a temporal head."""

GROUP_EPS = 1e-5
"""Epsilon of all group norms."""

VECTORS_AT_ONCE = 4096
"""Pixels x dates that the temporal part processes at once: at base size 25 MB per array, which malloc can reuse."""


def even_sizes(length: int, at_most: int) -> list[int]:
    """Split a length into pieces of nearly equal size, at least 1, as a short last piece would be slow."""
    pieces = math.ceil(length / max(1, at_most))
    return [length // pieces + (i < length % pieces) for i in range(pieces)]


def _normalise(groups: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
    """Normalise each vector to mean 0 and variance 1, in the type of the input.

    In float32 on the CPU, torch takes half the time if given a scale of 1 and a shift of 0 (0.3 instead of 0.6 ns per
    value).
    """
    size = groups.shape[-1:]
    plain = groups.dtype != torch.float32
    weight, bias = (None, None) if plain else (groups.new_ones(size), groups.new_zeros(size))
    return F.layer_norm(groups, size, weight, bias, eps=GROUP_EPS)


def _scale_and_shift(
    normed: Float[Tensor, "*batch dim"], weight: Float[Tensor, " dim"], bias: Float[Tensor, " dim"]
) -> Float[Tensor, "*batch dim"]:
    """Compute `normed * weight + bias`, in place if no gradient needs `normed`."""
    weight, bias = weight.to(normed), bias.to(normed)
    return torch.addcmul(bias, normed, weight, out=None if torch.is_grad_enabled() else normed)


class VectorNorm(nn.GroupNorm):
    """Group norm of single vectors, with groups along the last axis.

    It is computed as a layer norm of each group, which on the CPU takes 60 % (bf16: 30 %) of the time of torch's group
    norm.
    """

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Normalise each group of each vector, then scale and shift the channels."""
        normed = _normalise(x.unflatten(-1, (self.num_groups, -1))).view_as(x)
        return _scale_and_shift(normed, self.weight, self.bias)


class SeriesNorm(nn.GroupNorm):
    """Group norm of a whole series: each head's channels over all dates of a pixel together.

    The features of a date of s2 therefore depend on the other dates.
    """

    def forward(self, x: Float[Tensor, "pixel head time head_dim"]) -> Float[Tensor, "pixel head time head_dim"]:
        """Normalise each head of each pixel, then scale and shift the channels."""
        normed = _normalise(x.flatten(2)).flatten(1)
        # Expanded for all dates: repeating groups of 48 channels on the fly takes five times as long in bf16.
        weight, bias = (part.view(x.shape[1], 1, -1).expand(x.shape[1:]).flatten() for part in (self.weight, self.bias))
        return _scale_and_shift(normed, weight, bias).view(x.shape)


class DateKeys(nn.Module):
    """Scores the dates of a pixel, in each head.

    Args:
        dim: Length of the features to score.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.Q = nn.Parameter(torch.zeros(TIME_HEADS, KEY_DIM))
        self.fc1_k: nn.Linear = Linear(dim, TIME_HEADS * KEY_DIM)

    def forward(self, x: Float[Tensor, "pixel time dim"]) -> Float[Tensor, "pixel time head"]:
        """Weight the dates by the softmax over dates of q . k / sqrt(8), with a learned query per head.

        The query is the same for all pixels, so it is multiplied with the key matrix once, and the product with the
        features. The bias of the keys adds a constant to every date, which softmax cancels. There is no padding mask: a
        missing date padded with zeros takes part, as in the reference.
        """
        keys = self.fc1_k.weight.unflatten(0, (TIME_HEADS, KEY_DIM))
        scorer = (self.Q[:, None] @ keys)[:, 0] * KEY_DIM**-0.5
        return F.linear(x, scorer.to(x)).softmax(dim=1)


class Ltae(nn.Module):
    """Temporal attention of single pixels.

    Args:
        channels: Bands.
        dim: Token width.
        period: Base of the date code.
        across_dates: Whether to normalise the features over all dates of a pixel together.
    """

    def __init__(self, *, channels: int, dim: int, period: int, across_dates: bool) -> None:
        super().__init__()
        widths = (channels, dim // 8, dim // 2, dim, 2 * dim, dim)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            # The published keys count four modules per layer; one of them has no effect on inference.
            layers += [Linear(before, after), VectorNorm(4, after), nn.Identity(), nn.ReLU(inplace=True)]
        self.inconv: nn.Sequential = nn.Sequential(*layers)
        self.in_norm: SeriesNorm | None = SeriesNorm(TIME_HEADS, dim) if across_dates else None
        self.attention_heads: DateKeys = DateKeys(dim=dim)
        self.mlp: nn.Sequential = nn.Sequential(Linear(dim, dim), VectorNorm(4, dim), nn.ReLU(inplace=True))
        self.out_norm: VectorNorm = VectorNorm(TIME_HEADS, dim)
        self.period = period
        self.code_length: int = dim // TIME_HEADS

    def forward(
        self, x: Float[Tensor, "pixel time channel"], date_code: Float[Tensor, "pixel time head_dim"]
    ) -> Float[Tensor, "pixel dim"]:
        """Summarise the series of each pixel.

        Args:
            x: Standardised values.
            date_code: From `date_code`.
        """
        heads = self.inconv(x).unflatten(-1, (TIME_HEADS, -1)).transpose(1, 2)
        if self.in_norm is not None:
            heads = self.in_norm(heads)
        heads = heads + date_code.to(heads.dtype)[:, None]
        weights = self.attention_heads(heads.transpose(1, 2).flatten(2))
        # The values are the dated features themselves: head h takes the h-th sixteenth of the channels.
        mixed = (weights.mT[:, :, None] @ heads).flatten(1)
        out: Tensor = self.out_norm(self.mlp(mixed))
        return out

    def date_code(self, days: Num[Tensor, "batch time"]) -> Float[Tensor, "batch time head_dim"]:
        """Encode dates by alternating sines and cosines, the same for every head.

        Computed in float64 on the CPU, as float32 angles of 366 are off by 1e-5; returned as float32.

        Args:
            days: Dates in days; any real number.
        """
        index = torch.arange(self.code_length, dtype=torch.float64, device="cpu")
        angle = days.to("cpu", torch.float64)[..., None] / self.period ** (2 * (index // 2) / self.code_length)
        return torch.where(index % 2 == 0, angle.sin(), angle.cos()).float()


class SeriesProjector(nn.Module):
    """Sub-tokens of a time series: one per pixel.

    Args:
        modality: The modality of the series.
        dim: Token width.
    """

    def __init__(self, modality: AnySatModality, *, dim: int) -> None:
        super().__init__()
        self.pad_parameter: nn.Parameter = nn.Parameter(torch.zeros(()))
        period, across_dates = modality.period or 0, modality.norm_across_dates
        self.patch_embed: Ltae = Ltae(channels=modality.channels, dim=dim, period=period, across_dates=across_dates)

    def cut(
        self,
        series: Float[Tensor, "batch time channel height width"],
        patch_px: int,
        days: Num[Tensor, "batch time"],
        mask: Shaped[Tensor, "batch time channel height width"] | None,
    ) -> tuple[Float[Tensor, "patch sub time channel"], Float[Tensor, "patch time head_dim"]]:
        """Cut into patches, row by row, with the codes of their dates; masked values become the pad value."""
        if mask is not None:
            series = torch.where(mask != 0, series, self.pad_parameter.to(series))
        squares = series.unflatten(3, (-1, patch_px)).unflatten(5, (-1, patch_px))
        pieces: Tensor = squares.permute(0, 3, 5, 4, 6, 1, 2).flatten(3, 4).flatten(0, 2)
        codes = self.patch_embed.date_code(days).to(series.device)
        return pieces, codes.repeat_interleave(len(pieces) // len(days), dim=0)

    def forward(
        self, pieces: Float[Tensor, "patch sub time channel"], codes: Float[Tensor, "patch time head_dim"]
    ) -> Float[Tensor, "patch sub dim"]:
        """Embed the pixels returned by `cut`, a few thousand vectors at a time."""
        patches, pixels, time, _ = pieces.shape
        sizes = even_sizes(patches * pixels, at_once(VECTORS_AT_ONCE, pieces) // time)
        series = pieces.flatten(0, 1).split(sizes)
        dates = codes.repeat_interleave(pixels, dim=0).split(sizes)
        parts = [self.patch_embed(*part) for part in zip(series, dates, strict=True)]
        sub: Tensor = torch.cat(parts).unflatten(0, (patches, pixels))
        return sub


class ImageProjector(nn.Module):
    """Sub-tokens of a single image: squares of 2 m (aerial) or 10 m.

    Args:
        modality: The modality of the image.
        dim: Token width.
    """

    def __init__(self, modality: AnySatModality, *, dim: int) -> None:
        super().__init__()
        kernel_px = modality.kernel_px
        self.patch_embed: nn.Conv2d = nn.Conv2d(modality.channels, dim, kernel_px, stride=kernel_px, bias=False)
        outer, inner = nn.LayerNorm(2 * dim), nn.LayerNorm(dim)
        self.mlp: nn.Sequential = nn.Sequential(
            Linear(dim, 2 * dim), outer, nn.ReLU(), Linear(2 * dim, dim), inner, nn.ReLU()
        )
        self.cell_tokens: int = modality.cell_tokens

    def cut(
        self, images: Float[Tensor, "batch channel height width"], patch_px: int
    ) -> tuple[Float[Tensor, "patch channel patch_px patch_px"]]:
        """Cut into patches, row by row."""
        squares = images.unflatten(2, (-1, patch_px)).unflatten(4, (-1, patch_px))
        return (squares.permute(0, 2, 4, 1, 3, 5).flatten(0, 2),)

    def forward(self, pieces: Float[Tensor, "patch channel side_px side_px"]) -> Float[Tensor, "patch sub dim"]:
        """Embed the patches returned by `cut`.

        Sub-tokens are ordered cell by cell (10 m), and row by row within a cell. For aerial images and patches of more
        than one cell this is not raster order. The spatial encoder nevertheless gives them the positions and distances
        of raster order, as the network was trained this way. See `raster_order`.
        """
        squares = self.patch_embed(pieces)
        cells = squares.unflatten(2, (-1, self.cell_tokens)).unflatten(4, (-1, self.cell_tokens))
        sub: Tensor = self.mlp(cells.permute(0, 2, 4, 3, 5, 1).flatten(1, 4))
        return sub


def raster_order(scale: int, cell_tokens: int) -> Num[Tensor, " sub"]:
    """Return, for each sub-token of a patch in raster order, its index in the order of `ImageProjector`.

    Args:
        scale: Side of the patch in cells.
        cell_tokens: Side of a cell in sub-tokens.
    """
    by_cell = torch.arange((scale * cell_tokens) ** 2).view(scale, scale, cell_tokens, cell_tokens)
    return by_cell.transpose(1, 2).flatten()
