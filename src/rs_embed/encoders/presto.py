"""Presto: a transformer over the months of a single pixel, without its neighbours.

Source: nasaharvest/presto 13173d0, single_file_presto.py (behaviour and names of the tensors); Tseng et al. 2023,
arXiv:2304.14065.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rs_embed.encoders.kernels.attention import attend_short
from rs_embed.encoders.kernels.linear import Linear, keep_freed_memory, prepared
from rs_embed.encoders.layers import Block, Encoder, add, at_once

GROUPS: Mapping[str, int] = {
    "S1": 2, "S2_RGB": 3, "S2_Red_Edge": 3, "S2_NIR_10m": 1, "S2_NIR_20m": 1, "S2_SWIR": 2,
    "ERA5": 2, "SRTM": 2, "NDVI": 1,
}  # fmt: skip
"""Channel group -> number of channels, in the order of the channel codes."""
LAND_COVER, NO_CLASS = "dynamic_world", 9
"""Name of land cover, which has an embedding table and follows the groups; and the class that means none."""
STATIC = "SRTM"
"""The only group without dates."""
MOST_STEPS = 24
PIXELS_AT_ONCE = 64
"""Pixels to encode at once on a CPU: with 73 tokens each, 2.4 MB per copy."""
NORM_EPS = 1e-5


@dataclass(frozen=True)
class PixelSeries:
    """The series of some pixels. Missing groups are hidden; a token is visible where its group is."""

    values: Mapping[str, Float[Tensor, "pixel time channel"]]
    """Group -> normalised values; the static group has a single step. Land cover is `[pixel, time]`, integers."""
    seen: Mapping[str, Bool[Tensor, "pixel time"]]
    """Group -> mask of its visible steps."""
    months: Int[Tensor, "#pixel time"]
    """Calendar month of each step, January = 0."""
    xyz: Float[Tensor, "pixel 3"]
    """Location of each pixel on the unit sphere."""

    def take(self, index: Int[Tensor, " some"]) -> "PixelSeries":
        """Return a selection of the pixels."""
        months = self.months if len(self.months) == 1 else self.months[index]
        values, seen = ({name: one[index] for name, one in kind.items()} for kind in (self.values, self.seen))
        return PixelSeries(values, seen, months, self.xyz[index])


@dataclass(frozen=True)
class _Sequences:
    """Some pixels with the same number of visible tokens."""

    tokens: Float[Tensor, "pixel token dim"]
    index: Int[Tensor, " pixel"]
    """Indices of the pixels."""


def norm(dim: int) -> nn.Module:
    """Build the LayerNorm of a block."""
    return nn.LayerNorm(dim, eps=NORM_EPS)


class PrestoEncoder(Encoder):
    """The encoder of Presto: one vector per pixel.

    Args:
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.eo_patch_embed: nn.ModuleDict = nn.ModuleDict({name: Linear(count, dim) for name, count in GROUPS.items()})
        self.dw_embed: nn.Embedding = nn.Embedding(NO_CLASS + 1, dim)
        self.latlon_embed: nn.Linear = Linear(3, dim)
        self.pos_embed: nn.Parameter = nn.Parameter(torch.empty(1, MOST_STEPS, dim // 2))
        self.month_embed: nn.Embedding = nn.Embedding(12, dim // 4)
        self.channel_embed: nn.Embedding = nn.Embedding(len(GROUPS) + 1, dim // 4)
        self.blocks: nn.ModuleList = nn.ModuleList(Block(dim=dim, heads=heads, norm=norm) for _ in range(depth))
        self.norm: nn.Module = norm(dim)

    def forward(self, series: PixelSeries) -> Float[Tensor, "pixel dim"]:
        """Return the vector of each pixel: the layer norm of the mean of its tokens, including that of the location."""
        if series.xyz.device.type == "cpu":
            keep_freed_memory()
        vectors = series.xyz.new_empty(len(series.xyz), self.pos_embed.shape[-1] * 2)
        blocks = [cast("Block", block) for block in self.blocks]
        with prepared(self, device_type=series.xyz.device.type):
            for one in self._sequences(series):
                x = one.tokens
                for block in blocks[:-1]:
                    x = _after(block, x)
                vectors[one.index] = self.norm(_mean_after(blocks[-1], x)).float()
        return vectors

    def tokens(self, series: PixelSeries) -> Float[Tensor, "pixel token dim"]:
        """Return all tokens after the norm, the location first, of pixels with the same number of visible tokens."""
        with prepared(self, device_type=series.xyz.device.type):
            x = torch.cat([one.tokens for one in self._sequences(series)])
            for block in self.blocks:
                x = _after(cast("Block", block), x)
        out: Tensor = self.norm(x)
        return out

    def _sequences(self, series: PixelSeries) -> Iterator[_Sequences]:
        """Yield tokens of some pixels at a time, all with the same number of visible tokens, in any order."""
        names = [name for name in (*GROUPS, LAND_COVER) if name in series.values]
        seen = torch.cat([series.seen[name] for name in names], dim=1)
        counts = seen.sum(dim=1)
        for count in counts.unique().tolist():
            (same,) = torch.where(counts == count)
            for index in same.split(at_once(PIXELS_AT_ONCE, series.xyz)):
                part = series.take(index)
                every = torch.cat([self._embed(name, part) for name in names], dim=1)
                if count < every.shape[1]:
                    every = every[seen[index]].view(len(index), count, every.shape[-1])
                place = self.latlon_embed(part.xyz)[:, None].to(every.dtype)
                yield _Sequences(torch.cat([place, every], dim=1), index)

    def _embed(self, name: str, series: PixelSeries) -> Float[Tensor, "pixel time dim"]:
        """Return the tokens of a group with their codes."""
        land_cover = name == LAND_COVER
        values = self.dw_embed(series.values[name]) if land_cover else self.eo_patch_embed[name](series.values[name])
        channel = self.channel_embed.weight[len(GROUPS) if land_cover else [*GROUPS].index(name)]
        months = self.month_embed(series.months)  # [#pixel, time, dim / 4]
        steps = self.pos_embed[:, : months.shape[1]].expand(len(months), -1, -1)
        if name == STATIC:
            months, steps = torch.zeros_like(months[:, :1]), torch.zeros_like(steps[:, :1])
        codes = torch.cat([months, channel.expand(*months.shape[:2], -1), steps], dim=-1)
        coded: Tensor = values.to(codes.dtype) + codes
        return coded


def _attended(block: Block, x: Float[Tensor, "pixel token dim"]) -> Float[Tensor, "pixel token dim"]:
    """Run the first half of a block: attention with its residual connection."""
    qkv: Tensor = block.attn.qkv(block.norm1(x))
    q, k, v = qkv.view(*x.shape[:2], 3, block.attn.heads, -1).permute(2, 0, 3, 1, 4).unbind()
    mixed: Tensor = block.attn.proj(attend_short(q, k, v).transpose(1, 2).flatten(2))
    return add(x, mixed)


def _after(block: Block, x: Float[Tensor, "pixel token dim"]) -> Float[Tensor, "pixel token dim"]:
    """Run a whole block."""
    mixed = _attended(block, x)
    return add(mixed, block.mlp(block.norm2(mixed)))


def _mean_after(block: Block, x: Float[Tensor, "pixel token dim"]) -> Float[Tensor, "pixel dim"]:
    """Return the mean of a block's output tokens.

    The last layer of a block is linear, so the mean is taken before it, which saves a sixth of all products.
    """
    mixed = _attended(block, x)
    hidden = block.mlp.fc1(block.norm2(mixed)).mean(dim=1)
    return add(mixed.mean(dim=1), block.mlp.fc2(hidden))
