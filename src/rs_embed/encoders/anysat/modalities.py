"""AnySat's eleven modalities, and checks that inputs fit them and each other.

Source: gastruc/AnySat, hubconf.py and README.md; paper arXiv:2412.14123.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from rs_embed.errors import BandMismatch, InputError, SpecError

CELL_M = 10
"""Side of the cells that patches consist of, metres; the network counts positions of patches in cells."""


@dataclass(frozen=True)
class AnySatModality:
    """One kind of input, and how the network cuts it into sub-tokens."""

    name: str
    """AnySat's name of the modality."""
    channels: int
    """Number of bands, in the order of AnySat's README."""
    gsd_cm: int
    """True pixel size on the ground, centimetres, used to check that inputs cover the same square."""
    cell_px: int
    """Side of what the network treats as a cell of 10 m, pixels."""
    cell_tokens: int = 1
    """Sub-tokens along the side of a cell."""
    spacing_m: int = CELL_M
    """Distance between sub-tokens in their position code, metres."""
    period: int | None = None
    """Base of the date code of a time series; `None` for a single image."""
    norm_across_dates: bool = False
    """Whether features are normalised over all dates of a pixel together."""

    @property
    def kernel_px(self) -> int:
        """Side of a sub-token, pixels."""
        return self.cell_px // self.cell_tokens


_TABLE = (
    AnySatModality("aerial", 4, 20, cell_px=50, cell_tokens=5, spacing_m=2),
    AnySatModality("aerial-flair", 5, 20, cell_px=50, cell_tokens=5, spacing_m=2),
    AnySatModality("spot", 3, 100, cell_px=10),
    AnySatModality("naip", 4, 125, cell_px=8),
    AnySatModality("s2", 10, 1000, cell_px=1, period=367, norm_across_dates=True),
    AnySatModality("s1-asc", 2, 1000, cell_px=1, period=367),
    AnySatModality("s1", 3, 1000, cell_px=1, period=367),
    AnySatModality("l8", 11, 1000, cell_px=1, period=366),
    AnySatModality("l7", 6, 3000, cell_px=1, spacing_m=30, period=367),
    AnySatModality("alos", 3, 3000, cell_px=1, spacing_m=30, period=367),
    AnySatModality("modis", 7, 25000, cell_px=1, spacing_m=250, period=367),
)
MODALITIES = {modality.name: modality for modality in _TABLE}
"""Every modality that the published weights have a projector for, by name."""

NOT_RUNNABLE = "modis"
"""In the checkpoint, but the released forward pass fails on it, so there is no reference output."""

ONE_SCALE = ("l7", "alos")
"""Modalities whose 30 m pixels the released code treats as cells of 10 m: only `patch_m=10` runs (one pixel per patch),
and distances between patches are three times too small. Kept, to match the released features."""


@dataclass(frozen=True)
class PatchGrid:
    """The grid of patches, shared by all inputs."""

    rows: int
    """Patches from north to south."""
    cols: int
    """Patches from west to east."""
    scale: int
    """Side of a patch in cells of 10 m."""


def plan_patches(
    inputs: Mapping[str, Tensor],
    dates: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    patch_m: int,
    offered: Sequence[str],
) -> PatchGrid:
    """Check that the inputs fit the model and each other, and return their grid of patches.

    Args:
        inputs: Modality -> `[batch, channel, height, width]` or `[batch, time, channel, height, width]`.
        dates: Time series -> `[batch, time]`.
        masks: Time series -> mask of the shape of the input.
        patch_m: Side of a patch, metres.
        offered: Modalities with which the network was built.

    Raises:
        SpecError: A modality is unknown, or the patch size is invalid.
        BandMismatch: The number of channels or axes is wrong.
        InputError: Dates or masks do not fit, sides are not multiples of the patch, or inputs differ in ground or batch
            size.
    """
    if not inputs:
        raise InputError("Expected one or more modalities for AnySat, got none.", fix=f"pass for example {offered[0]}")
    for name, values in inputs.items():
        _check_name(name, offered)
        _check_patch_m(name, patch_m)
        _check_values(MODALITIES[name], values)
        _check_dates(MODALITIES[name], values, dates.get(name))
    _check_masks(inputs, masks)
    _check_same(inputs)
    grids = {name: _cut(MODALITIES[name], values, patch_m) for name, values in inputs.items()}
    if len(set(grids.values())) > 1:
        raise InputError(
            f"Expected modalities with the same number of patches at patch_m={patch_m}, got different numbers.",
            patches=", ".join(f"{name} {grid.rows} x {grid.cols}" for name, grid in grids.items()),
            fix=f"run {' and '.join(name for name in inputs if name in ONE_SCALE)} separately",
        )
    return next(iter(grids.values()))


def _check_name(name: str, offered: Sequence[str]) -> None:
    usable = ", ".join(other for other in offered if other != NOT_RUNNABLE)
    if name == NOT_RUNNABLE:
        raise SpecError("modis is not supported, as AnySat's released code cannot run it.", fix=f"use one of {usable}")
    if name not in offered:
        raise SpecError(f'This AnySat has no modality "{name}".', fix=f"use one of {usable}")


def _check_patch_m(name: str, patch_m: int) -> None:
    if patch_m < CELL_M or patch_m % CELL_M:
        near = max(CELL_M, round(patch_m / CELL_M) * CELL_M)
        raise SpecError(f"Expected patch_m as a multiple of 10 m, got {patch_m}.", fix=f"set patch_m={near}")
    if name in ONE_SCALE and patch_m != CELL_M:
        raise SpecError(
            f"Expected patch_m=10 for {name} of AnySat, got {patch_m}.",
            why="the released code treats its 30 m pixels as cells of 10 m",
            fix="set patch_m=10, which makes each pixel a patch",
        )


def _check_values(modality: AnySatModality, values: Tensor) -> None:
    axes = ["batch", "channel", "height", "width"]
    if modality.period is not None:
        axes.insert(1, "time")
    if values.ndim != len(axes) or values.shape[-3] != modality.channels:
        raise BandMismatch(
            f"Expected {modality.name} as [{', '.join(axes)}] with {modality.channels} channels, got another shape.",
            found=f"shape {list(values.shape)}",
            fix=f"stack the {modality.channels} bands of {modality.name} in the model card's order",
        )
    if 0 in values.shape:
        raise InputError(
            f"Expected pixels for {modality.name}, got none.", found=f"shape {list(values.shape)}", fix="leave it out"
        )


def _check_dates(modality: AnySatModality, values: Tensor, dates: Tensor | None) -> None:
    if modality.period is None:
        return
    wanted = list(values.shape[:2])
    if dates is None or list(dates.shape) != wanted:
        found = "none" if dates is None else f"shape {list(dates.shape)}"
        raise InputError(
            f"Expected a date for each frame of {modality.name}, shape {wanted}, got another shape.",
            found=found,
            fix=f'pass dates={{"{modality.name}": ...}} with the day of the year, 1 January = 0',
        )


def _check_masks(inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        if name not in inputs or MODALITIES[name].period is None:
            raise InputError(
                f"Expected masks only for time series among the inputs, got one for {name}.", fix="remove this mask"
            )
        if mask.shape != inputs[name].shape:
            raise InputError(
                f"Expected the mask of {name} in the shape of its input, got another shape.",
                found=f"{list(mask.shape)}, input {list(inputs[name].shape)}",
                fix="pass one value per pixel, band and frame; non-zero is valid",
            )


def _check_same(inputs: Mapping[str, Tensor]) -> None:
    """Check that all inputs have the same batch size and cover the same rectangle."""
    sizes = {name: _ground_cm(MODALITIES[name], values) for name, values in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(
            "Expected modalities that cover the same ground, got different sizes.",
            **{name: f"{height / 100:g} x {width / 100:g} m" for name, (height, width) in sizes.items()},
            fix="crop them to the same square",
        )
    batches = {name: len(values) for name, values in inputs.items()}
    if len(set(batches.values())) > 1:
        raise InputError(
            "Expected modalities with the same batch size, got different ones.",
            found=", ".join(f"{name} {batch}" for name, batch in batches.items()),
            fix="pass every modality for every item of the batch",
        )


def _ground_cm(modality: AnySatModality, values: Tensor) -> tuple[int, int]:
    height, width = values.shape[-2:]
    return height * modality.gsd_cm, width * modality.gsd_cm


def _cut(modality: AnySatModality, values: Tensor, patch_m: int) -> PatchGrid:
    """Refuse rows and columns that fill no patch, which the released code would silently drop."""
    height, width = values.shape[-2:]
    patch_px = patch_m // CELL_M * modality.cell_px
    if height % patch_px or width % patch_px:
        fits = [max(1, side // patch_px) * patch_px for side in (height, width)]
        raise InputError(
            f"Expected {modality.name} in whole patches of {patch_m} m, got {height} x {width} px.",
            patch=f"{patch_px} px",
            fix=f"crop to {fits[0]} x {fits[1]} px, or choose another patch_m",
        )
    return PatchGrid(height // patch_px, width // patch_px, patch_m // CELL_M)
