"""OlmoEarth, by the package of its authors: series of Sentinel-2, Sentinel-1 and Landsat."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn

from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip
from rs_embed.core.optional import require
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality, Pixels
from rs_embed.embedders.cards.olmoearth import (
    BAND_SETS,
    EXTRA,
    FEEDS,
    MOST_PX,
    PACKAGE,
    WAVELENGTHS_NM,
    OlmoEarthCard,
    OlmoEarthKnobs,
)
from rs_embed.embedders.prepare.dates_and_places import months_of
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import Scaling, to_frames
from rs_embed.embedders.runtime.random_numbers import own_random_numbers
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import RANDOM_NOTE, RANDOM_SEED, load_picked, published_state
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import SpecError

DATES, SEEN = " dates", " seen"
"""Name of the tensor of dates; suffix of tensor names for the tokens that have data."""
MISSING = 3
"""The package's code of a token that has no data."""
_HOME = "olmoearth_pretrain_minimal"
_COMPUTED = "composite_encodings.pos_embed"
"""A table that early checkpoints hold, which the network computes itself."""
LAYOUT = Layout(complete=lambda state: {name: tensor for name, tensor in state.items() if name != _COMPUTED})


@final
class OlmoEarthEmbedder(Embedder):
    """OlmoEarth: a token per patch, date and set of bands."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Build the package's encoder and load the card's file strictly; decoder and target encoder are left out.

        Raises:
            MissingDependency: The package is not installed.
            WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
        """
        found = published_state(request, settings)
        module = make_module(cast("OlmoEarthCard", request.card))
        if found is None:
            return Network(module, f"random:{RANDOM_SEED}", RANDOM_NOTE)
        file, state = found
        return Network(module, file.id, load_picked(module, file, state, LAYOUT))

    @property
    def _card(self) -> OlmoEarthCard:
        return cast("OlmoEarthCard", self.request.card)

    @property
    def _knobs(self) -> OlmoEarthKnobs:
        return cast("OlmoEarthKnobs", self.request.knobs)

    def geometry(self) -> InputGeometry:
        """Accept square windows of whole patches.

        Raises:
            SpecError: A window would be larger than the authors recommend.
        """
        patch_px, side = self._knobs.patch_size, self._knobs.window_patches * self._knobs.patch_size
        if side > MOST_PX:
            raise SpecError(
                f"Expected windows of at most {MOST_PX} px, got {self._knobs.window_patches} patches of {patch_px} px.",
                fix=f"set window_patches={MOST_PX // patch_px}, or smaller patches",
            )
        return InputGeometry(side, patch_px, square=True, patch_px=patch_px)

    def check(self, output: OutputSpec) -> None:
        """Check inputs, dates and the extra.

        Raises:
            SpecError: Two modalities feed one input, or the dates of several modalities cannot be aligned.
            MissingDependency: The extra is not installed.
        """
        names = [modality.name for modality, _ in self.request.inputs]
        fed = [FEEDS[name] for name in names]
        if len(set(fed)) < len(fed):
            raise SpecError(f"Expected one Landsat modality, got {' + '.join(names)}.", fix="leave one of them out")
        if len(names) > 1 and self._knobs.temporal_sampling == "scenes":
            raise SpecError(
                f"Expected aligned dates of {' + '.join(names)}, got temporal_sampling='scenes'.",
                fix='set temporal_sampling="month"',
            )
        require(_HOME, EXTRA)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Scale the available modalities, and add dates and which tokens have data."""
        tensors: list[dict[str, Tensor]] = [{DATES: dates_of(self.request, chips)} for _ in frame.windows]
        for modality, sensor in self.request.inputs:
            if modality.name not in chips:
                continue
            pixels, there = self._channels(modality, sensor, chips[modality.name])
            cuts = zip(tensors, cut_windows(pixels, frame), cut_windows(_padded(there, frame), frame), strict=True)
            for window, cut, valid in cuts:
                window[FEEDS[modality.name]] = cut
                window[FEEDS[modality.name] + SEEN] = _any_in_patch(valid, self._knobs.patch_size)
        cover_m = self.request.scale_m * frame.zoom * frame.input_px[1]
        return [ModelInput(window, cover_m) for window in tensors]

    def _channels(self, modality: Modality, sensor: SensorSpec, chip: Chip) -> tuple[Tensor, Tensor]:
        """Return all channels of an input, scaled, and which band sets have data.

        A missing value is 0 after scaling; in version 1.0, it is that of the nearest band at the same pixel, if any.

        Returns:
            `[T, C, H, W]` in the order of the network, and `[T, S, H, W]` of 0 and 1.
        """
        names, frames = modality.sensor.bands, chip.values.shape[0]
        values: Pixels = np.full((frames, len(names), *chip.shape_px), np.nan, np.float32)
        own = {band.name: band for band in chip.bands}
        for band, pixels in zip(chip.bands, chip.values.swapaxes(0, 1), strict=True):
            values[:, names.index(band.name)] = pixels
        seen = np.isfinite(values)
        sets = BAND_SETS[self._card.version][FEEDS[modality.name]]
        there = np.stack([seen[:, [names.index(name) for name in one]].any(axis=1) for one in sets], axis=1)
        if self._card.version == "v1":
            values = with_nearest_bands(values, names, WAVELENGTHS_NM.get(FEEDS[modality.name], ()))
        bands = tuple(own.get(band.name, band) for band in bands_of(sensor.collection, names))
        whole = replace(sensor, bands=names)
        scaled = to_frames(replace(chip, values=values, bands=bands), modality, whole, self._scaling(modality))
        return scaled, torch.from_numpy(there.astype(np.float32))

    def _scaling(self, modality: Modality) -> Scaling:
        """Map two standard deviations below and above the mean to 0 and 1, without clipping."""
        stats = [modality.stats[name] for name in modality.sensor.bands]
        if self._knobs.normalize == "none":
            ones = np.ones(len(stats), np.float32)
            return Scaling(ones, 0 * ones, 0 * ones)
        low = np.array([one.mean - 2 * one.std for one in stats])
        span = np.array([4 * one.std for one in stats])
        scale, shift, fill = (one.astype(np.float32) for one in (1 / span, -low / span, low))
        return Scaling(scale, shift, fill)

    def encode(self, batch: ModelInput) -> Tokens:
        """Return the mean token of each patch over dates, sets and inputs; for a vector, also their number.

        The package masks missing tokens correctly only if all items of a batch have equally many, so an item with
        missing tokens runs alone.
        """
        seen = torch.cat([one.flatten(1) for name, one in batch.tensors.items() if name.endswith(SEEN)], dim=1)
        whole = seen.all(dim=1)
        first = next(one for name, one in batch.tensors.items() if name.endswith(SEEN))
        rows, cols = first.shape[-2:]
        sums = torch.zeros(len(seen), rows, cols, self.request.card.dim, device=seen.device)
        counts = torch.zeros(len(seen), rows, cols, 1, device=seen.device)
        runs: list[Tensor] = [whole.nonzero()[:, 0]] if bool(whole.any()) else []
        runs += [one[None] for one in (~whole & seen.any(dim=1)).nonzero()[:, 0]]
        for items in runs:
            tensors = {name: one[items] for name, one in batch.tensors.items()}
            gsd_m = batch.ground_cover_m / (cols * self._knobs.patch_size)
            sums[items], counts[items] = self._run(tensors, gsd_m, complete=bool(whole[items].all()))
        tokens = sums / counts.clamp(min=1)
        if self.readout.weighted:
            tokens = torch.cat([tokens, counts], dim=-1)
        return Tokens(tokens.flatten(1, 2), TokenLayout((TokenGrid("patch", rows, cols),)))

    def _run(self, tensors: Mapping[str, Tensor], gsd_m: float, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Run the encoder on items with equally many tokens.

        Returns:
            The sum of the tokens of each patch that have data, `[batch, row, col, D]`, and their number.
        """
        patch_px, given = self._knobs.patch_size, dict[str, Tensor]()
        names = [name.removesuffix(SEEN) for name in tensors if name.endswith(SEEN)]
        seen = {name: tensors[name + SEEN].permute(0, 3, 4, 1, 2) for name in names}  # [batch, row, col, T, S]
        for name in names:
            mask = (~seen[name]).long() * MISSING
            given[name] = tensors[name].permute(0, 3, 4, 1, 2).contiguous()  # [batch, H, W, T, C]
            given[f"{name}_mask"] = mask.repeat_interleave(patch_px, 1).repeat_interleave(patch_px, 2)
        sample = _module("utils.datatypes").MaskedOlmoEarthSample(timestamps=tensors[DATES], **given)
        found = self.network.module(sample, patch_size=patch_px, input_res=gsd_m, fast_pass=complete)
        tokens = found["tokens_and_masks"]
        sums = [(getattr(tokens, name).float() * seen[name][..., None]).sum(dim=(3, 4)) for name in names]
        counts = [seen[name].sum(dim=(3, 4))[..., None].float() for name in names]
        return torch.stack(sums).sum(dim=0), torch.stack(counts).sum(dim=0)

    @cached_property
    def readout(self) -> Readout:
        """The vector is the mean of all tokens that have data, not of patches."""
        return Readout(self.request.card.dim, weighted=self.request.output.kind == "pooled")

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize

    def facts(self) -> dict[str, JsonValue]:
        """Return the package's version and the encoding of dates."""
        return {PACKAGE: version(PACKAGE), "date_code": "day, month (January = 0) and year"}


def _module(name: str) -> Any:  # noqa: ANN401  (a package without types)
    return importlib.import_module(f"{_HOME}.olmoearth_pretrain_v1.{name}")


def make_module(card: OlmoEarthCard) -> nn.Module:
    """Build the package's encoder, with random values that depend only on the card; nothing is downloaded.

    Raises:
        MissingDependency: The package is not installed.
    """
    require(_HOME, EXTRA)
    with own_random_numbers(RANDOM_SEED):
        built = _module("olmoearth_pretrain_v1").OlmoEarthPretrain_v1(card.size, card.version)
    encoder: nn.Module = built.model.encoder
    return encoder.requires_grad_(False).eval()


def dates_of(request: ModelRequest, chips: Mapping[str, Chip]) -> Tensor:
    """Return day, month (January = 0) and year of each frame, `[T, 3]`: those of the first modality at hand.

    Raises:
        InputError: The modalities differ in their dates, or one has none.
    """
    months = months_of(request, chips).tolist()
    times = next(chips[modality.name].times for modality, _ in request.inputs if modality.name in chips)
    dates = [(time.day, month, time.year) for time, month in zip(times, months, strict=True) if time is not None]
    return torch.tensor(dates, device="cpu")


def with_nearest_bands(values: Pixels, names: Sequence[str], groups: Sequence[Mapping[str, float]]) -> Pixels:
    """Replace missing values by those of the band nearest in wavelength at the same pixel and date.

    Args:
        values: `[T, C, H, W]`; NaN is missing.
        names: Bands of the channels.
        groups: Wavelengths of the bands that may stand in for each other. The shorter wavelength wins a tie.
    """
    filled, missing = values.copy(), np.isnan(values)
    for group in groups:
        for band, wavelength in group.items():
            channel = names.index(band)
            others = sorted((abs(other - wavelength), other, name) for name, other in group.items() if name != band)
            for _, _, name in others:
                at: NDArray[np.bool_] = np.isnan(filled[:, channel]) & ~missing[:, names.index(name)]
                filled[:, channel][at] = values[:, names.index(name)][at]
    return filled


def _padded(there: Tensor, frame: Frame) -> Tensor:
    """Extend a mask `[..., H, W]` to the windows of a frame; the part outside the chip has no data."""
    height, width = there.shape[-2:]
    bottom = max(0, max(window.row + window.height for window in frame.windows) - height)
    right = max(0, max(window.col + window.width for window in frame.windows) - width)
    return nn.functional.pad(there, (0, right, 0, bottom))


def _any_in_patch(there: Tensor, patch_px: int) -> Tensor:
    """Return whether a patch has data, `[T, S, row, col]`, from a mask `[T, S, H, W]`."""
    found: Tensor = there.unflatten(-1, (-1, patch_px)).unflatten(-3, (-1, patch_px)).amax(dim=(-3, -1)) > 0
    return found
