"""Convert a chip to a standardised image: check bands and units, fill nodata, clip and standardise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rs_embed.core.bands import HIGHEST_BYTE, bands_of, convert, is_picture
from rs_embed.core.chip import Chip
from rs_embed.core.geo import pixel_size_m
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality
from rs_embed.embedders.runtime.device import placed
from rs_embed.errors import BandMismatch, InputError, PixelWarning, UnitMismatch, warn

MANY_CLIPPED = 0.05
"""Share of clipped values of an input above which a warning is issued."""
_COUNTED_SIDE_PX = 64
"""Least number of rows and columns on which clipped values are counted; the share is then accurate to one percent."""
_clipped: ContextVar[dict[str, Tensor | float] | None] = ContextVar("_clipped", default=None)
"""Modality -> share of its values clipped so far; `None` if clipping is not counted."""


@dataclass(frozen=True)
class Scaling:
    """The affine map of one modality from the collection's unit to network values, band by band."""

    scale: NDArray[np.float32]
    """`[C]`: network value = pixel * scale + shift."""
    shift: NDArray[np.float32]
    """`[C]`."""
    fill: NDArray[np.float32]
    """`[C]`: the value that replaces nodata, in the collection's unit."""
    low: float | None = None
    high: float | None = None
    """Network values are clamped to this range; `None` leaves a side open."""
    derived: tuple[tuple[float, float], ...] = ()
    """Mean and standard deviation of each derived band, in its own unit."""

    @property
    def is_limited(self) -> bool:
        """Whether network values are clamped."""
        return self.low is not None or self.high is not None


def z_score(modality: Modality, sensor: SensorSpec, clamp_sigma: float | None) -> Scaling:
    """Return the scaling that standardises with the card's statistics.

    Args:
        modality: The modality of the card.
        sensor: The imagery, whose bands and fill value apply.
        clamp_sigma: Clamp values to this many standard deviations; `None` for no limit.
    """
    stats = [modality.stats[name] for name in sensor.bands]
    factor = _to_model_unit(sensor, stats)
    mean = np.array([stat.mean for stat in stats], np.float32)
    std = np.array([stat.std for stat in stats], np.float32)
    low, high = (None, None) if clamp_sigma is None else (-clamp_sigma, clamp_sigma)
    derived = tuple((modality.stats[band.name].mean, modality.stats[band.name].std) for band in modality.derived)
    return Scaling(factor / std, -mean / std, _fill(sensor, mean / factor), low, high, derived)


def unit_scale(modality: Modality, sensor: SensorSpec) -> Scaling:
    """Return the scaling to the card's unit, clipped to 0..1, without statistics."""
    stats = [modality.stats[name] for name in sensor.bands]
    factor = _to_model_unit(sensor, stats)
    mean = np.array([stat.mean for stat in stats], np.float32)
    return Scaling(factor, np.zeros_like(mean), _fill(sensor, mean / factor), 0.0, 1.0, _as_they_are(modality))


def unscaled(modality: Modality, sensor: SensorSpec) -> Scaling:
    """Return the scaling that leaves the collection's values as they are."""
    stats = [modality.stats[name] for name in sensor.bands]
    mean = np.array([stat.mean for stat in stats], np.float32) / _to_model_unit(sensor, stats)
    return Scaling(np.ones_like(mean), np.zeros_like(mean), _fill(sensor, mean), derived=_as_they_are(modality))


def _as_they_are(modality: Modality) -> tuple[tuple[float, float], ...]:
    return ((0.0, 1.0),) * len(modality.derived)


def _to_model_unit(sensor: SensorSpec, stats: Sequence[BandStats]) -> NDArray[np.float32]:
    """Return factors `[C]` from the collection's unit to the unit of the statistics."""
    one = np.ones(1, np.float32)
    bands = bands_of(sensor.collection, sensor.bands)
    units = [(band.unit, stat.unit) for band, stat in zip(bands, stats, strict=True)]
    factors = {pair: convert(one, *pair)[0] for pair in units}
    return np.array([factors[pair] for pair in units], np.float32)


def _fill(sensor: SensorSpec, mean: NDArray[np.float32]) -> NDArray[np.float32]:
    return mean if sensor.fill_value == "mean" else np.full_like(mean, float(sensor.fill_value))


def to_image(chip: Chip, modality: Modality, sensor: SensorSpec, scaling: Scaling) -> Tensor:
    """Convert a chip of one frame to network values, `[C, H, W]`; see `to_frames`.

    Raises:
        InputError: The chip is a series.
    """
    if chip.values.shape[0] != 1:
        raise InputError(
            f"Expected one frame, got {chip.values.shape[0]}.",
            chip=chip.describe(),
            fix="composite the frames first, or request fewer days",
        )
    return to_frames(chip, modality, sensor, scaling)[0]


def to_frames(chip: Chip, modality: Modality, sensor: SensorSpec, scaling: Scaling) -> Tensor:
    """Convert a chip to network values on the current device.

    Args:
        chip: The pixels; bands in the order of `sensor.bands`.
        modality: The modality of the card.
        sensor: The imagery that was requested.
        scaling: The map to network values.

    Returns:
        `[T, C, H, W]` float32, without NaN unless the sensor keeps it. Derived bands are the last channels.

    Raises:
        BandMismatch: The bands of the chip differ from those of the request.
        UnitMismatch: The chip is not in the unit of its collection.
    """
    in_bytes = _check(chip, modality, sensor)
    pixels = placed(chip.values)
    if in_bytes is not None:
        low, high = in_bytes
        pixels = pixels * ((high - low) / HIGHEST_BYTE) + low
    holes = chip.valid_fraction < 1
    clip = modality.clip if in_bytes is None else None
    _count_clipped(pixels, scaling, clip, modality.name, holes=holes)
    pixels = standardised(pixels, scaling, clip, holes=holes)
    return torch.cat([pixels, _derived(chip, modality, sensor, scaling)], dim=1) if modality.derived else pixels


def standardised(
    pixels: Tensor, scaling: Scaling, clip: tuple[float | None, float | None] | None = None, *, holes: bool = True
) -> Tensor:
    """Fill nodata, clip, multiply, shift and clamp, on the device of the pixels.

    On a CPU the steps run band by band, so that a band stays in the cache from step to step.

    Args:
        pixels: `[T, C, H, W]`, in the collection's unit; left as they are.
        scaling: The map to network values.
        clip: Limits before the map, in the collection's unit; `None` for no limits.
        holes: Whether there may be NaN.
    """
    if pixels.device.type != "cpu" or not pixels.is_contiguous():
        fill, scale, shift = _columns(scaling)
        values = torch.where(torch.isnan(pixels), fill, pixels) if holes else pixels
        values = values if clip is None else values.clamp(*clip)
        values = values.mul(scale).add_(shift)
        return values.clamp_(scaling.low, scaling.high) if scaling.is_limited else values
    out = torch.empty_like(pixels)
    numbers = (one.tolist() for one in (scaling.fill, scaling.scale, scaling.shift))
    for band, values, fill, scale, shift in zip(pixels.unbind(1), out.unbind(1), *numbers, strict=True):
        source = band
        if holes:
            source = torch.nan_to_num(source, fill, math.inf, -math.inf, out=values)
        if clip is not None:
            source = torch.clamp(source, *clip, out=values)
        torch.mul(source, scale, out=values).add_(shift)
        if scaling.is_limited:
            values.clamp_(scaling.low, scaling.high)
    return out


def _derived(chip: Chip, modality: Modality, sensor: SensorSpec, scaling: Scaling) -> Tensor:
    """Compute the derived bands, standardised, `[T, C, H, W]`; nodata is replaced by their mean."""
    pixels = {band.name: chip.values[:, index] for index, band in enumerate(chip.bands)}
    pixel_m = sensor.scale_m if chip.geobox is None else pixel_size_m(chip.geobox)
    channels = []
    for band, (mean, std) in zip(modality.derived, scaling.derived, strict=True):
        values = placed(band.compute({name: pixels[name] for name in band.of}, pixel_m))
        values = (values - mean) / std
        channels.append(values.where(values.isfinite(), 0))
    return torch.stack(channels, dim=1)


@contextmanager
def counting_clipped() -> Iterator[dict[str, float]]:
    """Count, by modality, the share of values that `limited` clips in this thread.

    Yields:
        Modality -> share of its values, filled in on exit. Modalities without a limit are missing.
    """
    shares: dict[str, float] = {}
    counted: dict[str, Tensor | float] = {}
    token = _clipped.set(counted)
    try:
        yield shares
    finally:
        _clipped.reset(token)
    shares |= {name: round(float(share), 4) for name, share in counted.items()}


def warn_of_clipped(shares: Mapping[str, float]) -> None:
    """Warn if many values were clipped."""
    for name, share in shares.items():
        if share > MANY_CLIPPED:
            # One text for all chips, so that it is shown once: the metadata records each share.
            warn(
                f"More than {MANY_CLIPPED:.0%} of the values of {name} lie outside the model's training range and "
                "are clipped (see clipped_fraction of the input).",
                PixelWarning,
            )


def limited(pixels: Tensor, low: float | None, high: float | Tensor | None, name: str) -> Tensor:
    """Clamp the pixels of a modality to a range, and record the share outside it (see `counting_clipped`).

    Args:
        pixels: `[C, H, W]` or `[T, C, H, W]`.
        low: Lower limit; `None` for no limit.
        high: Upper limit for all bands, or one per band, `[C, 1, 1]`; `None` for no limit.
        name: Name of the modality.
    """
    if low is None and high is None:
        return pixels
    _count_beyond(pixels, low, high, name)
    if isinstance(high, Tensor):
        return pixels.minimum(high)
    return pixels.clamp(low, high)


def _count_clipped(
    pixels: Tensor, scaling: Scaling, clip: tuple[float | None, float | None] | None, name: str, *, holes: bool
) -> None:
    """Count what `standardised` will clip and clamp, on the pixels that `_share_beyond` looks at."""
    if _clipped.get() is None or not (clip or scaling.is_limited):
        return
    seen = _seen(pixels)
    if holes:
        fill, _, _ = _columns(scaling)
        seen = torch.where(torch.isnan(seen), fill, seen)
    if clip is not None:
        _count_beyond(seen, *clip, name)
    if scaling.is_limited:
        open_ended = replace(scaling, low=None, high=None)
        _count_beyond(standardised(seen, open_ended, clip, holes=False), scaling.low, scaling.high, name)


def _count_beyond(pixels: Tensor, low: float | None, high: float | Tensor | None, name: str) -> None:
    counted = _clipped.get()
    if counted is not None:
        counted[name] = counted.get(name, 0.0) + _share_beyond(pixels, low, high)


def _share_beyond(pixels: Tensor, low: float | None, high: float | Tensor | None) -> Tensor | float:
    """Return the share of pixels outside a range, without waiting for a GPU."""
    seen = _seen(pixels)
    if pixels.device.type == "cpu" and not isinstance(high, Tensor):  # numpy is several times as fast here
        values = np.ascontiguousarray(seen.numpy())
        under = 0 if low is None else np.count_nonzero(values < low)
        return float(under + (0 if high is None else np.count_nonzero(values > high))) / values.size
    beyond = [] if low is None else [seen < low]
    beyond += [] if high is None else [seen > high]
    return (beyond[0] | beyond[-1]).count_nonzero() / seen.numel()


def _seen(pixels: Tensor) -> Tensor:
    """Return every n-th row and column of a larger image, to count at little cost."""
    step = max(1, min(pixels.shape[-2:]) // _COUNTED_SIDE_PX)
    return pixels[..., ::step, ::step]


def _columns(scaling: Scaling) -> Tensor:
    """Return fill, scale and shift, `[3, C, 1, 1]`, in one copy to the current device."""
    return placed(np.stack([scaling.fill, scaling.scale, scaling.shift]))[:, :, None, None]


def _check(chip: Chip, modality: Modality, sensor: SensorSpec) -> tuple[float, float] | None:
    """Check bands and units; return the values of bytes 0 and 255 if the chip is an 8-bit picture."""
    if chip.band_names != sensor.bands:
        raise BandMismatch(
            f"Expected bands {', '.join(sensor.bands)}, got {', '.join(chip.band_names)}.",
            chip=chip.describe(),
            fix="leave `sensor` out to fetch the card's own imagery, or use chip.select(...)",
        )
    wanted_bands = bands_of(sensor.collection, sensor.bands)
    if is_picture(chip.bands, wanted_bands):
        if modality.byte_range is not None:
            return modality.byte_range
        raise UnitMismatch(
            f"Expected {modality.name} in dn, got bytes from 0 to 255, which are a picture for display.",
            chip=chip.describe(),
            fix="pass the reflectances from which the picture was made",
        )
    for band, wanted in zip(chip.bands, wanted_bands, strict=True):
        if band.unit != wanted.unit:
            raise UnitMismatch(
                f"Expected {band.name} in {wanted.unit}, got {band.unit}.",
                chip=chip.describe(),
                fix="convert the values with rs_embed.core.bands.convert",
            )
    return None
