"""Read-out: from an encoder's tokens to one vector or one grid."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rs_embed.encoders.tokens import TokenLayout
from rs_embed.errors import ReadoutError

Merge = Literal["mean", "sum", "max", "concat"]
"""How several grids become one."""

Pooling = Literal["mean", "max"]
"""How patch tokens become one vector."""


def to_grid(
    tokens: Float[Tensor, "batch token dim"], layout: TokenLayout, merge: Merge = "mean", parts: int = 1
) -> Float[Tensor, "batch channel height width"]:
    """Lay patch tokens back on the ground as one grid.

    Grids coarser than the finest are resampled to it (bilinear, half-pixel centres) before they are merged.

    Args:
        tokens: [batch, token, dim]; prefix tokens, then each grid row by row from its north-west corner.
        layout: The encoder's own account of `tokens`; never inferred from how many there are.
        merge: "mean", "sum" and "max" keep `dim` channels, "concat" gives `dim * len(layout.grids)`.
        parts: How many outputs, such as layers, each token holds side by side; "concat" keeps the grids of one
            output together.

    Raises:
        ReadoutError: `tokens` is not as long as `layout` says, or the layout has no grid.

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
    """`to_grid` of some of the tokens: a cell is merged from the grids that have a value there.

    Args:
        there: Which tokens are read; the others are not even interpolated with.
        cells: Which cells of the merged grid a grid is read at, where its token is `there`.
        merge: As for `to_grid`; "sum" is the mean of what is there, times the number of grids.

    Returns:
        The grid, NaN where there is nothing, and where there is something: one block for all channels, or, with
        "concat", one for each run of channels that belong to one grid.

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
    """Rows and columns of the finest grid, to which the others are resampled."""
    finest = max(layout.grids, key=lambda grid: grid.length)
    return finest.height, finest.width


def _laid_out(tokens: Float[Tensor, "batch token dim"], layout: TokenLayout) -> list[Tensor]:
    """Each grid as `[batch, dim, height, width]`."""
    pieces = _patch_tokens(tokens, layout).split_with_sizes([grid.length for grid in layout.grids], dim=1)
    return [
        part.mT.reshape(*part.mT.shape[:2], grid.height, grid.width)
        for grid, part in zip(layout.grids, pieces, strict=True)
    ]


def _resampled(laid: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(laid, size=size, mode="bilinear", align_corners=False)


def _joined(maps: list[Tensor], parts: int) -> Tensor:
    """Channels side by side: of each part, those of every grid."""
    return torch.stack([one.unflatten(1, (parts, -1)) for one in maps], dim=2).flatten(1, 3)


def pool(
    tokens: Float[Tensor, "batch token dim"], layout: TokenLayout, how: Pooling = "mean"
) -> Float[Tensor, "batch dim"]:
    """Reduce patch tokens to one vector; each counts once, whichever grid it lies in.

    Args:
        tokens: [batch, token, dim]; prefix tokens, then the patch tokens.
        layout: The encoder's own account of `tokens`.
        how: "mean" or "max" over the patch tokens.

    Raises:
        ReadoutError: `tokens` is not as long as `layout` says, or the layout has no grid.
    """
    patches = _patch_tokens(tokens, layout)
    return patches.amax(dim=1) if how == "max" else patches.mean(dim=1)


def pool_blocks(
    tokens: Float[Tensor, "token dim"], counted: Bool[Tensor, "block token"], how: Pooling = "mean"
) -> Float[Tensor, " dim"]:
    """Reduce tokens to one vector where runs of channels (of one modality each) have tokens of their own to count.

    Args:
        counted: Of each run of `dim / block` channels, at least one token.
    """
    where = counted.repeat_interleave(tokens.shape[1] // len(counted), dim=0).mT
    if how == "max":
        return tokens.where(where, -torch.inf).amax(dim=0)
    return tokens.where(where, 0).sum(dim=0) / where.sum(dim=0)


def pool_weighted(tokens: Float[Tensor, "token dim_and_weight"], how: Pooling = "mean") -> Float[Tensor, " dim"]:
    """Reduce tokens to one vector, each counting as much as its last number says; one that counts 0 is none."""
    values, weights = tokens[:, :-1], tokens[:, -1:]
    if how == "max":
        return values.where(weights > 0, -torch.inf).amax(dim=0)
    return (values * weights).sum(dim=0) / weights.sum()


def _patch_tokens(tokens: Float[Tensor, "batch token dim"], layout: TokenLayout) -> Float[Tensor, "batch patch dim"]:
    if not layout.grids:
        raise ReadoutError(
            "Reading out wants patch tokens, this layout has no grid.",
            layout=f"{layout.prefix} prefix tokens only",
            fix="let the encoder name its grids in the layout it returns",
        )
    if tokens.shape[1] != layout.length:
        raise ReadoutError(
            f"The layout tells of {layout.length} tokens, there are {tokens.shape[1]}.",
            prefix=layout.prefix,
            grids=", ".join(f"{grid.name} {grid.height} x {grid.width}" for grid in layout.grids),
            fix="use the layout that the encoder returned with these tokens",
        )
    return tokens[:, layout.prefix :]
