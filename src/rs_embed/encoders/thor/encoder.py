"""THOR: one vision transformer over band groups of different pixel sizes, with positions by distance in metres.

Source: FM4CS/THOR v1.0.2 (thor/models/thor_vit.py, thor/utils/pos_embed.py); paper arXiv:2601.16011.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rs_embed.encoders.kernels.attention import Distances
from rs_embed.encoders.kernels.linear import prepared
from rs_embed.encoders.layers import (
    NORM_EPS,
    Block,
    CachesFromWeights,
    Encoder,
    LRUCache,
    counted_layers,
    run_blocks,
    side_by_side,
    sincos_1d,
)
from rs_embed.encoders.thor.bands import GROUPS
from rs_embed.encoders.thor.patchify import GroupGeometry, PatchEmbed, PatchKernel, ThorGeometry
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import BandMismatch, InputError

REFERENCE_PATCH_M = 40
"""Ground size of a patch at position 1 of the patch-size code: 4 px of 10 m, for any bands."""

GEOMETRIES_KEPT = 2
"""Number of geometries whose kernels and distances are cached (1620 tokens: 10 MB of distances each)."""


class ThorEncoder(CachesFromWeights, Encoder):
    """The encoder of THOR, for any band selection, extent and patch size.

    Distances between tokens are cached for the last few geometries, and without gradients the merged kernels too.
    Loading or moving weights drops both, and a forward pass with gradients drops the kernels. After changing weights in
    place by other means, call `drop_cached`.

    Args:
        dim: Token width, 64 per head in the published models.
        depth: Number of blocks.
        heads: Number of attention heads.
        band_dim: Number of channels that encode the band group; the rest encode the patch size.
    """

    encoder_slopes: Float[Tensor, " head"]

    def __init__(self, *, dim: int, depth: int, heads: int, band_dim: int) -> None:
        super().__init__()
        self.ind_patch_embed: PatchEmbed = PatchEmbed(dim=dim)
        self.band_embed: nn.ParameterDict = nn.ParameterDict(
            {g.name: nn.Parameter(torch.zeros(band_dim)) for g in GROUPS}
        )
        self.blocks: nn.ModuleList = nn.ModuleList(Block(dim=dim, heads=heads) for _ in range(depth))
        self.norm: nn.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.register_buffer("encoder_slopes", torch.tensor(alibi_slopes(heads)))
        self._kernels: LRUCache[list[PatchKernel]] = LRUCache(GEOMETRIES_KEPT)
        self._distances: LRUCache[Distances] = LRUCache(GEOMETRIES_KEPT)

    def forward(
        self,
        images: Float[Tensor, "batch channel height width"],
        geometry: ThorGeometry,
        *,
        final_norm: bool = False,
        layers: Sequence[int] | None = None,
    ) -> Tokens:
        """Encode normalised images.

        Args:
            images: One square raster of all bands, standardised; it is resized to each group's pixel size.
            geometry: The bands of the channels and how they are cut.
            final_norm: Whether to apply the final LayerNorm to the last block's output; the official wrapper does not.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. Blocks after the deepest one are not run.

        Raises:
            InputError: The images are not square.
            BandMismatch: The channels are not those for which `geometry` was planned.
            SpecError: A layer does not exist.
        """
        depth = len(self.blocks)
        wanted = counted_layers(layers, depth)
        states = self.intermediates(images, geometry, wanted)
        if final_norm:
            states = [self.norm(x) if layer == depth - 1 else x for layer, x in zip(wanted, states, strict=True)]
        return Tokens(side_by_side(states), geometry.layout)

    def intermediates(
        self,
        images: Float[Tensor, "batch channel height width"],
        geometry: ThorGeometry,
        layers: Sequence[int] | None = None,
    ) -> list[Float[Tensor, "batch token dim"]]:
        """Encode as `forward` does and return the raw output of blocks, counted from 0; default: all."""
        x = self.embed(images, geometry)
        wanted = range(len(self.blocks)) if layers is None else layers
        with prepared(self.blocks[: max(wanted) + 1], device_type=x.device.type):
            return run_blocks(self.blocks, x, wanted, self._kept_distances(geometry))

    def embed(
        self, images: Float[Tensor, "batch channel height width"], geometry: ThorGeometry
    ) -> Float[Tensor, "batch token dim"]:
        """Turn images into the tokens that enter the first block."""
        _check_images(images, geometry)
        parts = [
            self.ind_patch_embed(images, group, kernel) + self._code(group)
            for group, kernel in zip(geometry.groups, self._group_kernels(geometry), strict=True)
        ]
        return torch.cat(parts, dim=1)

    def distances(self, geometry: ThorGeometry) -> Distances:
        """Return the distance penalty: minus a slope per head, times the distance of patches in largest patches."""
        unit_m = max(group.patch_m for group in geometry.groups)
        centres = torch.cat([_patch_centres(group) for group in geometry.groups]) / unit_m
        row, col = centres.to(self.encoder_slopes.device).unbind(dim=1)
        distance = torch.hypot(row[:, None] - row, col[:, None] - col)
        return Distances(distance, -self.encoder_slopes.float())

    def drop_cached(self) -> None:
        """Drop the cached kernels and distances."""
        self._kernels.clear()
        self._distances.clear()

    @torch.no_grad()
    def init_random(self, seed: int) -> None:
        """See `Encoder`; the slopes are computed, not random."""
        super().init_random(seed)
        self.encoder_slopes.copy_(torch.tensor(alibi_slopes(len(self.encoder_slopes))))
        self.drop_cached()

    def _code(self, group: GroupGeometry) -> Float[Tensor, " dim"]:
        """Return the code added to every token of a group: that of its patch size, then the band embedding."""
        band_code = self.band_embed[group.name]
        width = self.norm.normalized_shape[0] - len(band_code)
        size_code = sincos_1d(group.patch_m / REFERENCE_PATCH_M, width)
        return torch.cat([size_code.to(band_code), band_code])

    def _group_kernels(self, geometry: ThorGeometry) -> list[PatchKernel]:
        def make() -> list[PatchKernel]:
            return [self.ind_patch_embed.merge(group) for group in geometry.groups]

        if self.training or torch.is_grad_enabled():
            self._kernels.clear()  # the weights may be about to change
            return make()
        return self._kernels.get(geometry, make)

    def _kept_distances(self, geometry: ThorGeometry) -> Distances:
        def make() -> Distances:
            # A tensor made in inference mode could not serve training later.
            with torch.inference_mode(False):
                return self.distances(geometry)

        return self._distances.get(geometry, make)


def alibi_slopes(heads: int) -> list[float]:
    """Return the slopes of the distance penalty, one per head.

    If the number of heads is a power of two, they are the geometric series down to 1/256. Otherwise they are the series
    of the next lower power of two, then every other slope of the next higher.

    Source: Press et al. 2022, arXiv:2108.12409, and their released code for other counts than powers of two.
    """
    power = 2 ** (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * k / power) for k in range(1, power + 1)]
    between = [2.0 ** (-4 * k / power) for k in range(1, 2 * power, 2)]
    return slopes + between[: heads - power]


def _patch_centres(group: GroupGeometry) -> Float[Tensor, "token 2"]:
    """Return row and column of each patch's centre, in metres from the north-west corner."""
    along = (torch.arange(group.side, dtype=torch.float32, device="cpu") + 0.5) * group.patch_m
    return torch.cartesian_prod(along, along)


def _check_images(images: Float[Tensor, "batch channel height width"], geometry: ThorGeometry) -> None:
    channels, height, width = images.shape[1:]
    wanted = [band for group in geometry.groups for band in group.bands]
    if channels != len(wanted):
        raise BandMismatch(
            f"Expected {len(wanted)} channels for this geometry, got {channels}.",
            bands=", ".join(wanted),
            fix="plan the geometry with the bands of the images, in their order",
        )
    if height != width:
        raise InputError(
            f"Expected square images for THOR, got {height} x {width} px.",
            ground_cover=f"{geometry.ground_cover_m} m along each side",
            fix="crop or pad to a square first",
        )
