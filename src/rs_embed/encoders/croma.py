"""CROMA: an optical and a radar encoder, and a third that joins them by cross attention.

There is no table of positions: attention weakens with the distance of two patches (ALiBi in two dimensions), so that
images of any size can be encoded.

Source: antofuller/CROMA 59505a6, use_croma.py; paper arXiv:2311.00566.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rs_embed.encoders.kernels.attention import Distances, attend
from rs_embed.encoders.kernels.linear import Linear, prepared
from rs_embed.encoders.layers import Encoder, LRUCache, add
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BandMismatch, InputError

PATCH_PX = 8
OPTICAL_BANDS, RADAR_BANDS = 12, 2
SIZES_KEPT = 4
"""Number of image sizes whose distances are kept."""


class DistanceAttention(nn.Module):
    """Attention with its own norm in front.

    Args:
        dim: Token width, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.input_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.to_qkv: nn.Linear = Linear(dim, 3 * dim, bias=False)
        self.to_out: nn.Linear = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch token dim"], distances: Distances) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens of each item."""
        parts = self.to_qkv(self.input_norm(x)).chunk(3, dim=-1)
        q, k, v = (_by_head(part, self.heads) for part in parts)
        out: Tensor = self.to_out(attend(q, k, v, distances).transpose(1, 2).flatten(2))
        return out


class SensorCrossAttention(nn.Module):
    """Attention to the tokens of another sensor on the same ground; one norm serves both.

    Args:
        dim: Token width, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.input_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.to_q: nn.Linear = Linear(dim, dim, bias=False)
        self.to_k: nn.Linear = Linear(dim, dim, bias=False)
        self.to_v: nn.Linear = Linear(dim, dim, bias=False)
        self.to_out: nn.Linear = Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], context: Float[Tensor, "batch token dim"], distances: Distances
    ) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens of `context` into `x`."""
        x, context = self.input_norm(x), self.input_norm(context)
        q, k, v = (_by_head(part, self.heads) for part in (self.to_q(x), self.to_k(context), self.to_v(context)))
        out: Tensor = self.to_out(attend(q, k, v, distances).transpose(1, 2).flatten(2))
        return out


class CromaFeedForward(nn.Module):
    """Norm, and two linear layers with a GELU between them. Names are positions in the authors' sequence.

    Args:
        dim: Token width.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.input_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.net: nn.ModuleDict = nn.ModuleDict({"0": Linear(dim, 4 * dim, after="gelu"), "3": Linear(4 * dim, dim)})

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Transform each token by itself."""
        out: Tensor = self.net["3"](self.net["0"](self.input_norm(x)))
        return out


class CromaBlocks(nn.Module):
    """Blocks, and a norm behind the last one.

    Args:
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
        joins: Whether each block also attends to the tokens of another sensor.
    """

    def __init__(self, *, dim: int, depth: int, heads: int, joins: bool = False) -> None:
        super().__init__()

        def block() -> nn.ModuleList:
            cross = [SensorCrossAttention(dim=dim, heads=heads)] if joins else []
            return nn.ModuleList([DistanceAttention(dim=dim, heads=heads), *cross, CromaFeedForward(dim)])

        self.layers: nn.ModuleList = nn.ModuleList(block() for _ in range(depth))
        self.norm_out: nn.LayerNorm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        distances: Distances,
        context: Float[Tensor, "batch token dim"] | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        """Run the blocks, with the other sensor's tokens as `context` if they join two sensors."""
        for block in self.layers:
            attention, *cross, feed_forward = block.children()
            x = add(x, attention(x, distances))
            for one in cross:
                x = add(x, one(x, context, distances))
            x = add(x, feed_forward(x))
        out: Tensor = self.norm_out(x)
        return out


class SensorEncoder(nn.Module):
    """The encoder of one sensor.

    Args:
        bands: Number of bands.
        dim: Token width.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, bands: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.linear_input: nn.Linear = Linear(bands * PATCH_PX**2, dim)
        self.transformer: CromaBlocks = CromaBlocks(dim=dim, depth=depth, heads=heads)

    def forward(
        self, image: Float[Tensor, "batch band height width"], distances: Distances
    ) -> Float[Tensor, "batch token dim"]:
        """Encode images: one token per patch, row by row."""
        patches = image.unflatten(3, (-1, PATCH_PX)).unflatten(2, (-1, PATCH_PX)).permute(0, 2, 4, 1, 3, 5)
        out: Tensor = self.transformer(self.linear_input(patches.flatten(3).flatten(1, 2)).float(), distances)
        return out


class GapHead(nn.Module):
    """What turns the mean token into the vector of a sensor. Names are positions in the authors' sequence.

    Args:
        dim: Token width.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.add_module("0", nn.LayerNorm(dim))
        self.add_module("1", Linear(dim, 4 * dim, after="gelu"))
        self.add_module("3", Linear(4 * dim, dim))

    def forward(self, mean: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Transform the mean token."""
        for part in self.children():
            mean = part(mean)
        return mean


class CromaEncoder(Encoder):
    """The three encoders of CROMA.

    Args:
        dim: Token width, a multiple of `heads`.
        depth: Number of blocks of the optical encoder; the other two have half as many.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        half = depth // 2
        self.s1_encoder: SensorEncoder = SensorEncoder(bands=RADAR_BANDS, dim=dim, depth=half, heads=heads)
        self.s1_GAP_FFN: GapHead = GapHead(dim)
        self.s2_encoder: SensorEncoder = SensorEncoder(bands=OPTICAL_BANDS, dim=dim, depth=depth, heads=heads)
        self.s2_GAP_FFN: GapHead = GapHead(dim)
        self.joint_encoder: CromaBlocks = CromaBlocks(dim=dim, depth=half, heads=heads, joins=True)
        self._heads = heads
        self._distances: LRUCache[Distances] = LRUCache(SIZES_KEPT)

    def forward(
        self,
        optical: Float[Tensor, "batch optical height width"] | None = None,
        radar: Float[Tensor, "batch radar rows cols"] | None = None,
    ) -> Tokens:
        """Encode images of one sensor, or of both together.

        The first token is the authors' vector ("GAP"): of one sensor, its mean token through a small network; of both,
        the mean token itself. Patches follow row by row.

        Args:
            optical: Twelve bands of Sentinel-2, each scaled to 0..1.
            radar: VV and VH of Sentinel-1, each scaled to 0..1.

        Raises:
            InputError: There is no image, the two differ in size, or they do not consist of whole patches.
            BandMismatch: An image has another number of bands.
        """
        rows, cols = _patches((optical, OPTICAL_BANDS), (radar, RADAR_BANDS))
        grid = TokenGrid("patch", rows, cols)
        first = next(image for image in (optical, radar) if image is not None)
        key = (rows, cols, first.device)
        distances = self._distances.get(key, lambda: distances_of(rows, cols, self._heads, first.device))
        with prepared(self, device_type=first.device.type):
            if radar is None and optical is not None:
                tokens: Tensor = self.s2_encoder(optical, distances)
                vector: Tensor = self.s2_GAP_FFN(tokens.mean(dim=1))
            elif optical is None:
                tokens = self.s1_encoder(radar, distances)
                vector = self.s1_GAP_FFN(tokens.mean(dim=1))
            else:
                seen = self.s2_encoder(optical, distances)
                tokens = self.joint_encoder(self.s1_encoder(radar, distances), distances, seen)
                vector = tokens.mean(dim=1)
        return Tokens(torch.cat([vector[:, None].to(tokens.dtype), tokens], dim=1), TokenLayout((grid,), prefix=1))


def distances_of(rows: int, cols: int, heads: int, device: torch.device) -> Distances:
    """Return the penalty on attention: each head's slope times the distance of two patches, in patches.

    Source: as the module (`get_2dalibi`); slopes as in Press et al. 2022, arXiv:2108.12409.
    """
    row, col = torch.arange(rows, device="cpu"), torch.arange(cols, device="cpu")
    place = torch.stack(torch.meshgrid(row, col, indexing="ij"), dim=-1).flatten(0, 1).double()
    apart = (place[:, None] - place[None]).square().sum(-1).sqrt()
    ratio = 2 ** -(8 / heads)
    slopes = torch.tensor([-(ratio**number) for number in range(1, heads + 1)], device="cpu")
    return Distances(apart.float().to(device), slopes.to(device))


def _by_head(x: Float[Tensor, "batch token dim"], heads: int) -> Float[Tensor, "batch head token width"]:
    apart: Tensor = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return apart


def _patches(*images: tuple[Tensor | None, int]) -> tuple[int, int]:
    """Check the images; return rows and columns of patches."""
    sizes = set()
    for image, bands in images:
        if image is not None:
            if image.shape[1] != bands:
                raise BandMismatch(
                    f"Expected {bands} bands, got {image.shape[1]}.", fix="pass 12 optical bands, and VV and VH"
                )
            sizes.add(tuple(image.shape[2:]))
    if len(sizes) != 1 or any(side % PATCH_PX or not side for size in sizes for side in size):
        raise InputError(
            f"Expected images of one size, in whole patches of {PATCH_PX} px, got "
            f"{', '.join(f'{height} x {width}' for height, width in sorted(sizes)) or 'none'}.",
            fix="crop or pad them",
        )
    height, width = sizes.pop()
    return height // PATCH_PX, width // PATCH_PX
