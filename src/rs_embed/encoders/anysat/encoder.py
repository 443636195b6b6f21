"""AnySat: each patch of each modality summed up by itself, then all patches of all modalities together.

The first half sees nothing outside of a patch, so a large region is encoded once, however its patches are then
grouped: `AnySatEncoder.patches` does that half, `mix` the other, `forward` and `dense` both.

Source: gastruc/AnySat, hubconf.py and models/networks/encoder/Any_multi.py (forward_release); paper
arXiv:2412.14123.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.anysat.attention import TOKENS_AT_ONCE, CrossBlock, SpatialEncoder, positions
from rs_embed.encoders.anysat.modalities import CELL_M, MODALITIES, plan_patches
from rs_embed.encoders.anysat.projectors import ImageProjector, SeriesProjector, even_sizes, raster_order
from rs_embed.encoders.kernels.linear import prepared
from rs_embed.encoders.layers import Block, Encoder, at_once, counted_layers, run_blocks, side_by_side
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import InputError, ReadoutError, SpecError


@dataclass(frozen=True, eq=False)
class PatchTokens:
    """What the first half of AnySat knows of each patch by itself."""

    values: Mapping[str, Float[Tensor, "batch row col dim"]]
    """A token per patch, by modality, in the order of the inputs."""
    sub: Float[Tensor, "batch row col sub dim"] | None
    """Sub-tokens of the modality that `dense` named, in the network's order; `None` if it named none."""
    cell_tokens: int
    """Sub-tokens along the side of a cell of 10 m, of that modality; in an order of their own if more than 1."""

    def dense_map(
        self, grid: Float[Tensor, "batch row col dim"], *, raster: bool
    ) -> Float[Tensor, "batch dim2 height width"]:
        """Lay out a vector per sub-token: that of its patch, then its own.

        Args:
            grid: What `mix` made of the patches, on the ground that these cover.
            raster: Put each sub-token where it lies on the ground. Otherwise aerial sub-tokens of a patch lie as
                the reference lays them: in the order of `ImageProjector`, as if that were raster order. The two
                are the same at `patch_m=10` and for every other modality.

        Raises:
            ReadoutError: These were encoded without sub-tokens.
        """
        if self.sub is None:
            raise ReadoutError("These patches hold no sub-tokens.", fix="patches(..., dense=...) with a modality")
        side = math.isqrt(self.sub.shape[3])
        sub = self.sub
        if raster and self.cell_tokens > 1:
            sub = sub[:, :, :, raster_order(side // self.cell_tokens, self.cell_tokens).to(sub.device)]
        pairs = torch.cat([grid[:, :, :, None].expand(*sub.shape[:4], -1), sub], dim=-1)
        # [batch, row, col, sub row, sub col, dim]
        laid: Tensor = pairs.unflatten(3, (side, side)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return laid


class AnySatEncoder(Encoder):
    """The encoder of AnySat; one object serves every modality, extent and patch size.

    Nothing depends on the weights but the weights: codes and distances are kept by size, for all encoders of a
    process. Memory beyond inputs and outputs does not grow with the number of patches in `patches` (a few arrays
    of 25 MB at base size, without gradients, and a packed copy of the weights that are used), and in `mix` as the
    square of it only in the relative term. `mix` packs weights once for all squares of a batch.

    The reference's dropout is left out, so that training mode computes what evaluation mode does.

    Args:
        dim: Token width, a multiple of 64, and of `heads`.
        depth: Blocks of each half; the second has a cross block more.
        heads: Number of attention heads.
        modalities: Which projectors to have; by default all of the published weights.
    """

    tokens_at_once: int = TOKENS_AT_ONCE
    """How many tokens are worked on at once, but whole patches and squares; more take more memory and change rounding
    only. On a GPU with memory to spare, many more are quicker."""

    def __init__(self, *, dim: int, depth: int, heads: int, modalities: Sequence[str] = tuple(MODALITIES)) -> None:
        super().__init__()
        self.modalities: tuple[str, ...] = tuple(modalities)
        self.cls_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        for name in modalities:
            self.add_module(f"projector_{name}", _make_projector(name, dim))
        self.spatial_encoder: SpatialEncoder = SpatialEncoder(dim=dim, depth=depth, heads=heads)
        blocks = [Block(dim=dim, heads=heads) for _ in range(depth)]
        self.blocks: nn.ModuleList = nn.ModuleList([*blocks, CrossBlock(dim=dim, heads=heads)])

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        *,
        dates: Mapping[str, Tensor],
        patch_m: int,
        masks: Mapping[str, Tensor] | None = None,
    ) -> Tokens:
        """Encode a square: one token for the whole (the trained tile output), then one per patch.

        Args:
            inputs: By modality, standardised: images [batch, channel, height, width], time series [batch, time,
                channel, height, width]. Their order is that of the tokens, and matters in the last digits only.
            dates: [batch, time] for each time series: day of the year, 1 January = 0. Any number is legal.
            patch_m: Side of a patch in metres, a multiple of 10; 10 to 160 were trained.
            masks: Of the shape of their time series; where zero, a learned value replaces the input's.

        Raises:
            SpecError: An unknown modality, or a patch size that cannot be.
            BandMismatch: A modality with another number of channels or axes.
            InputError: Inputs do not fit each other, their dates or the patch size, or are not square.
        """
        tokens = self.patches(inputs, dates=dates, patch_m=patch_m, masks=masks)
        return self.mix(tokens.values, patch_m)

    def dense(
        self,
        inputs: Mapping[str, Tensor],
        *,
        dates: Mapping[str, Tensor],
        patch_m: int,
        masks: Mapping[str, Tensor] | None = None,
        modality: str | None = None,
        raster: bool = False,
    ) -> Float[Tensor, "batch dim2 side side"]:
        """Encode a square and give a map of a vector for each sub-token; see `forward` and `PatchTokens`.

        Args:
            inputs: See `forward`.
            dates: See `forward`.
            patch_m: See `forward`.
            masks: See `forward`.
            modality: Whose sub-tokens to take; by default the first input's.
            raster: Put each sub-token where it lies on the ground; see `PatchTokens.dense_map`.
        """
        modality = modality or next(iter(inputs), None)
        patches = self.patches(inputs, dates=dates, patch_m=patch_m, masks=masks, dense=modality)
        tokens = self.mix(patches.values, patch_m)
        (grid,) = tokens.layout.grids
        return patches.dense_map(tokens.values[:, 1:].unflatten(1, (grid.height, grid.width)), raster=raster)

    def patches(
        self,
        inputs: Mapping[str, Tensor],
        *,
        dates: Mapping[str, Tensor],
        patch_m: int,
        masks: Mapping[str, Tensor] | None = None,
        dense: str | None = None,
    ) -> PatchTokens:
        """Sum up each patch of each modality by itself; the ground may be any rectangle of whole patches.

        Args:
            inputs: See `forward`.
            dates: See `forward`.
            patch_m: See `forward`.
            masks: See `forward`.
            dense: A modality to finish and give the sub-tokens of, too.
        """
        masks = masks or {}
        grid = plan_patches(inputs, dates, masks, patch_m, self.modalities)
        if dense is not None and dense not in inputs:
            raise SpecError(f'There is no input "{dense}" to map densely.', fix=f"use one of {', '.join(inputs)}")
        values, sub = {}, None
        for name, pixels in inputs.items():
            modality = MODALITIES[name]
            pieces = self._cut(name, pixels, grid.scale * modality.cell_px, dates, masks)
            tokens = self._sum_up(name, pieces, grid.scale * modality.cell_tokens, with_sub=name == dense)
            tokens = tokens.unflatten(0, (-1, grid.rows, grid.cols))
            values[name] = tokens[..., 0, :]
            if name == dense:
                sub = tokens[..., 1:, :]
        return PatchTokens(values, sub, MODALITIES[dense].cell_tokens if dense else 1)

    def mix(
        self,
        patches: Mapping[str, Float[Tensor, "batch row col dim"]],
        patch_m: int,
        layers: Sequence[int] | None = None,
    ) -> Tokens:
        """Let all patches of a square see each other; the README advises up to 1024.

        Args:
            patches: `PatchTokens.values`, or a square part of them.
            patch_m: What they were cut with.
            layers: Blocks of this half whose outputs are joined along the token width, counted from 0, or from -1
                backwards; the last if left out. That is the cross block, which makes one token a patch of those of
                all modalities; behind the others, a patch's is their mean. None is normed: there is no final norm.

        Raises:
            InputError: There are not as many rows as columns.
            SpecError: There is no such layer.
        """
        wanted = counted_layers(layers, len(self.blocks))
        first = next(iter(patches.values()))
        side, dim = first.shape[2:]
        if first.shape[1] != side:
            raise InputError(
                f"AnySat wants a square, this has {first.shape[1]} x {side} patches.",
                fix="crop to a square, or cover the ground with several",
            )
        # In cells of 10 m, though the codes of sub-tokens are in metres; and cls has code zero.
        codes = positions(side, patch_m // CELL_M, dim).to(first.device)
        placed = [tokens.flatten(1, 2) + codes for tokens in patches.values()]
        x = torch.cat([self.cls_token.expand(len(first), -1, -1), *placed], dim=1)
        sizes = even_sizes(len(x), at_once(self.tokens_at_once, x) // x.shape[1])
        with prepared(self.blocks, device_type=x.device.type):
            mixed = torch.cat([self._mix(part, F.pad(codes, (0, 0, 1, 0)), side, wanted) for part in x.split(sizes)])
        return Tokens(mixed, TokenLayout((TokenGrid("patch", side, side),), prefix=1))

    def _mix(
        self,
        x: Float[Tensor, "batch token dim"],
        places: Float[Tensor, "place dim"],
        side: int,
        layers: Sequence[int],
    ) -> Float[Tensor, "batch place wide"]:
        last = len(self.blocks) - 1
        before = sorted({*layers, last - 1} - {last}) if last in layers else sorted(layers)
        states = dict(zip(before, run_blocks(self.blocks[:last], x, before), strict=True))
        behind = {layer: _one_a_place(states[layer], side) for layer in layers if layer != last}
        if last in layers:
            behind[last] = self.blocks[last](states[last - 1], places, side)
        return side_by_side([behind[layer] for layer in layers])

    def _cut(
        self, name: str, pixels: Tensor, patch_px: int, dates: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        projector = self._projector(name)
        if isinstance(projector, ImageProjector):
            return projector.cut(pixels, patch_px)
        return projector.cut(pixels, patch_px, dates[name], masks.get(name))

    def _sum_up(
        self, name: str, pieces: tuple[Tensor, ...], sub_side: int, *, with_sub: bool
    ) -> Float[Tensor, "patch token dim"]:
        """Embed patches of `sub_side` x `sub_side` sub-tokens and encode each by itself, a few at a time."""
        projector, spacing_m = self._projector(name), MODALITIES[name].spacing_m
        patches, tokens = len(pieces[0]), sub_side**2 + 1
        sizes = even_sizes(patches, at_once(self.tokens_at_once, pieces[0]) // tokens)
        with prepared(projector, self.spatial_encoder, device_type=pieces[0].device.type):
            parts = [
                self.spatial_encoder(projector(*part), spacing_m, with_sub=with_sub)
                for part in zip(*(piece.split(sizes) for piece in pieces), strict=True)
            ]
        return torch.cat(parts)

    def _projector(self, name: str) -> ImageProjector | SeriesProjector:
        return cast("ImageProjector | SeriesProjector", self.get_submodule(f"projector_{name}"))


def _one_a_place(x: Float[Tensor, "batch token dim"], side: int) -> Float[Tensor, "batch place dim"]:
    """Cls, and of each patch the mean over modalities."""
    patches = x[:, 1:].unflatten(1, (-1, side**2))
    return x if patches.shape[1] == 1 else torch.cat([x[:, :1], patches.mean(dim=1)], dim=1)


def _make_projector(name: str, dim: int) -> ImageProjector | SeriesProjector:
    if name not in MODALITIES:
        raise SpecError(f'AnySat has no modality "{name}".', fix=f"use some of {', '.join(MODALITIES)}")
    modality = MODALITIES[name]
    if modality.period is None:
        return ImageProjector(modality, dim=dim)
    return SeriesProjector(modality, dim=dim)
