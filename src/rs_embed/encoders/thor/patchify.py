"""Convert pixels to THOR's patch tokens: the layout of patches, and the kernels that embed them.

THOR takes each band group at its own pixel size and cuts it into its own patches. A model works for any extent and
patch size, because its 16 px kernels are resized to the patch.

Source: FM4CS/THOR v1.0.2, models/thor_vit.py (choice of patch sizes) and utils/patch_embed.py (kernels).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.thor.bands import GROUP_OF_BAND, GROUPS, KERNELS, kernel_name, unknown_band
from rs_embed.encoders.tokens import TokenGrid, TokenLayout
from rs_embed.errors import BandMismatch, SpecError

KERNEL_PX = 16
"""Side of the stored patch kernels."""

TRAINED_PATCH_SIZES_PX = (4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 18, 20, 24, 30, 32)
"""Patch sizes used in pre-training (FM4CS/THOR, thor-base config)."""

Strategy = Literal["min", "max", "equal-min", "equal-max"]
"""Smallest or largest patch that fits: in each group separately, or ("equal-...") of the same size in all groups."""


@dataclass(frozen=True)
class GroupGeometry:
    """How one band group is cut into patches."""

    name: str
    """Name of the band group."""
    bands: tuple[str, ...]
    """THOR's names of the group's bands in the input, in the group's order."""
    channels: tuple[int, ...]
    """Index of each of `bands` on the channel axis of the input."""
    gsd_m: int
    """Pixel size to which the group is resized, metres."""
    patch_px: int
    """Side of a patch in pixels of `gsd_m`."""
    side: int
    """Patches, and so tokens, along each side of the square input."""

    @property
    def patch_m(self) -> int:
        """Side of a patch on the ground, in metres."""
        return self.patch_px * self.gsd_m


@dataclass(frozen=True)
class ThorGeometry:
    """How a square input of several band groups becomes one token sequence."""

    ground_cover_m: int
    """Side of the square that the input covers, metres."""
    groups: tuple[GroupGeometry, ...]
    """Groups in token order."""

    @property
    def layout(self) -> TokenLayout:
        """The token layout: one grid per band group, no prefix tokens."""
        return TokenLayout(tuple(TokenGrid(group.name, group.side, group.side) for group in self.groups))


def plan_geometry(
    bands: Sequence[str],
    ground_cover_m: int,
    patch_sizes_px: Sequence[int],
    strategy: Strategy = "min",
    gsd_m: Mapping[str, int] | None = None,
    *,
    new_bands: Mapping[str, str] | None = None,
) -> ThorGeometry:
    """Choose a patch size for each band group.

    Args:
        bands: THOR bands in the order of the input's channels, as from `resolve_bands`.
        ground_cover_m: Side of the square that the input covers, metres.
        patch_sizes_px: Sizes to choose from, in pixels of the group's own pixel size.
        strategy: How to choose among the sizes that divide the ground cover.
        gsd_m: Group -> pixel size in metres, if it is not the group's own.
        new_bands: Band that THOR does not know -> group that it joins.

    Raises:
        BandMismatch: There are no bands, or one is unknown or given twice.
        SpecError: A length is not positive, or no patch size divides the ground cover.
    """
    new = new_bands or {}
    _check_bands(bands, new)
    joined = {group: [*group.bands, *(band for band, name in new.items() if name == group.name)] for group in GROUPS}
    members = {group: tuple(band for band in joined[group] if band in bands) for group in GROUPS}
    present = [group for group in GROUPS if members[group]]
    gsds = {group.name: (gsd_m or {}).get(group.name, group.gsd_m) for group in present}
    _check_lengths(ground_cover_m, patch_sizes_px, gsds)
    patches_px = _choose_patches_px(ground_cover_m, patch_sizes_px, strategy, gsds)
    groups = []
    for group in present:
        channels = tuple(bands.index(band) for band in members[group])
        gsd, patch_px = gsds[group.name], patches_px[group.name]
        side = ground_cover_m // (patch_px * gsd)
        groups.append(GroupGeometry(group.name, members[group], channels, gsd, patch_px, side))
    return ThorGeometry(ground_cover_m, tuple(groups))


def _choose_patches_px(
    ground_cover_m: int, sizes_px: Sequence[int], strategy: Strategy, gsds: Mapping[str, int]
) -> dict[str, int]:
    """Choose by size on the ground, which is comparable between groups."""
    fitting_m = {name: {px * gsd for px in sizes_px if ground_cover_m % (px * gsd) == 0} for name, gsd in gsds.items()}
    for name, fits_m in fitting_m.items():
        if not fits_m:
            raise _no_fit(name, ground_cover_m, sizes_px, gsds)
    if strategy.startswith("equal"):
        common_m = set.intersection(*fitting_m.values())
        if not common_m:
            raise _no_common_fit(ground_cover_m, sizes_px, gsds)
        fitting_m = dict.fromkeys(gsds, common_m)
    pick = min if strategy.endswith("min") else max
    return {name: pick(fitting_m[name]) // gsd for name, gsd in gsds.items()}


def _check_bands(bands: Sequence[str], new: Mapping[str, str]) -> None:
    for band in bands:
        if band not in GROUP_OF_BAND and band not in new:
            raise unknown_band(band, tuple(GROUP_OF_BAND))
    if not bands or len(set(bands)) < len(bands):
        raise BandMismatch(
            "Expected one or more bands for THOR, each once, got others.",
            bands=", ".join(bands) or "none",
            fix="name each band once",
        )


def _check_lengths(ground_cover_m: int, sizes_px: Sequence[int], gsds: Mapping[str, int]) -> None:
    if not sizes_px:
        raise SpecError("Expected one or more patch sizes for THOR, got none.", fix="pass for example (16,)")
    shortest = min(ground_cover_m, *sizes_px, *gsds.values())
    if shortest < 1:
        raise SpecError(
            f"Expected ground cover, patch and pixel sizes of at least 1, got {shortest}.",
            fix="pass positive whole numbers",
        )


def _no_fit(name: str, ground_cover_m: int, sizes_px: Sequence[int], gsds: Mapping[str, int]) -> SpecError:
    steps_m = [px * math.lcm(*gsds.values()) for px in sizes_px]
    covers_m = [max(1, round(ground_cover_m / step)) * step for step in steps_m]
    fix = f"ground_cover_m={min(covers_m, key=lambda cover: abs(cover - ground_cover_m))}"
    fits_px = [px for px in TRAINED_PATCH_SIZES_PX if ground_cover_m % (px * math.lcm(*gsds.values())) == 0]
    if fits_px:
        fix += f", or a patch size of {min(fits_px, key=lambda px: abs(px - sizes_px[0]))} px"
    return SpecError(
        f"Expected a patch size that divides the ground cover of {ground_cover_m} m in {name}, got none.",
        patch_sizes=f"{', '.join(map(str, sizes_px))} px",
        group=f"{name}, {gsds[name]} m per pixel",
        fix=fix,
    )


def _no_common_fit(ground_cover_m: int, sizes_px: Sequence[int], gsds: Mapping[str, int]) -> SpecError:
    return SpecError(
        f"Expected a patch of the same size in all band groups for a ground cover of {ground_cover_m} m, got none.",
        patch_sizes=f"{', '.join(map(str, sizes_px))} px",
        groups=", ".join(f"{name} {gsd} m per pixel" for name, gsd in gsds.items()),
        fix='set strategy="min", which gives each group its own patches',
    )


@functools.lru_cache(maxsize=32)
def _resize_matrix(size_px: int) -> Float[Tensor, "size kernel"]:
    """Return the matrix that resizes one kernel axis; computed in float64, returned as float32 on the CPU.

    Bicubic resizing acts on each axis separately, so the pseudo-inverse of the whole (a Kronecker product) is the
    product of two of these.
    """
    # A tensor made in inference mode could not serve training later.
    with torch.inference_mode(False):
        basis = torch.eye(KERNEL_PX, dtype=torch.float64, device="cpu").view(KERNEL_PX, 1, 1, KERNEL_PX)
        resized = F.interpolate(basis, size=(1, size_px), mode="bicubic", align_corners=False, antialias=True)
        inverse: Tensor = torch.linalg.pinv(resized.view(KERNEL_PX, size_px))
        return inverse.float()


def resize_kernel(kernel: Float[Tensor, "dim band old old"], size_px: int) -> Float[Tensor, "dim band new new"]:
    """Resize patch kernels so that a resized image keeps its embedding as closely as possible.

    Args:
        kernel: Kernels of 16 x 16 px; returned unchanged if `size_px` is 16.
        size_px: Side of the new kernels, pixels.

    Source: FlexiViT, Beyer et al. 2023, arXiv:2212.08013, section 3.4 (PI-resize).
    """
    if size_px == KERNEL_PX:
        return kernel
    matrix = _resize_matrix(size_px).to(kernel.device)
    with torch.autocast(kernel.device.type, enabled=False):
        resized: Tensor = matrix @ kernel.float() @ matrix.mT
    return resized


@dataclass(frozen=True, eq=False)
class PatchKernel:
    """The kernel that converts the patches of one band group to tokens."""

    weight: Float[Tensor, "dim band patch patch"]
    """Kernels over the group's bands, divided by their number."""
    bias: Float[Tensor, " dim"]
    """Mean of the bands' biases."""


class PatchEmbed(nn.Module):
    """One stored kernel per band; one convolution per band group.

    Args:
        dim: Token width.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.patch_embed: nn.ModuleDict = nn.ModuleDict()
        self.add_bands(KERNELS, dim)

    def add_bands(self, names: Sequence[str], dim: int) -> None:
        """Add kernels, with PyTorch's initial values for a convolution."""
        self.patch_embed.update({name: nn.Conv2d(1, dim, KERNEL_PX) for name in names})

    def merge(self, group: GroupGeometry) -> PatchKernel:
        """Build the kernel that computes the mean of the embeddings of the group's bands in one convolution."""
        names = [f"patch_embed.{kernel_name(band)}" for band in group.bands]
        weights = torch.cat([self.get_parameter(f"{name}.weight") for name in names], dim=1)
        biases = torch.stack([self.get_parameter(f"{name}.bias") for name in names])
        return PatchKernel(resize_kernel(weights / len(names), group.patch_px), biases.mean(dim=0))

    def forward(
        self,
        images: Float[Tensor, "batch channel height width"],
        group: GroupGeometry,
        kernel: PatchKernel,
    ) -> Float[Tensor, "batch token dim"]:
        """Resize the group's bands to its pixel size (bilinear, half-pixel centres) and embed its patches.

        Args:
            images: All channels of the input on one square raster.
            group: The channels to use and how to cut them.
            kernel: The result of `merge` for `group`, passed in so that the caller can cache it.
        """
        bands = images[:, list(group.channels)]
        side_px = group.side * group.patch_px
        if bands.shape[2:] != (side_px, side_px):
            bands = F.interpolate(bands, size=(side_px, side_px), mode="bilinear", align_corners=False)
        tokens = F.conv2d(bands, kernel.weight, stride=group.patch_px).flatten(2).mT
        # Added afterwards, so that under autocast the tokens have the float32 of the bias.
        return tokens + kernel.bias
