"""Clay v1.5: a vision transformer for any bands, which is told pixel size, date and place.

Source: Clay-foundation/model a5790ce, claymodel (model.py, factory.py, backbone.py, utils.py); TerraTorch 1.2.11,
models/backbones/clay_v15. In training, a share of the patches is masked at random; here all are seen.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.kernels.attention import attend
from rs_embed.encoders.kernels.linear import Linear, prepared
from rs_embed.encoders.layers import Encoder, add, counted_layers, run_blocks, side_by_side
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.encoders.waves import CODE_DIM, KernelRecipe, Wave, WavePatches

PATCH_PX = 8
"""Side of a patch, pixels."""
HEAD_DIM = 64
"""Width of an attention head."""
TOLD = 8
"""Channels of a position code that hold date (4) and place (4)."""
TEMPERATURE = 10000.0
"""Base of the frequencies of both codes."""


def micrometre_code(waves: Sequence[Wave]) -> Float[Tensor, "band code"]:
    """Encode wavelengths in micrometres as sines, then cosines.

    The authors' training reads micrometres; some of their pages multiply them by 1000, which gives other tokens.
    """
    micrometres = torch.tensor([wave.centre_um for wave in waves], dtype=torch.float32, device="cpu")
    steps = torch.arange(CODE_DIM // 2, dtype=torch.float32, device="cpu") / (CODE_DIM // 2 - 1)
    angle = micrometres[:, None] * (1 / TEMPERATURE**steps)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def place_code(rows: int, cols: int, dim: int, pixel_m: float) -> Float[Tensor, "patch dim"]:
    """Encode the positions of patches, row by row: sines and cosines of the column, then of the row.

    Frequencies grow with the pixel size. They are those of the authors' code, almost all equal: the exponent is divided
    by `dim` once more than usual.

    Args:
        rows: Patches from north to south.
        cols: Patches from west to east.
        dim: Length of a code, a multiple of 4.
        pixel_m: Side of a pixel, metres.
    """
    steps = torch.arange(dim // 4, dtype=torch.float32, device="cpu") / (dim // 4 - 1)
    frequency = 1 / TEMPERATURE ** (2 * steps / dim) * pixel_m
    south, east = torch.meshgrid(torch.arange(rows, device="cpu"), torch.arange(cols, device="cpu"), indexing="ij")
    x, y = east.flatten()[:, None] * frequency, south.flatten()[:, None] * frequency
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


CLAY_RECIPE = KernelRecipe(
    code=micrometre_code,
    transformer="encoder",
    linears=("l1", "l2"),
    activation=F.gelu,
    scale=0.02,
    scaled_bias=False,
    padding_px=0,
    channels_first=True,
)


class ClayAttention(nn.Module):
    """Norm, then multi-head attention without bias.

    Args:
        dim: Token width.
        heads: Number of heads, each `HEAD_DIM` wide.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.to_qkv: nn.Linear = Linear(dim, 3 * heads * HEAD_DIM, bias=False)
        self.to_out: nn.Linear = Linear(heads * HEAD_DIM, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens."""
        q, k, v = self.to_qkv(self.norm(x)).unflatten(2, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4).unbind()
        out: Tensor = self.to_out(attend(q, k, v).transpose(1, 2).flatten(2))
        return out


class ClayMlp(nn.Module):
    """Norm, then two linear layers with an exact GELU between them, numbered as in the published file.

    Args:
        dim: Token width.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.net: nn.ModuleDict = nn.ModuleDict(
            {"0": nn.LayerNorm(dim), "1": Linear(dim, 4 * dim, after="gelu"), "3": Linear(4 * dim, dim)}
        )

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Transform each token by itself."""
        for layer in self.net.values():
            x = layer(x)
        return x


class ClayBlock(nn.ModuleList):
    """Attention, then MLP, each added to its input.

    Args:
        dim: Token width.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__([ClayAttention(dim=dim, heads=heads), ClayMlp(dim=dim)])

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Run the block."""
        for part in self:
            x = add(x, part(x))
        return x


class ClayTransformer(nn.Module):
    """The blocks and the norm after the last.

    Args:
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layers: nn.ModuleList = nn.ModuleList(ClayBlock(dim=dim, heads=heads) for _ in range(depth))
        self.norm: nn.LayerNorm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "batch token dim"], layers: Sequence[int] | None) -> Tensor:
        """Return the outputs of some blocks, concatenated along the token width."""
        wanted = counted_layers(layers, len(self.layers))
        with prepared(self.layers[: max(wanted) + 1], device_type=x.device.type):
            states = run_blocks(self.layers, x, wanted)
        last = len(self.layers) - 1
        return side_by_side([self.norm(one) if at == last else one for at, one in zip(wanted, states, strict=True)])


class ClayEncoder(Encoder):
    """The encoder of Clay v1.5, for images of any size and any bands.

    Args:
        dim: Token width, a multiple of 4.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.patch_embedding: WavePatches = WavePatches(dim=dim, patch_px=PATCH_PX, recipe=CLAY_RECIPE)
        self.transformer: ClayTransformer = ClayTransformer(dim=dim, depth=depth, heads=heads)

    def forward(
        self,
        image: Float[Tensor, "batch band height width"],
        waves: Sequence[Wave],
        *,
        pixel_m: float,
        time: Float[Tensor, "batch 4"],
        place: Float[Tensor, "batch 4"],
        layers: Sequence[int] | None = None,
    ) -> Tokens:
        """Encode images of any bands.

        Args:
            image: Standardised pixels, in whole patches.
            waves: The spectrum of each band; bandwidths are not used.
            pixel_m: Side of a pixel, metres.
            time: Sine and cosine of the week (52 to a turn), then of the hour (24 to a turn); zeros if unknown.
            place: Sine and cosine of the latitude, then of the longitude; zeros if unknown.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. Only the last has the final norm. Blocks after the deepest one are not run.

        Returns:
            The class token, then the patches row by row.

        Raises:
            InputError: The image is not made of whole patches.
            BandMismatch: The number of bands differs from that of the wavelengths.
            SpecError: A layer does not exist.
        """
        embedded = self.patch_embedding(image, waves)
        dim, rows, cols = embedded.shape[1:]
        patches = embedded.flatten(2).mT.float()
        where = place_code(rows, cols, dim - TOLD, pixel_m).to(patches.device).expand(len(image), -1, -1)
        told = torch.cat([time, place], dim=1)[:, None].expand(-1, rows * cols, -1)
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), patches + torch.cat([where, told], dim=2)], dim=1)
        return Tokens(self.transformer(x, layers), TokenLayout((TokenGrid("patch", rows, cols),), prefix=1))
