"""TerraFM: a vision transformer with a stem for each sensor and level.

Source of names, shapes and the order of operations: the published file, and torchgeo-bench (pull request 279), which
rebuilt the network; paper arXiv:2506.06281.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rs_embed.encoders.kernels.linear import Linear, prepared
from rs_embed.encoders.tokens import TokenGrid, Tokens
from rs_embed.encoders.vit import ViT, patches_of

PATCH_PX = 16
SIDE = 14
"""Patches along the side of an image."""
OPTICAL_BANDS, RADAR_BANDS = 12, 2
Stem = Literal["s2_l2a", "s2_l1c", "s1"]
"""What a stem was trained for."""


class StemProjection(nn.Module):
    """Three linear maps with a norm behind the first, and no activation.

    Args:
        wide: Width of the stems.
        dim: Token width.
    """

    def __init__(self, *, wide: int, dim: int) -> None:
        super().__init__()
        self.proj1: nn.Linear = Linear(wide, wide, bias=False)
        self.norm_input: nn.LayerNorm = nn.LayerNorm(wide)
        self.proj2: nn.Linear = Linear(wide, wide)
        self.proj3: nn.Linear = Linear(wide, dim)

    def forward(self, x: Float[Tensor, "batch patch wide"]) -> Float[Tensor, "batch patch dim"]:
        """Transform each patch by itself."""
        out: Tensor = self.proj3(self.proj2(self.norm_input(self.proj1(x))))
        return out


class Stems(nn.Module):
    """The patch embeddings of all sensors, whose outputs share a projection.

    Args:
        dim: Token width; stems are three times as wide.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        wide = 3 * dim
        self.conv2d_s2_l2a: nn.Conv2d = nn.Conv2d(OPTICAL_BANDS, wide, PATCH_PX, PATCH_PX)
        self.conv2d_s2_l1c: nn.Conv2d = nn.Conv2d(OPTICAL_BANDS, wide, PATCH_PX, PATCH_PX)
        self.conv2d_s1: nn.Conv2d = nn.Conv2d(RADAR_BANDS, wide, PATCH_PX, PATCH_PX)
        self.s2_l2a_embed: nn.Parameter = nn.Parameter(torch.zeros(1, wide))
        self.s2_l1c_embed: nn.Parameter = nn.Parameter(torch.zeros(1, wide))
        self.s1_embed: nn.Parameter = nn.Parameter(torch.zeros(1, wide))
        self.projection: StemProjection = StemProjection(wide=wide, dim=dim)

    def part(self, stem: Stem) -> tuple[nn.Conv2d, Tensor]:
        """Return the convolution of a stem, and its code."""
        return {
            "s2_l2a": (self.conv2d_s2_l2a, self.s2_l2a_embed),
            "s2_l1c": (self.conv2d_s2_l1c, self.s2_l1c_embed),
            "s1": (self.conv2d_s1, self.s1_embed),
        }[stem]


class TerraFMEncoder(ViT):
    """The encoder of TerraFM.

    Args:
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__(dim=dim, depth=depth, heads=heads, side=SIDE)
        self.patch_embed: Stems = Stems(dim)

    def forward(
        self, image: Float[Tensor, "batch band height width"], stem: Stem, layers: Sequence[int] | None = None
    ) -> Tokens:
        """Encode images of 224 x 224 px: a class token, then patches row by row.

        Args:
            image: Standardised pixels.
            stem: The sensor and level of the image. The authors' own `forward` sends both levels of Sentinel-2 through
                the stem of L1C.
            layers: See `ViT.mixed`.

        Raises:
            BandMismatch: The image has another number of bands.
            InputError: The image has another size.
            SpecError: A layer does not exist.
        """
        convolution, code = self.patch_embed.part(stem)
        patches = patches_of(convolution, image)
        rows, cols = patches.shape[2:]
        positions = self.positions(rows, cols)
        with prepared(self.patch_embed, device_type=image.device.type):
            tokens = self.patch_embed.projection(patches.flatten(2).mT + code)
        return self.mixed(tokens, positions, (TokenGrid("patch", rows, cols),), layers)
