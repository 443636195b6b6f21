"""DINOv3: a vision transformer with register tokens and rotary positions, named as in timm.

Source: Siméoni et al. 2025, arXiv:2508.10104; names and numbers: timm 1.0.31, vit_large_patch16_dinov3.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rs_embed.encoders.kernels.attention import attend
from rs_embed.encoders.kernels.linear import Linear, prepared
from rs_embed.encoders.layers import Encoder, Mlp, add, counted_layers, run_blocks, side_by_side
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.encoders.vit import ImagePatches

REGISTERS, PREFIX = 4, 5
"""Register tokens; with the class token before them."""
EPS = 1e-5
LONGEST_PERIOD = 100.0
"""Bound of the periods of the rotary code, in units of half the image."""

Rotation = tuple[Float[Tensor, "patch head_dim"], Float[Tensor, "patch head_dim"]]
"""Sines and cosines of the angles by which the channels of each patch are rotated."""


def rotation(rows: int, cols: int, head_dim: int, device: torch.device) -> Rotation:
    """Return the rotation of each patch, row by row.

    Rows and columns run from -1 to 1 over the image, whatever its size. A quarter of a head's channels is turned by the
    row, and a quarter by the column, each with the channel half a head further.
    """
    quarter = head_dim // 4
    periods = LONGEST_PERIOD ** (torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    down, across = (
        2 * (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side - 1 for side in (rows, cols)
    )
    places = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1).flatten(0, 1)
    angles = (2 * math.pi * places[..., None] / periods).flatten(1).repeat(1, 2)
    return angles.sin(), angles.cos()


def rotated(
    x: Float[Tensor, "batch head token head_dim"], turn: Rotation
) -> Float[Tensor, "batch head token head_dim"]:
    """Rotate the channels of the patch tokens; the tokens before them stay."""
    sine, cosine = turn
    patches = x[:, :, PREFIX:].float()
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cosine + torch.cat([-second, first], dim=-1) * sine
    return torch.cat([x[:, :, :PREFIX], turned.to(x.dtype)], dim=2)


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions.

    Args:
        dim: Token width, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: nn.Linear = Linear(dim, 3 * dim, bias=False)
        self.proj: nn.Linear = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch token dim"], turn: Rotation) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens."""
        batch, token, dim = x.shape
        qkv: Tensor = self.qkv(x)
        q, k, v = qkv.view(batch, token, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind()
        mixed = attend(rotated(q, turn), rotated(k, turn), v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, token, dim))
        return out


class RotaryBlock(nn.Module):
    """A transformer block that scales the outputs of attention and MLP before adding them.

    Args:
        dim: Token width.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.gamma_1: nn.Parameter = nn.Parameter(torch.ones(dim))
        self.gamma_2: nn.Parameter = nn.Parameter(torch.ones(dim))
        self.norm1: nn.Module = nn.LayerNorm(dim, eps=EPS)
        self.attn: RotaryAttention = RotaryAttention(dim=dim, heads=heads)
        self.norm2: nn.Module = nn.LayerNorm(dim, eps=EPS)
        self.mlp: Mlp = Mlp(dim=dim, hidden=4 * dim)

    def forward(self, x: Float[Tensor, "batch token dim"], turn: Rotation) -> Float[Tensor, "batch token dim"]:
        """Run the block."""
        mixed = add(x, self.gamma_1 * self.attn(self.norm1(x), turn))
        return add(mixed, self.gamma_2 * self.mlp(self.norm2(mixed)))


class DinoV3Encoder(Encoder):
    """DINOv3 for images of any number of whole patches.

    Args:
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
        patch_px: Side of a patch, pixels.
    """

    def __init__(self, *, dim: int, depth: int, heads: int, patch_px: int) -> None:
        super().__init__()
        self.cls_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.reg_token: nn.Parameter = nn.Parameter(torch.zeros(1, REGISTERS, dim))
        self.patch_embed: ImagePatches = ImagePatches(bands=3, dim=dim, patch_px=patch_px)
        self.blocks: nn.ModuleList = nn.ModuleList(RotaryBlock(dim=dim, heads=heads) for _ in range(depth))
        self.norm: nn.Module = nn.LayerNorm(dim, eps=EPS)
        self._head_dim = dim // heads

    def forward(self, image: Float[Tensor, "batch band height width"], layers: Sequence[int] | None = None) -> Tokens:
        """Encode images: a class token, four register tokens, then patches row by row.

        Args:
            image: Standardised red, green and blue.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. Only the last has the final norm.

        Raises:
            BandMismatch: The image does not have three bands.
            InputError: The image does not consist of whole patches.
            SpecError: A layer does not exist.
        """
        depth = len(self.blocks)
        wanted = counted_layers(layers, depth)
        embedded = self.patch_embed(image)
        batch, _, rows, cols = embedded.shape
        before = torch.cat([self.cls_token, self.reg_token], dim=1).expand(batch, -1, -1)
        x = torch.cat([before, embedded.flatten(2).mT.float()], dim=1)
        turn = rotation(rows, cols, self._head_dim, x.device)
        with prepared(self.blocks[: max(wanted) + 1], device_type=x.device.type):
            states = run_blocks(self.blocks, x, wanted, turn)
        outputs = [self.norm(one) if layer == depth - 1 else one for layer, one in zip(wanted, states, strict=True)]
        return Tokens(side_by_side(outputs), TokenLayout((TokenGrid("patch", rows, cols),), prefix=PREFIX))
