"""Galileo: dated images, maps, series and static facts of one place, in patches encoded alone or in windows."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.hashing import sha256_of
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality, Pixels
from rs_embed.embedders.cards.galileo import AS_THEY_ARE, FEEDS, MOST_PATCHES, GalileoKnobs
from rs_embed.embedders.prepare.dates_and_places import months_of, on_the_sphere
from rs_embed.embedders.prepare.derived import NDVI
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, centre_of, cut_windows, frame_chip, stitch
from rs_embed.embedders.prepare.normalize import Scaling, to_frames, to_image, unscaled
from rs_embed.embedders.runtime.device import placed
from rs_embed.embedders.statistics import statistics_of
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.galileo.encoder import GalileoEncoder
from rs_embed.encoders.galileo.groups import GROUPS, SPACE, SPACE_TIME, STATIC, TIME
from rs_embed.encoders.layers import at_once, counted_layers
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import BandMismatch, InputError, SpecError

MONTHS, VISIBLE = " months", " visible"
"""Name of the tensor of months; suffix of tensor names for masks."""
WINDOWS_TOKENS = 65_536
"""Number of tokens to embed at once: 34 MB at nano size, 200 MB at base size."""
LAYOUT = Layout(
    complete=lambda state: {name.replace(".backbone.", "."): tensor for name, tensor in state.items()},
)
"""Removes `backbone` from tensor names, as the authors' loader does."""


@final
class GalileoEmbedder(Embedder):
    """Galileo: encodes many kinds of data of one place, patch by patch."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder with the embeddings of every group."""
        arch = request.card.arch

        def make() -> GalileoEncoder:
            return GalileoEncoder(dim=arch["dim"], depth=arch["depth"], heads=arch["heads"])

        return build_network(make, request, settings, LAYOUT)

    @property
    def _knobs(self) -> GalileoKnobs:
        return cast("GalileoKnobs", self.request.knobs)

    @property
    def _side(self) -> int:
        """Side of a window, patches: 1 for a grid by default, so that positions in a window do not show."""
        alone = self.request.output.kind == "grid"
        return self._knobs.window_patches or (1 if alone else MOST_PATCHES)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    def _squares(self, shape: tuple[int, int], patch: int) -> Frame:
        """Return the windows of a chip.

        Args:
            shape: Shape of the chip, in pixels or patches.
            patch: Side of a patch in the same unit.
        """
        side = min(self._side, shape[0] // patch, shape[1] // patch) * patch
        return frame_chip(shape, "tile", InputGeometry(side, lattice_px=patch, square=True, patch_px=patch))

    def windows(self, frame: Frame) -> Frame:
        """Return the windows in which patches attend to each other, pixels."""
        return self._squares(frame.extent_px, self._knobs.patch_size)

    def geometry(self) -> InputGeometry:
        """Accept inputs of whole patches, in any shape; "crop" keeps the largest window."""
        patch_px = self._knobs.patch_size
        side = max(self._side, MOST_PATCHES)
        return InputGeometry(side * patch_px, patch_px, square=False, patch_px=patch_px, native_only=True)

    def check(self, output: OutputSpec) -> None:
        """Check channel groups, layers and statistics.

        Raises:
            BandMismatch: A group has some of its channels but not all.
            SpecError: Two modalities feed one group, none lies on a grid, or a layer does not exist.
            KnobError: A modality has no statistics.
        """
        self._layers  # noqa: B018
        fed: dict[str, str] = {}
        for modality, sensor in self.request.inputs:
            self._scaling(modality, sensor)
            for group in self._groups_of(modality, sensor):
                if group in fed:
                    raise SpecError(
                        f"Expected one modality for {group}, got {fed[group]} and {modality.name}.",
                        fix="leave one of them out",
                    )
                fed[group] = modality.name
        if not any(group in SPACE_TIME or group in SPACE for group in fed):
            raise SpecError(
                f"Expected an image or a map for Galileo, got {'+'.join(fed.values())} alone, which defines no grid.",
                fix=f"set modality={'+'.join(('s2', *fed.values()))!r}",
            )

    def _groups_of(self, modality: Modality, sensor: SensorSpec) -> dict[str, list[int]]:
        """Return the groups that a modality feeds -> positions of their channels.

        Raises:
            BandMismatch: The modality has some channels of a group but not all.
        """
        names = [modality.stats[name].model_name for name in (*sensor.bands, *(one.name for one in modality.derived))]
        found = {}
        for group in FEEDS[modality.name]:
            missing = [channel for channel in GROUPS[group] if channel not in names]
            if len(missing) == len(GROUPS[group]):
                continue
            if missing:
                raise BandMismatch(
                    f"Expected all channels of {group}, which share a token, got none of {', '.join(missing)}.",
                    found=", ".join(names),
                    fix="add them, or leave the whole group out",
                )
            found[group] = [names.index(channel) for channel in GROUPS[group]]
        return found

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Normalise the available modalities; add masks and the month of each date (January = 0)."""
        tensors: dict[str, Tensor] = {}
        for modality, sensor in self.request.inputs:
            if modality.name in chips:
                tensors |= self._tensors_of(modality, sensor, chips[modality.name], frame)
        if self.request.places:
            tensors["location"] = _location(next(iter(chips.values())), frame)
            tensors["location" + VISIBLE] = torch.tensor(True)
        tensors[MONTHS] = months_of(self.request, chips)
        return [ModelInput(tensors)]

    def _tensors_of(self, modality: Modality, sensor: SensorSpec, chip: Chip, frame: Frame) -> dict[str, Tensor]:
        """Return, for each group, its channels and the mask of its tokens."""
        scaling = self._scaling(modality, sensor)
        groups = self._groups_of(modality, sensor)
        tensors: dict[str, Tensor] = {}
        if any(group in TIME or group in STATIC for group in groups):
            mean = replace(chip, values=_mean_pixel(chip.values), geobox=None)
            values = to_frames(mean, modality, sensor, scaling)[:, :, 0, 0]
            seen = torch.from_numpy(np.isfinite(mean.values).all(axis=(1, 2, 3)))
        else:
            filled = replace(scaling, fill=_fill(chip, scaling.fill)) if sensor.fill_value == "mean" else scaling
            make = to_frames if modality.is_series else to_image
            (values,) = cut_windows(make(chip, modality, sensor, filled), frame)
            values = values if modality.is_series else values[None]
            values[:, len(sensor.bands) :] += 0 if self._knobs.normalize == "none" else 0.5  # see `_scaling`
            seen = self._seen(chip, frame)
        for group, channels in groups.items():
            dated = modality.is_series
            tensors[group] = values[:, channels] if dated else values[0, channels]
            tensors[group + VISIBLE] = seen if dated else seen[0]
        if self._knobs.ndvi and {"B4", "B8"} <= set(sensor.bands):
            (tensors["NDVI"],) = cut_windows(_ndvi(chip), frame)
            tensors["NDVI" + VISIBLE] = seen
        return tensors

    def _seen(self, chip: Chip, frame: Frame) -> Tensor:
        """Return whether a patch has a valid pixel, `[time, row, col]`."""
        (height, width), (row, col), patch_px = frame.extent_px, frame.origin_px, self._knobs.patch_size
        valid: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(chip.values), axis=1)
        valid = valid[:, row : row + height, col : col + width]
        there = torch.zeros(len(valid), height, width, dtype=torch.bool)
        there[:, : valid.shape[1], : valid.shape[2]] = torch.from_numpy(valid)
        seen: Tensor = there.unflatten(2, (-1, patch_px)).unflatten(1, (-1, patch_px)).any(4).any(2)
        return seen

    def encode(self, batch: ModelInput) -> Tokens:
        """Return the mean visible token of each patch; for a vector, also their number, as the last channel."""
        encoder = cast("GalileoEncoder", self.network.module)
        groups = {name: values for name, values in batch.tensors.items() if name in GROUPS}
        visible = {name: batch.tensors[name + VISIBLE] for name in groups}
        rows, cols = next(visible[name] for name in groups if name in SPACE_TIME or name in SPACE).shape[-2:]
        frame = self._squares((rows, cols), 1)
        patch_px, months = self._knobs.patch_size, batch.tensors[MONTHS]
        cut = {name: _cut(values, name, frame, patch_px) for name, values in groups.items()}
        seen = {name: _cut(values, name, frame, 1) for name, values in visible.items()}
        dates = months[:, None].expand(-1, len(frame.windows), -1).flatten(0, 1)
        tokens_each = sum(one[0].numel() for one in seen.values())
        parts = []
        step = max(1, at_once(WINDOWS_TOKENS, dates) // tokens_each)
        for start in range(0, len(dates), step):
            there = slice(start, start + step)
            found = encoder(
                {name: values[there] for name, values in cut.items()},
                dates[there],
                patch_px=patch_px,
                pixel_m=self.request.scale_m,
                visible={name: values[there] for name, values in seen.items()},
                layers=self._layers,
            )
            if self.readout.weighted:
                sums, counts = found.shares()
                parts.append(torch.cat([sums, counts[..., None]], dim=-1))
            else:
                parts.append(found.per_patch())
        whole = _joined(torch.cat(parts).unflatten(0, (len(months), -1)), frame, (rows, cols))
        if self.readout.weighted:
            whole = torch.cat([whole[..., :-1] / whole[..., -1:].clamp(min=1e-6), whole[..., -1:]], dim=-1)
        return Tokens(whole, TokenLayout((TokenGrid("patch", rows, cols),)))

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        """Map the mean to 0.5, and two standard deviations below and above it to 0 and 1, without clipping.

        Derived bands come out 0.5 too low, so that 0, which replaces nodata, is their mean.
        """
        if self._knobs.normalize == "none":
            return unscaled(modality, sensor)
        stats = modality.stats
        if self._knobs.normalize != "pretraining":
            stats = statistics_of(modality, self._knobs.normalize, {})
        bands = [stats[name] for name in sensor.bands]
        divide = [AS_THEY_ARE.get(one.unit) for one in bands]
        low = np.array([0 if by else one.mean - 2 * one.std for one, by in zip(bands, divide, strict=True)])
        span = np.array([by or 4 * one.std for one, by in zip(bands, divide, strict=True)])
        mean = sensor.fill_value == "mean"
        fill = np.array([one.mean if mean else float(sensor.fill_value) for one in bands])
        derived = tuple((stats[one.name].mean, 4 * stats[one.name].std) for one in modality.derived)
        scale, shift, filled = (one.astype(np.float32) for one in (1 / span, -low / span, fill))
        return Scaling(scale, shift, filled, derived=derived)

    @property
    def normalization(self) -> str:
        """The knob `normalize`; for a file, its name and hash."""
        name = self._knobs.normalize
        return name if name in ("pretraining", "none") else f"{Path(name).name}#sha256:{sha256_of(Path(name))}"

    @cached_property
    def readout(self) -> Readout:
        """The vector is the mean of all visible tokens, not of patches. Patches encoded alone have no position."""
        parts, weighted = len(self._layers), self.request.output.kind == "pooled"
        return Readout(self.request.card.dim * parts, parts=parts, weighted=weighted, placed=self._side > 1)

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """Return the knobs, with the side of windows in force and a file of statistics identified by its content."""
        return {**super().knobs_in_force(), "window_patches": self._side, "normalize": self.normalization}

    def facts(self) -> dict[str, JsonValue]:
        """Return the encoding of dates, the layers, and the optical imagery of the training."""
        facts: dict[str, JsonValue] = {"date_code": "number of the date, and its month", "layers": list(self._layers)}
        if any(modality.name == "s2" for modality, _ in self.request.inputs):
            facts["imagery"] = "Sentinel-2 L2A; trained with L1C (modality s2_l1c)"
        return facts


def _cut(values: Tensor, group: str, frame: Frame, patch_px: int) -> Tensor:
    """Return what each window sees of a group, `[batch x window, ...]`; groups without patches are repeated."""
    side = frame.windows[0].height
    if group not in SPACE_TIME and group not in SPACE:
        return values[:, None].expand(-1, len(frame.windows), *values.shape[1:]).flatten(0, 1)
    if side == 1:
        # [..., row, y, col, x]
        patches: Tensor = values.unflatten(-1, (-1, patch_px)).unflatten(-3, (-1, patch_px))
        return patches.movedim((-4, -2), (1, 2)).flatten(0, 2)
    starts = [(patch_px * window.row, patch_px * window.col) for window in frame.windows]
    size = side * patch_px
    return torch.stack([values[..., row : row + size, col : col + size] for row, col in starts], dim=1).flatten(0, 1)


def _joined(tokens: Tensor, frame: Frame, shape: tuple[int, int]) -> Tensor:
    """Stitch windows `[batch, window, row, col, dim]` into one lattice, `[batch, token, dim]`."""
    side = tokens.shape[2]
    if side == 1:
        return tokens.flatten(1, 3)
    layout = TokenLayout((TokenGrid("patch", side, side),))
    return torch.cat([stitch(one.flatten(1, 2), layout, frame).values for one in tokens])


def _mean_pixel(values: Pixels) -> Pixels:
    """Return the mean of each band over its valid pixels, `[T, C, 1, 1]`; NaN if there are none."""
    seen = np.isfinite(values)
    sums, counts = np.where(seen, values, 0).sum(axis=(2, 3)), seen.sum(axis=(2, 3))
    mean: Pixels = np.divide(sums, counts, out=np.full(sums.shape, np.nan, np.float32), where=counts > 0)
    return mean[:, :, None, None]


def _fill(chip: Chip, otherwise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the value that replaces nodata in each band.

    It is the band's mean over the chip and all dates, as in training, or `otherwise` for a band without valid pixels.
    """
    seen = np.isfinite(chip.values)
    counts = seen.sum(axis=(0, 2, 3))
    sums = np.where(seen, chip.values, 0).sum(axis=(0, 2, 3), dtype=np.float64)
    fill: NDArray[np.float32] = np.where(counts > 0, sums / counts.clip(1), otherwise).astype(np.float32)
    return fill


def _ndvi(chip: Chip) -> Tensor:
    """Return the NDVI, `[T, 1, H, W]`, with nodata filled by the mean."""
    bands = {band.name: chip.values[:, i] for i, band in enumerate(chip.bands)}
    values = NDVI.compute({name: bands[name] for name in NDVI.of}, math.nan)
    seen = np.isfinite(values)
    return placed(np.where(seen, values, values[seen].mean() if seen.any() else np.float32(0)))[:, None]


def _location(chip: Chip, frame: Frame) -> Tensor:
    """Return the centre of the chip on the unit sphere."""
    if chip.geobox is None:
        raise InputError("Expected a place for location, got pixels without one.", fix="pass spatial=PointBuffer(...)")
    return torch.from_numpy(on_the_sphere(*centre_of(chip.geobox, frame.windows[0])))
