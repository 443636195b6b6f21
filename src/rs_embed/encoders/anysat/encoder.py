"""AnySat: encodes each patch of each modality on its own, then all patches of all modalities together.

The first half sees nothing outside a patch, so a large region is encoded once, however its patches are grouped later.
`AnySatEncoder.patches` runs the first half, `mix` the second, `forward` and `dense` both.

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
    """The output of the first half of AnySat, for each patch on its own."""

    values: Mapping[str, Float[Tensor, "batch row col dim"]]
    """Modality -> one token per patch, in the order of the inputs."""
    sub: Float[Tensor, "batch row col sub dim"] | None
    """Sub-tokens of the modality given as `dense`, in the network's order; `None` if none was given."""
    cell_tokens: int
    """Sub-tokens of that modality along the side of a cell of 10 m; if more than 1, not in raster order."""

    def dense_map(
        self, grid: Float[Tensor, "batch row col dim"], *, raster: bool
    ) -> Float[Tensor, "batch dim2 height width"]:
        """Return a map with one vector per sub-token: the vector of its patch, then its own.

        Args:
            grid: The patch tokens that `mix` returned.
            raster: Whether to put each sub-token where it lies on the ground. Otherwise aerial sub-tokens of a patch
                are placed as in the reference, which treats the order of `ImageProjector` as raster order. The two are
                equal for `patch_m=10` and for every other modality.

        Raises:
            ReadoutError: The patches were encoded without sub-tokens.
        """
        if self.sub is None:
            raise ReadoutError(
                "Expected patches with sub-tokens, got none.", fix="call patches(..., dense=...) with a modality"
            )
        side = math.isqrt(self.sub.shape[3])
        sub = self.sub
        if raster and self.cell_tokens > 1:
            sub = sub[:, :, :, raster_order(side // self.cell_tokens, self.cell_tokens).to(sub.device)]
        pairs = torch.cat([grid[:, :, :, None].expand(*sub.shape[:4], -1), sub], dim=-1)
        # [batch, row, col, sub row, sub col, dim]
        laid: Tensor = pairs.unflatten(3, (side, side)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return laid


class AnySatEncoder(Encoder):
    """The encoder of AnySat, for every modality, extent and patch size.

    Position codes and distances do not depend on the weights and are cached by size for all encoders of a process.
    Without gradients, `patches` needs memory beyond its inputs and outputs that does not grow with the number of
    patches: a few arrays of 25 MB at base size, and a packed copy of the weights in use. In `mix`, only the relative
    term grows with the square of that number. `mix` packs weights once for all squares of a batch.

    The reference's dropout is left out, so that training mode computes the same as evaluation mode.

    Args:
        dim: Token width, a multiple of 64 and of `heads`.
        depth: Blocks of each half; the second half has an additional cross block.
        heads: Number of attention heads.
        modalities: Modalities with a projector; default: all of the published weights.
    """

    tokens_at_once: int = TOKENS_AT_ONCE
    """Number of tokens to process at once, rounded to whole patches and squares. More need more memory and change only
    the rounding. On a GPU with enough memory, many more are faster."""

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
        """Encode a square: returns the tile token, then one token per patch.

        Args:
            inputs: Modality -> standardised pixels: images `[batch, channel, height, width]`, time series `[batch,
                time, channel, height, width]`. Their order determines that of the tokens, and otherwise only the
                rounding.
            dates: Time series -> day of the year, `[batch, time]`, 1 January = 0. Any number is allowed.
            patch_m: Side of a patch, metres: a multiple of 10; trained with 10 to 160.
            masks: Time series -> mask of the same shape; where it is zero, a learned value replaces the input.

        Raises:
            SpecError: A modality is unknown, or the patch size is invalid.
            BandMismatch: The number of channels or axes of a modality is wrong.
            InputError: The inputs do not fit each other, their dates or the patch size, or are not square.
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
        """Encode a square and return a map with one vector per sub-token; see `forward` and `PatchTokens`.

        Args:
            inputs: See `forward`.
            dates: See `forward`.
            patch_m: See `forward`.
            masks: See `forward`.
            modality: Modality of the sub-tokens; default: the first input.
            raster: Whether to put each sub-token where it lies on the ground; see `PatchTokens.dense_map`.
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
        """Encode each patch of each modality on its own; the input may be any rectangle of whole patches.

        Args:
            inputs: See `forward`.
            dates: See `forward`.
            patch_m: See `forward`.
            masks: See `forward`.
            dense: A modality whose sub-tokens to return too.
        """
        masks = masks or {}
        grid = plan_patches(inputs, dates, masks, patch_m, self.modalities)
        if dense is not None and dense not in inputs:
            raise SpecError(f'Expected an input as dense, got "{dense}".', fix=f"use one of {', '.join(inputs)}")
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
        """Let all patches of a square attend to each other; the authors' README advises up to 1024 patches.

        Args:
            patches: `PatchTokens.values`, or a square part of them.
            patch_m: The patch size with which they were cut.
            layers: Blocks of this half whose outputs are concatenated along the token width, counted from 0, or from -1
                backwards; default: the last. The last is the cross block, which computes one token per patch from those
                of all modalities. For other blocks, the token of a patch is their mean. There is no final norm.

        Raises:
            InputError: The patches do not form a square.
            SpecError: A layer does not exist.
        """
        wanted = counted_layers(layers, len(self.blocks))
        first = next(iter(patches.values()))
        side, dim = first.shape[2:]
        if first.shape[1] != side:
            raise InputError(
                f"Expected a square for AnySat, got {first.shape[1]} x {side} patches.",
                fix="crop to a square, or cover the area with several squares",
            )
        # Positions are in cells of 10 m, unlike those of sub-tokens, which are in metres; cls has the code zero.
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
        """Embed patches of `sub_side` x `sub_side` sub-tokens and encode each on its own, a few at a time."""
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
    """Return cls, and for each patch the mean over modalities."""
    patches = x[:, 1:].unflatten(1, (-1, side**2))
    return x if patches.shape[1] == 1 else torch.cat([x[:, :1], patches.mean(dim=1)], dim=1)


def _make_projector(name: str, dim: int) -> ImageProjector | SeriesProjector:
    if name not in MODALITIES:
        raise SpecError(f'AnySat has no modality "{name}".', fix=f"choose from {', '.join(MODALITIES)}")
    modality = MODALITIES[name]
    if modality.period is None:
        return ImageProjector(modality, dim=dim)
    return SeriesProjector(modality, dim=dim)
