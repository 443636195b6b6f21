"""Read-out: turn an encoder's tokens into one vector or one grid."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rs_embed.encoders.tokens import TokenLayout
from rs_embed.errors import ReadoutError

Merge = Literal["mean", "sum", "max", "concat"]
"""How to merge several grids."""

Pooling = Literal["mean", "max"]
"""How to pool patch tokens into one vector."""


def to_grid(
    tokens: Float[Tensor, "batch token dim"], layout: TokenLayout, merge: Merge = "mean", parts: int = 1
) -> Float[Tensor, "batch channel height width"]:
    """Lay patch tokens back on the ground as one grid.

    Grids coarser than the finest are resampled to it (bilinear, half-pixel centres) before they are merged.

    Args:
        tokens: `[batch, token, dim]`: prefix tokens, then each grid row by row from its north-west corner.
        layout: The layout of `tokens` as returned by the encoder; never inferred from their number.
        merge: "mean", "sum" and "max" keep `dim` channels, "concat" gives `dim * len(layout.grids)`.
        parts: Number of outputs, such as layers, concatenated in each token; "concat" keeps the grids of one output
            together.

    Raises:
        ReadoutError: The number of tokens differs from that of `layout`, or the layout has no grid.

    Example:
        >>> thor = TokenLayout(grids=(TokenGrid("10m", 18, 18), TokenGrid("20m", 9, 9)))
        >>> to_grid(torch.zeros(1, 405, 768), thor, merge="concat").shape
        torch.Size([1, 1536, 18, 18])
    """
    grids = _laid_out(tokens, layout)
    size = merged_size(layout)
    maps = [laid if laid.shape[2:] == size else _resampled(laid, size) for laid in grids]
    if merge == "concat":
        return _joined(maps, parts)
    stacked = torch.stack(maps)
    if merge == "max":
        return stacked.amax(dim=0)
    return stacked.sum(dim=0) if merge == "sum" else stacked.mean(dim=0)


def to_valid_grid(
    tokens: Float[Tensor, "batch token dim"],
    layout: TokenLayout,
    there: Bool[Tensor, " token"],
    cells: Bool[Tensor, "grid height width"],
    *,
    merge: Merge = "mean",
    parts: int = 1,
) -> tuple[Float[Tensor, "batch channel height width"], Bool[Tensor, "block height width"]]:
    """Call `to_grid` on the valid tokens only: a cell is merged from the grids that have a value there.

    Args:
        tokens: `[batch, token, dim]`.
        layout: The layout of `tokens`.
        there: The valid tokens; others take no part, not even in interpolation.
        cells: For each grid, the cells of the merged grid in which it may be used, where its token is valid.
        merge: As for `to_grid`; "sum" is the mean of the grids present, times the number of grids.
        parts: As for `to_grid`.

    Returns:
        The grid, NaN where no token is valid, and a mask of its values: one block for all channels or, with "concat",
        one for each block of channels of a grid.

    Raises:
        ReadoutError: As `to_grid`.
    """
    grids, masks = _laid_out(tokens, layout), _laid_out(there[None, :, None].to(tokens.dtype), layout)
    size = merged_size(layout)
    maps = []
    for laid, mask in zip(grids, masks, strict=True):
        kept = laid.where(mask > 0, 0)
        maps.append(kept if kept.shape[2:] == size else _resampled(kept, size) / _resampled(mask, size))
    nearest = [F.interpolate(mask, size=size, mode="nearest-exact")[0, 0] > 0 for mask in masks]
    read = torch.stack(nearest) & cells
    stacked, where = torch.stack(maps), read[:, None, None]
    if merge == "concat":
        return _joined(list(stacked.where(where, torch.nan)), parts), read.repeat(parts, 1, 1)
    merged = stacked.where(where, 0).sum(dim=0) / where.sum(dim=0)
    if merge == "max":
        merged = stacked.where(where, -torch.inf).amax(dim=0).where(where.any(dim=0), torch.nan)
    return merged * len(maps) if merge == "sum" else merged, read.any(dim=0)[None]


def merged_size(layout: TokenLayout) -> tuple[int, int]:
    """Return rows and columns of the finest grid, to which the others are resampled."""
    finest = max(layout.grids, key=lambda grid: grid.length)
    return finest.height, finest.width


def _laid_out(tokens: Float[Tensor, "batch token dim"], layout: TokenLayout) -> list[Tensor]:
    """Return each grid as `[batch, dim, height, width]`."""
    pieces = _patch_tokens(tokens, layout).split_with_sizes([grid.length for grid in layout.grids], dim=1)
    return [
        part.mT.reshape(*part.mT.shape[:2], grid.height, grid.width)
        for grid, part in zip(layout.grids, pieces, strict=True)
    ]


def _resampled(laid: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(laid, size=size, mode="bilinear", align_corners=False)


def _joined(maps: list[Tensor], parts: int) -> Tensor:
    """Concatenate channels: for each part, those of every grid."""
    return torch.stack([one.unflatten(1, (parts, -1)) for one in maps], dim=2).flatten(1, 3)


def pool(
    tokens: Float[Tensor, "batch token dim"], layout: TokenLayout, how: Pooling = "mean"
) -> Float[Tensor, "batch dim"]:
    """Pool patch tokens into one vector; each counts once, whichever grid it lies on.

    Args:
        tokens: `[batch, token, dim]`: prefix tokens, then the patch tokens.
        layout: The layout of `tokens` as returned by the encoder.
        how: "mean" or "max" over the patch tokens.

    Raises:
        ReadoutError: The number of tokens differs from that of `layout`, or the layout has no grid.
    """
    patches = _patch_tokens(tokens, layout)
    return patches.amax(dim=1) if how == "max" else patches.mean(dim=1)


def pool_blocks(
    tokens: Float[Tensor, "token dim"], counted: Bool[Tensor, "block token"], how: Pooling = "mean"
) -> Float[Tensor, " dim"]:
    """Pool tokens into one vector, with a separate set of tokens for each block of channels (each of one modality).

    Args:
        tokens: `[token, dim]`.
        counted: The tokens that count, for each block of `dim / block` channels; at least one per block.
        how: "mean" or "max".
    """
    where = counted.repeat_interleave(tokens.shape[1] // len(counted), dim=0).mT
    if how == "max":
        return tokens.where(where, -torch.inf).amax(dim=0)
    return tokens.where(where, 0).sum(dim=0) / where.sum(dim=0)


def pool_weighted(tokens: Float[Tensor, "token dim_and_weight"], how: Pooling = "mean") -> Float[Tensor, " dim"]:
    """Pool tokens into one vector, weighted by their last channel; tokens of weight 0 do not count."""
    values, weights = tokens[:, :-1], tokens[:, -1:]
    if how == "max":
        return values.where(weights > 0, -torch.inf).amax(dim=0)
    return (values * weights).sum(dim=0) / weights.sum()


def _patch_tokens(tokens: Float[Tensor, "batch token dim"], layout: TokenLayout) -> Float[Tensor, "batch patch dim"]:
    if not layout.grids:
        raise ReadoutError(
            "Expected patch tokens to read out, got a layout without a grid.",
            layout=f"{layout.prefix} prefix tokens only",
            fix="return a layout with grids from the encoder",
        )
    if tokens.shape[1] != layout.length:
        raise ReadoutError(
            f"Expected {layout.length} tokens by their layout, got {tokens.shape[1]}.",
            prefix=layout.prefix,
            grids=", ".join(f"{grid.name} {grid.height} x {grid.width}" for grid in layout.grids),
            fix="use the layout that the encoder returned with these tokens",
        )
    return tokens[:, layout.prefix :]
