"""Plain vision transformers with a class token and a learned table of positions, laid out and named as in timm.

SSL4EO-S12, SoftCon, TerraFM and Panopticon are such networks; the last two embed patches in their own way. Prithvi
computes its positions.

Source: Dosovitskiy et al. 2021, arXiv:2010.11929; layer scale: Touvron et al. 2021, arXiv:2103.17239.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rs_embed.encoders.kernels.attention import Distances
from rs_embed.encoders.kernels.linear import prepared
from rs_embed.encoders.layers import NORM_EPS, Block, Encoder, add, counted_layers, run_blocks, side_by_side
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BandMismatch, InputError


class LayerScale(nn.Module):
    """A learned factor for each channel.

    Args:
        dim: Token width.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma: nn.Parameter = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Scale each channel."""
        return x * self.gamma


class ScaledBlock(Block):
    """A transformer block that scales the outputs of attention and MLP before adding them.

    Args:
        dim: Token width.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__(dim=dim, heads=heads)
        self.ls1: LayerScale = LayerScale(dim)
        self.ls2: LayerScale = LayerScale(dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], distances: Distances | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """Run the block, with an optional distance penalty on its attention."""
        mixed = add(x, self.ls1(self.attn(self.norm1(x), distances)))
        return add(mixed, self.ls2(self.mlp(self.norm2(mixed))))


class ViT(Encoder):
    """What follows the patch embedding: class token, positions, blocks and final norm.

    Args:
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
        side: Rows, and columns, of the table of positions; 0 for a network without one.
        scaled: Whether blocks have layer scale.
        normed: Whether the last block is followed by a norm.
        eps: Epsilon of the norms.
    """

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        side: int,
        scaled: bool = False,
        normed: bool = True,
        eps: float = NORM_EPS,
    ) -> None:
        super().__init__()

        def norm(width: int) -> nn.Module:
            return nn.LayerNorm(width, eps=eps)

        self.cls_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        if side:
            self.pos_embed: nn.Parameter = nn.Parameter(torch.zeros(1, 1 + side * side, dim))
        self.blocks: nn.ModuleList = nn.ModuleList(
            ScaledBlock(dim=dim, heads=heads) if scaled else Block(dim=dim, heads=heads, norm=norm)
            for _ in range(depth)
        )
        self.norm: nn.Module = norm(dim) if normed else nn.Identity()

    def positions(self, rows: int, cols: int) -> Float[Tensor, "1 token dim"]:
        """Return the codes of the class token and of the patches, row by row.

        Raises:
            InputError: The table is for another number of patches.
        """
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if (rows, cols) != (side, side):
            raise InputError(
                f"Expected {side} x {side} patches, got {rows} x {cols}.", fix="crop, pad or resize the image"
            )
        return self.pos_embed

    def mixed(
        self,
        patches: Float[Tensor, "batch patch dim"],
        positions: Float[Tensor, "*batch token dim"],
        grids: tuple[TokenGrid, ...],
        layers: Sequence[int] | None,
    ) -> Tokens:
        """Prepend the class token, add positions, and run the blocks.

        Args:
            patches: Embedded patches, grid by grid, row by row.
            positions: Codes of the class token and of the patches.
            grids: Layout of the patches.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. Only the last has the final norm. Blocks after the deepest one are not run.

        Raises:
            SpecError: A layer does not exist.
        """
        depth = len(self.blocks)
        wanted = counted_layers(layers, depth)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.float()], dim=1) + positions
        with prepared(self.blocks[: max(wanted) + 1], device_type=x.device.type):
            states = run_blocks(self.blocks, x, wanted)
        outputs = [self.norm(one) if layer == depth - 1 else one for layer, one in zip(wanted, states, strict=True)]
        return Tokens(side_by_side(outputs), TokenLayout(grids, prefix=1))


class ImagePatches(nn.Module):
    """One linear map of all pixels of a patch.

    Args:
        bands: Number of bands.
        dim: Token width.
        patch_px: Side of a patch, pixels.
    """

    def __init__(self, *, bands: int, dim: int, patch_px: int) -> None:
        super().__init__()
        self.proj: nn.Conv2d = nn.Conv2d(bands, dim, patch_px, patch_px)

    def forward(self, image: Float[Tensor, "batch band height width"]) -> Float[Tensor, "batch dim row col"]:
        """Embed each patch.

        Raises:
            BandMismatch: The image has another number of bands.
            InputError: The image does not consist of whole patches.
        """
        return patches_of(self.proj, image)


def patches_of(proj: nn.Conv2d, image: Float[Tensor, "batch band height width"]) -> Float[Tensor, "batch dim row col"]:
    """Embed whole patches.

    Raises:
        BandMismatch: The image has another number of bands.
        InputError: The image does not consist of whole patches.
    """
    (patch_px, _), (bands, height, width) = proj.stride, image.shape[1:]
    if bands != proj.in_channels:
        raise BandMismatch(f"Expected {proj.in_channels} bands, got {bands}.", fix="pass all bands, in their order")
    if height % patch_px or width % patch_px or not height * width:
        raise InputError(
            f"Expected whole patches of {patch_px} px, got {height} x {width} px.", fix="crop, pad or resize the image"
        )
    out: Tensor = proj(image)
    return out


class ViTEncoder(ViT):
    """A plain vision transformer for images of one size.

    Args:
        bands: Number of bands.
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
        patch_px: Side of a patch, pixels.
        side: Patches along the side of the image.
        scaled: 1 for blocks with layer scale, as in DINOv2.
        normed: 0 for a last block without a norm.
    """

    def __init__(
        self,
        *,
        bands: int,
        dim: int,
        depth: int,
        heads: int,
        patch_px: int,
        side: int,
        scaled: int = 0,
        normed: int = 1,
    ) -> None:
        super().__init__(dim=dim, depth=depth, heads=heads, side=side, scaled=bool(scaled), normed=bool(normed))
        self.patch_embed: ImagePatches = ImagePatches(bands=bands, dim=dim, patch_px=patch_px)

    def forward(self, image: Float[Tensor, "batch band height width"], layers: Sequence[int] | None = None) -> Tokens:
        """Encode images: a class token, then patches row by row.

        Args:
            image: Standardised pixels.
            layers: See `ViT.mixed`.

        Raises:
            BandMismatch: The image has another number of bands.
            InputError: The image has another size.
            SpecError: A layer does not exist.
        """
        patches = self.patch_embed(image)
        rows, cols = patches.shape[2:]
        grid = TokenGrid("patch", rows, cols)
        return self.mixed(patches.flatten(2).mT, self.positions(rows, cols), (grid,), layers)
