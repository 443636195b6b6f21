"""DOFA v1: a vision transformer for any bands, whose patch kernels are generated from their wavelengths.

Source: torchgeo 0.8.1, models/dofa.py; paper arXiv:2403.15356. The classification head and the norm in front of it are
not in the published files.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rs_embed.encoders.tokens import TokenGrid, Tokens
from rs_embed.encoders.vit import ViT
from rs_embed.encoders.waves import CODE_DIM, KernelRecipe, Wave, WavePatches

PATCH_PX = 16
"""Side of a patch, pixels."""
PADDING_PX = 1
"""Zeros around the image, pixels: patch k sees pixels 16k - 1 to 16k + 14, and none sees the last row and column."""


def nanometre_code(waves: Sequence[Wave]) -> Float[Tensor, "band code"]:
    """Encode wavelengths in nanometres as sines, then cosines; in float32, as the published weights were trained."""
    nanometres = torch.tensor([wave.centre_um for wave in waves], dtype=torch.float32, device="cpu") * 1000
    frequency = 1 / 10000 ** (torch.arange(CODE_DIM // 2, dtype=torch.float32, device="cpu") / (CODE_DIM / 2))
    angle = nanometres[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


DOFA_RECIPE = KernelRecipe(
    code=nanometre_code,
    transformer="transformer_encoder",
    linears=("w1", "w2"),
    activation=F.relu,
    scale=0.01,
    scaled_bias=True,
    padding_px=PADDING_PX,
    channels_first=False,
)


class DofaEncoder(ViT):
    """The encoder of DOFA for images of one size and any bands.

    Args:
        dim: Token width, a multiple of `heads`.
        depth: Number of blocks.
        heads: Number of heads.
        image_px: Side of the image, for which the table of positions is made.
    """

    def __init__(self, *, dim: int, depth: int, heads: int, image_px: int = 224) -> None:
        super().__init__(dim=dim, depth=depth, heads=heads, side=image_px // PATCH_PX, normed=False)
        self.patch_embed: WavePatches = WavePatches(dim=dim, patch_px=PATCH_PX, recipe=DOFA_RECIPE)

    def forward(
        self,
        image: Float[Tensor, "batch band height width"],
        waves: Sequence[Wave],
        *,
        layers: Sequence[int] | None = None,
    ) -> Tokens:
        """Encode images of any bands.

        Args:
            image: Standardised pixels, in whole patches.
            waves: The spectrum of each band; bandwidths are not used.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. None has a final norm. Blocks after the deepest one are not run.

        Returns:
            The class token, then the patches row by row.

        Raises:
            InputError: The image has another size, or is not made of whole patches.
            BandMismatch: The number of bands differs from that of the wavelengths.
            SpecError: A layer does not exist.
        """
        patches = self.patch_embed(image, waves)
        rows, cols = patches.shape[2:]
        grid = TokenGrid("patch", rows, cols)
        return self.mixed(patches.flatten(2).mT, self.positions(rows, cols), (grid,), layers)
