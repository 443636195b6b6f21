"""Prithvi-EO-2.0: a vision transformer over one or several dated images.

Positions are computed, for column, row and number of the frame. Models that were trained with date and place add codes
of them.

Source: IBM/terratorch 1.2.11, models/backbones/prithvi_mae.py; paper arXiv:2412.02732.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.layers import LRUCache, sincos_1d
from rs_embed.encoders.tokens import TokenGrid, Tokens
from rs_embed.encoders.vit import ViT
from rs_embed.errors import BandMismatch, InputError

BANDS = 6
TRAINED_PX = 224
"""Side of the images of the training. Positions are computed for it, and resized to other images."""
EPS = 1e-5
SIZES_KEPT = 4
"""Number of sizes of inputs whose positions are kept."""


class FramePatches(nn.Module):
    """One linear map of all pixels of a patch of one frame.

    Args:
        dim: Token width.
        patch_px: Side of a patch, pixels.
    """

    def __init__(self, *, dim: int, patch_px: int) -> None:
        super().__init__()
        self.proj: nn.Conv3d = nn.Conv3d(BANDS, dim, (1, patch_px, patch_px), (1, patch_px, patch_px))

    def forward(self, frames: Float[Tensor, "batch time band height width"]) -> Float[Tensor, "batch time dim row col"]:
        """Embed each patch; the kernel has no extent in time, so frames are a batch of images."""
        patches = F.conv2d(
            frames.flatten(0, 1), self.proj.weight.squeeze(2), self.proj.bias, stride=self.proj.stride[1:]
        )
        by_frame: Tensor = patches.unflatten(0, frames.shape[:2])
        return by_frame


class ScaledCode(nn.Module):
    """The learned factor of a code."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: nn.Parameter = nn.Parameter(torch.ones(1))

    def forward(self, pair: Float[Tensor, "*batch 2"], dim: int) -> Float[Tensor, "*batch dim"]:
        """Encode two numbers, each in one half of the code."""
        first, second = pair.unbind(-1)
        return self.scale * torch.cat([_code(first, dim // 2), _code(second, dim - dim // 2)], dim=-1)


class PrithviEncoder(ViT):
    """The encoder of Prithvi-EO-2.0.

    Args:
        dim: Token width, a multiple of 16 and of `heads`.
        depth: Number of blocks.
        heads: Number of heads.
        patch_px: Side of a patch, pixels.
        told: 1 for a model that was trained with date and place.
    """

    def __init__(self, *, dim: int, depth: int, heads: int, patch_px: int, told: int = 0) -> None:
        super().__init__(dim=dim, depth=depth, heads=heads, side=0, eps=EPS)
        self.patch_embed: FramePatches = FramePatches(dim=dim, patch_px=patch_px)
        if told:
            self.temporal_embed_enc: ScaledCode = ScaledCode()
            self.location_embed_enc: ScaledCode = ScaledCode()
        self._told = bool(told)
        self._patch_px = patch_px
        self._codes: LRUCache[Tensor] = LRUCache(SIZES_KEPT)

    def forward(
        self,
        frames: Float[Tensor, "batch time band height width"],
        dates: Float[Tensor, "batch dates 2"] | None = None,
        place: Float[Tensor, "batch 2"] | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tokens:
        """Encode images: a class token, then the patches of each frame, row by row. Each frame is a grid.

        Args:
            frames: Standardised pixels, in order of time.
            dates: Year and day of the year (1 January = 1) of each frame; unknown ones may be left out.
            place: Latitude and longitude, degrees; may be left out.
            layers: See `ViT.mixed`.

        Raises:
            BandMismatch: There are not six bands.
            InputError: The images do not consist of whole patches, the numbers of dates and frames differ, or the model
                takes neither date nor place.
            SpecError: A layer does not exist.
        """
        self._check(frames, dates, place)
        patches = self.patch_embed(frames).float()
        time, dim, rows, cols = patches.shape[1:]
        tokens = patches.flatten(3).mT
        if dates is not None:
            tokens = tokens + self.temporal_embed_enc(dates, dim)[:, :, None]
        if place is not None:
            tokens = tokens + self.location_embed_enc(place, dim)[:, None, None]
        grids = tuple(TokenGrid(f"frame{number}" if time > 1 else "patch", rows, cols) for number in range(time))
        key = (time, rows, cols, dim, tokens.device)
        side = TRAINED_PX // self._patch_px
        codes = self._codes.get(key, lambda: positions(time, rows, cols, dim, side).to(tokens.device))
        return self.mixed(tokens.flatten(1, 2), codes, grids, layers)

    def _check(self, frames: Tensor, dates: Tensor | None, place: Tensor | None) -> None:
        time, bands, height, width = frames.shape[1:]
        if bands != BANDS:
            raise BandMismatch(f"Expected {BANDS} bands, got {bands}.", fix="pass all bands, in their order")
        if height % self._patch_px or width % self._patch_px or not time * height * width:
            raise InputError(
                f"Expected frames of whole patches of {self._patch_px} px, got {time} of {height} x {width} px.",
                fix="crop, pad or resize them",
            )
        if dates is not None and dates.shape[1] != time:
            raise InputError(f"Expected {time} dates, one per frame, got {dates.shape[1]}.", fix="pass one per frame")
        if not self._told and (dates is not None or place is not None):
            raise InputError(
                "Expected no date and no place: this model was trained without them.", fix="leave them out"
            )


def positions(time: int, rows: int, cols: int, dim: int, side: int) -> Float[Tensor, "1 token dim"]:
    """Return the codes of the class token, which is 0, and of the patches, frame by frame, row by row.

    Args:
        time: Number of frames.
        rows: Rows of patches.
        cols: Columns of patches.
        dim: Token width.
        side: Rows, and columns, for which codes are computed; other sizes are interpolated, as in TerraTorch.
    """
    wide, deep = dim // 16 * 6, dim // 16 * 4
    across = torch.stack([sincos_1d(float(number), wide) for number in range(side)])
    along = torch.stack([sincos_1d(float(number), deep) for number in range(time)])
    table = torch.cat(
        [
            across[None, None].expand(time, side, -1, -1),
            across[None, :, None].expand(time, -1, side, -1),
            along[:, None, None].expand(-1, side, side, -1),
        ],
        dim=-1,
    )
    if (rows, cols) != (side, side):
        table = F.interpolate(table.movedim(3, 1), (rows, cols), mode="bicubic", align_corners=True).movedim(1, 3)
    return torch.cat([torch.zeros(1, dim, device="cpu"), table.flatten(0, 2)])[None]


def _code(number: Float[Tensor, "*batch"], dim: int) -> Float[Tensor, "*batch dim"]:
    """Encode a number as sines, then cosines, in float32 as the authors do: years are large, and rounding shows."""
    index = torch.arange(dim // 2, dtype=torch.float32, device=number.device)
    angle = number[..., None] * (1.0 / 10000 ** (index / (dim / 2.0)))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
