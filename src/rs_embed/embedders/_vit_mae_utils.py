"""Read-out: from an encoder's tokens to one vector or one grid."""

from typing import Literal

import torch
from jaxtyping import Float
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
    patches = _patch_tokens(tokens, layout)
    finest = max(layout.grids, key=lambda grid: grid.length)
    size = (finest.height, finest.width)
    pieces = patches.split_with_sizes([grid.length for grid in layout.grids], dim=1)
    maps = []
    for grid, part in zip(layout.grids, pieces, strict=True):
        laid = part.mT.reshape(*part.mT.shape[:2], grid.height, grid.width)
        if laid.shape[2:] != size:
            laid = F.interpolate(laid, size=size, mode="bilinear", align_corners=False)
        maps.append(laid)
    if merge == "concat":
        return torch.stack([one.unflatten(1, (parts, -1)) for one in maps], dim=2).flatten(1, 3)
    stacked = torch.stack(maps)
    if merge == "max":
        return stacked.amax(dim=0)
    return stacked.sum(dim=0) if merge == "sum" else stacked.mean(dim=0)


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
