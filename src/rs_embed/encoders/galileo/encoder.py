"""Galileo: one transformer over all visible tokens of the images, maps, series and static facts of a place.

Source: nasaharvest/galileo 0f0b5b9, single_file_galileo.py; paper arXiv:2502.09356.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rs_embed.encoders.galileo.embedding import KERNEL_PX, MONTHS, MOST_DATES, Projection, code, month_table, places
from rs_embed.encoders.galileo.groups import GROUPS, SPACE, SPACE_TIME, STATIC, TIME, Groups
from rs_embed.encoders.kernels.attention import attend
from rs_embed.encoders.kernels.linear import Linear, prepared
from rs_embed.encoders.layers import Encoder, Mlp, add, at_once, counted_layers, run_blocks, side_by_side
from rs_embed.errors import BandMismatch, InputError, SpecError

NORM_EPS = 1e-5
TOKENS_AT_ONCE = 2048
"""Number of tokens that the blocks process at once: 4 MB in the widest array at nano size."""


@dataclass(frozen=True, eq=False)
class GroupTokens:
    """The output of Galileo: one token per group, date and position."""

    values: Mapping[str, Tensor]
    """Group -> tokens: `[batch, time, row, col, dim]` for images, `[batch, row, col, dim]` for maps, `[batch, time,
    dim]` for series, `[batch, dim]` for static facts. Hidden tokens are 0."""
    visible: Mapping[str, Tensor]
    """Group -> mask of visible tokens, of the same shape without `dim`."""

    def average(self) -> Float[Tensor, "batch dim"]:
        """Return the authors' vector: the mean of all visible tokens."""
        sums = torch.stack([one.flatten(1, -2).sum(1) if one.ndim > 2 else one for one in self.values.values()])
        counts = torch.stack([one.flatten(1).sum(1) if one.ndim > 1 else one.long() for one in self.visible.values()])
        return sums.sum(0) / counts.sum(0).clamp(min=1)[:, None]

    def per_patch(self) -> Float[Tensor, "batch row col dim"]:
        """Return the authors' grid: for each patch, the mean of its visible tokens and of those without a patch."""
        sums, counts = self._summed([*SPACE_TIME, *SPACE])
        more, number = self._summed([*TIME, *STATIC])
        return (sums + more[:, None, None]) / (counts + number[:, None, None]).clamp(min=1)[..., None]

    def shares(self) -> tuple[Float[Tensor, "batch row col dim"], Float[Tensor, "batch row col"]]:
        """Return, for each patch, the sum of its visible tokens and their number.

        Tokens without a patch are divided evenly among the patches, so that the totals are preserved.
        """
        sums, counts = self._summed([*SPACE_TIME, *SPACE])
        more, number = self._summed([*TIME, *STATIC])
        patches = counts.shape[1] * counts.shape[2]
        return sums + (more / patches)[:, None, None], counts + (number / patches)[:, None, None]

    def _summed(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the sum of visible tokens over groups and dates, and their number."""
        first = next(iter(self.values.values()))
        sums, counts = first.new_zeros(len(first), first.shape[-1]), first.new_zeros(len(first))
        for name in names:
            if name in self.values:
                values, visible = self.values[name], self.visible[name].to(first.dtype)
                dated = name in SPACE_TIME or name in TIME
                values, visible = (values.sum(1), visible.sum(1)) if dated else (values, visible)
                sums, counts = (values, visible) if sums.ndim < values.ndim else (sums + values, counts + visible)
        return sums, counts


class SelfAttention(nn.Module):
    """Multi-head attention with separate matrices for queries, keys and values, as in the published file.

    Args:
        dim: Token width, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q: nn.Linear = Linear(dim, dim)
        self.k: nn.Linear = Linear(dim, dim)
        self.v: nn.Linear = Linear(dim, dim)
        self.proj: nn.Linear = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens of each item."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        out: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return out


class GalileoBlock(nn.Module):
    """Pre-norm transformer block.

    Args:
        dim: Token width.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1: nn.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn: SelfAttention = SelfAttention(dim=dim, heads=heads)
        self.norm2: nn.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp: Mlp = Mlp(dim=dim, hidden=4 * dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Run the block."""
        mixed = add(x, self.attn(self.norm1(x)))
        return add(mixed, self.mlp(self.norm2(mixed)))


class GalileoEncoder(Encoder):
    """The encoder of Galileo, for any of its groups, any patch size up to 8 and up to 24 dates.

    A token's code has four quarters, for its group, the index of its date, the month, and its position.

    Args:
        dim: Token width, a multiple of 32 and of `heads`.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        part = dim // 4
        self.space_time_embed: nn.ModuleDict = _projections(SPACE_TIME, dim)
        self.space_embed: nn.ModuleDict = _projections(SPACE, dim)
        self.time_embed: nn.ModuleDict = _linears(TIME, dim)
        self.static_embed: nn.ModuleDict = _linears(STATIC, dim)
        self.pos_embed: nn.Parameter = nn.Parameter(torch.zeros(MOST_DATES, part), requires_grad=False)
        self.month_embed: nn.Embedding = nn.Embedding(MONTHS, part)
        self.s_t_channel_embed: nn.Parameter = nn.Parameter(torch.zeros(len(SPACE_TIME), part))
        self.sp_channel_embed: nn.Parameter = nn.Parameter(torch.zeros(len(SPACE), part))
        self.t_channel_embed: nn.Parameter = nn.Parameter(torch.zeros(len(TIME), part))
        self.st_channel_embed: nn.Parameter = nn.Parameter(torch.zeros(len(STATIC), part))
        self.blocks: nn.ModuleList = nn.ModuleList(GalileoBlock(dim=dim, heads=heads) for _ in range(depth))
        self.norm: nn.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)

    @torch.no_grad()
    def init_random(self, seed: int) -> None:
        """See `Encoder`; the tables of dates and months are computed, not random."""
        super().init_random(seed)
        part = self.pos_embed.shape[1]
        self.pos_embed.copy_(code(torch.arange(MOST_DATES), part))
        self.month_embed.weight.copy_(month_table(part))

    def forward(
        self,
        groups: Mapping[str, Tensor],
        months: Int[Tensor, "batch time"],
        *,
        patch_px: int,
        pixel_m: float = 10.0,
        visible: Mapping[str, Tensor] | None = None,
        layers: Sequence[int] | None = None,
    ) -> GroupTokens:
        """Encode the available groups of each place; groups left out are hidden.

        Args:
            groups: Group -> normalised values with channels as in `GROUPS`: images `[batch, time, channel, height,
                width]`, maps `[batch, channel, height, width]`, series `[batch, time, channel]`, static facts
                `[batch, channel]`.
            months: Month of each date, 0 for January.
            patch_px: Side of a patch, 1 to 8 pixels.
            pixel_m: Side of a pixel, metres.
            visible: Group -> mask of its tokens, as in `GroupTokens.visible`; groups not listed are fully visible.
                Hidden tokens are removed from the sequence and have no influence.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. Only the last has the final norm. Blocks after the deepest one are not run.

        Raises:
            SpecError: A group, patch size or layer does not exist.
            BandMismatch: The channels or axes of a group are wrong.
            InputError: The groups do not fit each other or the patches, or there are too many dates.
        """
        _check(groups, months, patch_px)
        tokens = {name: self._embedded(name, values, patch_px, months, pixel_m) for name, values in groups.items()}
        shapes = {name: one.shape[:-1] for name, one in tokens.items()}
        given = visible or {}
        there = {
            name: given[name].expand(shape) if name in given else months.new_ones(shape, dtype=torch.bool)
            for name, shape in shapes.items()
        }
        batch, dim = len(months), self.norm.weight.shape[0]
        x = torch.cat([one.reshape(batch, -1, dim) for one in tokens.values()], dim=1)
        mask = torch.cat([one.reshape(batch, -1) for one in there.values()], dim=1)
        sizes = [one[0].numel() for one in there.values()]
        mixed = self._mixed(x, mask, counted_layers(layers, len(self.blocks))).split(sizes, dim=1)
        return GroupTokens(
            {name: part.reshape(*shapes[name], -1) for name, part in zip(shapes, mixed, strict=True)}, there
        )

    def _mixed(
        self, x: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"], layers: Sequence[int]
    ) -> Float[Tensor, "batch token wide"]:
        """Run the blocks over the visible tokens of each item. Items with equal numbers are batched without padding."""
        out, last = x.new_zeros(*x.shape[:2], x.shape[2] * len(layers)), len(self.blocks) - 1
        counts = mask.sum(1)
        with prepared(self.blocks, device_type=x.device.type):
            for count in counts.unique().tolist():
                if count == 0:
                    continue
                for rows in (counts == count).nonzero()[:, 0].split(max(1, at_once(TOKENS_AT_ONCE, x) // count)):
                    part = mask[rows]
                    states = run_blocks(self.blocks, x[rows][part].view(len(rows), count, -1), layers)
                    tokens = [
                        self.norm(one) if layer == last else one for layer, one in zip(layers, states, strict=True)
                    ]
                    whole = out.new_zeros(*part.shape, out.shape[-1])
                    whole[part] = side_by_side(tokens).flatten(0, 1).to(out.dtype)
                    out[rows] = whole
        return out

    def _embedded(self, name: str, values: Tensor, patch_px: int, months: Tensor, pixel_m: float) -> Tensor:
        """Return the tokens of a group with their codes."""
        embed, table = self._part(name)
        dated, laid = name in SPACE_TIME or name in TIME, name in SPACE_TIME or name in SPACE
        tokens: Tensor = (embed(values, patch_px) if laid else embed(values)).float()
        codes = tokens.new_zeros(*tokens.shape[:-1], 4, self.pos_embed.shape[1])
        codes[..., 0, :] = table
        if dated:
            there = (slice(None), slice(None), *((None, None) if laid else ()))
            codes[..., 1, :] = self.pos_embed[: months.shape[1]].expand(len(months), -1, -1)[there]
            codes[..., 2, :] = self.month_embed(months)[there]
        if laid:
            rows, cols = tokens.shape[-3:-1]
            codes[..., 3, :] = places(rows, cols, pixel_m * patch_px / 10, codes.shape[-1]).to(tokens.device)
        return tokens + codes.flatten(-2)

    def _part(self, name: str) -> tuple[nn.Module, Tensor]:
        """Return the embedding layer of a group, and its code."""
        for names, embed, table in (
            (SPACE_TIME, self.space_time_embed, self.s_t_channel_embed),
            (SPACE, self.space_embed, self.sp_channel_embed),
            (TIME, self.time_embed, self.t_channel_embed),
        ):
            if name in names:
                return embed[name], table[list(names).index(name)]
        return self.static_embed[name], self.st_channel_embed[list(STATIC).index(name)]


def _linears(groups: Groups, dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(len(channels), dim) for name, channels in groups.items()})


def _projections(groups: Groups, dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: Projection(len(channels), dim) for name, channels in groups.items()})


def _check(groups: Mapping[str, Tensor], months: Tensor, patch_px: int) -> None:
    if not 1 <= patch_px <= KERNEL_PX:
        raise SpecError(f"Expected patches of 1 to {KERNEL_PX} px, got {patch_px}.", fix=f"set patch_px={KERNEL_PX}")
    if not groups:
        raise InputError("Expected at least one group of channels, got none.", fix=f"pass some of {', '.join(GROUPS)}")
    batch, dates = months.shape
    if dates > MOST_DATES:
        raise InputError(f"Expected at most {MOST_DATES} dates, got {dates}.", fix="pass fewer, such as one per month")
    sizes = set()
    for name, values in groups.items():
        if name not in GROUPS:
            raise SpecError(f"Galileo has no group {name!r}.", fix=f"choose from {', '.join(GROUPS)}")
        dated, laid = name in SPACE_TIME or name in TIME, name in SPACE_TIME or name in SPACE
        wanted = (batch, *((dates,) if dated else ()), len(GROUPS[name]))
        if values.ndim != len(wanted) + 2 * laid or values.shape[: len(wanted)] != wanted:
            raise BandMismatch(
                f"Expected {name} as {wanted}{' and height, width' if laid else ''}, got {tuple(values.shape)}.",
                channels=", ".join(GROUPS[name]),
                fix="use the axes batch, time (images, series), channel, height and width (images, maps)",
            )
        if laid:
            sizes.add(tuple(values.shape[-2:]))
    if len(sizes) > 1 or any(side % patch_px or not side for size in sizes for side in size):
        raise InputError(
            f"Expected images and maps of one size, in whole patches of {patch_px} pixels, got "
            f"{', '.join(f'{height} x {width}' for height, width in sorted(sizes))}.",
            fix="crop or pad them",
        )
