"""The user's own arrays (`input_chw`) as a provider."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import xxhash
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import Unit, bands_of, convert, did_you_mean, unit_named
from rs_embed.core.chip import Chip, Source
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import BandMismatch, InputError, NoValidPixels, SensorNotOffered
from rs_embed.providers.base import Query
from rs_embed.providers.common.composite import composite, refuse_cloud_mask
from rs_embed.providers.common.days import NO_YEAR_NOTE, Given, Moment, lack_year, moments_of, parse_day
from rs_embed.providers.common.nodata import mask_nodata
from rs_embed.providers.common.plausible import Pixels, refuse_implausible, warn_of_oddities
from rs_embed.providers.common.sentinel2 import doubt_dn, judge_offset
from rs_embed.providers.common.series import mean_time

Dates = Sequence[Given] | Mapping[str, Sequence[Given]]
"""When each frame was acquired."""
Units = Unit | str | Mapping[str, Unit | str]
"""The unit of all arrays, or modality -> unit."""
_AXES = "values are [C, H, W], or [T, C, H, W] for several dates"


@runtime_checkable
class SupportsArray(Protocol):
    """Anything that numpy can view as an array: ndarray, torch CPU tensor, xarray.DataArray, ..."""

    def __array__(self) -> NDArray[np.generic]: ...


class ArrayProvider:
    """A provider that serves arrays, in the units of `rs_embed.core.bands.COLLECTIONS`.

    Safe to call from several threads. The arrays are not copied: do not change them until the call has returned.
    """

    name = "array"

    def __init__(
        self,
        arrays: Mapping[str, SupportsArray],
        geobox: GeoBox | None = None,
        dates: Dates | None = None,
        unit: Units | None = None,
    ) -> None:
        """Wrap one array per modality.

        Args:
            arrays: Modality -> `[C, H, W]` or `[T, C, H, W]` of any real number type, bands in the order of the model's
                sensor; NaN is nodata. Several dates are composited as the sensor says.
            geobox: The grid of the pixels of the coarsest modality, if they have a place.
            dates: When each frame was acquired, `[T]`: one list for all modalities, or modality -> list. Numbers are
                days of the year (1 January is 1), in the year of the requested window.
            unit: Unit of the values, for all arrays or modality -> unit, if it is not that of the collection. Values
                are converted. "byte" is a picture from 0 to 255; arrays of uint8 are taken as such. A unit that you
                pass is not doubted.

        Raises:
            InputError: An array is empty, not numeric or not of 3 or 4 axes, or has not one date per frame.
            SpecError: A unit, date or modality is invalid.
        """
        if not isinstance(arrays, Mapping) or not arrays:
            raise InputError(
                f"Expected arrays by modality, got {type(arrays).__name__}.",
                fix='pass for example {"s2": array}',
            )
        self._arrays = {modality: _Array(modality, array) for modality, array in arrays.items()}
        self._times = _times(self._arrays, dates)
        self._units = _units(self._arrays, unit)
        self._geobox = geobox

    def identity(self) -> str:
        """Return a hash of every array and of the grid."""
        parts = [
            f"{name}={array.digest} {self._times.get(name)}" + (f" {self._units[name]}" if name in self._units else "")
            for name, array in sorted(self._arrays.items())
        ]
        return "array:" + hashlib.sha256(f"{parts} {self._geobox}".encode()).hexdigest()

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; also checks the number of bands.

        Raises:
            BandMismatch: The array has another number of bands than the sensor.
            SpecError: The sensor has a cloud mask, which arrays do not support.
        """
        refuse_cloud_mask(sensor)
        _require_bands(self._find(modality).shape, modality, sensor)

    def native_geobox(self, query: Query) -> GeoBox | None:
        """Return the grid that was passed with the arrays."""
        return self._geobox

    def fetch(self, query: Query) -> Chip:
        """Return the array of the modality, checked, on the grid of the query (or the one passed with the arrays).

        Raises:
            SensorNotOffered: There is no array for the modality.
            BandMismatch: The array has another number of bands than the sensor.
            UnitMismatch: The values cannot be in the unit of the collection.
            NoValidPixels: Every pixel is nodata.
            InputError: Height and width differ from those of the grid.
        """
        refuse_cloud_mask(query.sensor)
        array = self._find(query.modality)
        bands = bands_of(query.sensor.collection, query.sensor.bands)
        where = f"array for {query.modality}"
        _require_bands(array.shape, query.modality, query.sensor)
        geobox = query.geobox if query.geobox is not None else self._geobox
        _require_grid(array.shape, geobox, where)
        times, date_notes = self._times_of(query, where)
        declared = self._units.get(query.modality)
        units = tuple(band.unit for band in bands)
        checked = [_checked(stored, units, declared, where) for stored in array.frames()]
        if units[0] is Unit.DN and _is_picture(declared, array.dtype):
            bands = tuple(replace(band, unit=Unit.BYTE) for band in bands)
        seen = [i for i, (values, _) in enumerate(checked) if _has_pixels(values)]
        if not seen:
            raise NoValidPixels(
                f"Expected at least one valid pixel, got only nodata in the {where}.",
                found=f"{array.dtype} {array.shape}",
                fix="check the array: NaN, infinities, fill values and 0 in every Sentinel-2 band count as nodata",
            )
        frames = [checked[i][0] for i in seen]
        notes = [*date_notes, *(note for _, found in checked for note in found)]
        if len(seen) < len(checked):
            notes.append(f"{len(checked) - len(seen)} of {len(checked)} frames have no valid pixel and are left out.")
        notes += ["The array has no date: the window was not checked."] if query.window and not times else []
        acquired = tuple(times[i] for i in seen) if times else ()
        source = Source(self.name, query.sensor.collection, scene_times=acquired, notes=tuple(dict.fromkeys(notes)))
        if query.series is None:
            values = composite(frames, query.sensor.composite)
            return Chip(values[None], bands, geobox, (mean_time(acquired),), source)
        source = replace(source, scenes_per_frame=(1,) * len(seen))
        return Chip(np.stack(frames), bands, geobox, acquired, source)

    def _times_of(self, query: Query, where: str) -> tuple[tuple[datetime, ...], list[str]]:
        """Return when each frame was acquired (empty if unknown), and notes."""
        window, days = query.window, self._times.get(query.modality, ())
        no_year = lack_year(days, window)
        times = () if no_year and query.series is None else moments_of(days, window)
        if query.series is not None and not times:
            raise InputError(
                f"Expected the date of each frame of the {where}, got none.", fix='pass dates=["2022-06-01", ...]'
            )
        outside = [time for time in times if window and not window.start <= time.date() < window.end]
        if outside:
            raise InputError(
                f"Expected frames within {window}, got one of {outside[0]:%Y-%m-%d} in the {where}.",
                fix="leave `temporal` out, or leave those frames out",
            )
        return times, [NO_YEAR_NOTE] if no_year and times else []

    def _find(self, modality: str) -> "_Array":
        if modality not in self._arrays:
            raise SensorNotOffered(
                f"Expected an array for {modality}, got none.",
                given=", ".join(self._arrays),
                fix=did_you_mean(modality, self._arrays),
            )
        return self._arrays[modality]


def _times(arrays: Mapping[str, "_Array"], dates: Dates | None) -> dict[str, tuple[Moment, ...]]:
    if dates is None:
        return {}
    by_modality = dates if isinstance(dates, Mapping) else dict.fromkeys(arrays, dates)
    times = {name: tuple(parse_day(day) for day in days) for name, days in by_modality.items()}
    for name, moments in times.items():
        if name not in arrays:
            raise InputError(
                f"Expected dates for {', '.join(arrays)}, got some for {name!r}.", fix="use the names of the arrays"
            )
        frames = len(arrays[name].frames())
        if len(moments) != frames:
            raise InputError(
                f"Expected a date for each of the {frames} frames of {name}, got {len(moments)}.",
                fix=f"pass one date per frame, in the order of T; {_AXES}",
            )
    return times


def _units(arrays: Mapping[str, "_Array"], unit: Units | None) -> dict[str, Unit]:
    if unit is None:
        return {}
    by_modality = unit if isinstance(unit, Mapping) else dict.fromkeys(arrays, unit)
    for name in by_modality:
        if name not in arrays:
            raise InputError(
                f"Expected units for {', '.join(arrays)}, got one for {name!r}.", fix="use the names of the arrays"
            )
    return {name: unit_named(one) for name, one in by_modality.items()}


def _is_picture(declared: Unit | None, dtype: np.dtype[np.generic]) -> bool:
    """Whether values that should be DN are 8-bit."""
    return declared is Unit.BYTE or (declared is None and dtype == np.uint8)


class _Array:
    """One array, checked to be real numbers with 3 or 4 axes, not empty."""

    def __init__(self, modality: str, given: SupportsArray) -> None:
        where = f"array for {modality}"
        self._array = _as_array(given, where)
        self.dtype, self.shape = self._array.dtype, self._array.shape
        if self.dtype.kind not in "iuf":
            raise InputError(
                f"Expected real numbers in the {where}, got {self.dtype}.",
                fix="pass intensities as integers or floats (for complex radar data, calibrated backscatter)",
            )
        if len(self.shape) not in (3, 4):
            hint = {2: "for a single band, pass array[None]", 5: "pass one place per request, not a batch"}
            fix = f"{_AXES}; {hint[len(self.shape)]}" if len(self.shape) in hint else _AXES
            raise InputError(f"Expected 3 or 4 axes in the {where}, got shape {self.shape}.", fix=fix)
        if 0 in self.shape:
            raise InputError(f"Expected pixels in the {where}, got the empty shape {self.shape}.", fix=_AXES)

    @cached_property
    def digest(self) -> str:
        """A hash of type, shape and bytes: XXH3, 128 bits, as fast as memory (sha256 takes 3 ms for a 4 km chip)."""
        pixels = np.ascontiguousarray(self._array).reshape(-1).view(np.uint8)
        return f"{self.dtype.str} {self.shape} {xxhash.xxh3_128_hexdigest(pixels.data)}"

    def frames(self) -> NDArray[np.generic]:
        """Return `[T, C, H, W]`, as passed."""
        return self._array if self._array.ndim == 4 else self._array[None]


def _as_array(given: SupportsArray, where: str) -> NDArray[np.generic]:
    if isinstance(given, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(given), np.nan, np.ma.getdata(given))
    if not isinstance(given, SupportsArray) or isinstance(given, type):
        raise InputError(f"Expected an {where}, got {type(given).__name__}.", fix="pass np.asarray(values)")
    try:
        return np.asarray(given)
    except (TypeError, RuntimeError) as error:  # torch tensors on another device, of type bfloat16, or with a gradient
        raise InputError(
            f"Expected an {where} that numpy can read, got {type(given).__name__}: {error}",
            fix="for a torch tensor, pass tensor.detach().float().cpu()",
        ) from error


def _require_bands(shape: tuple[int, ...], modality: str, sensor: SensorSpec) -> None:
    wanted = sensor.bands
    if shape[-3] == len(wanted):
        return
    fix = f"pass the bands in this order: {', '.join(wanted)}"
    if shape[-1] == len(wanted):
        target = 0 if len(shape) == 3 else 1
        fix = f"it looks like HWC: pass np.moveaxis(x, -1, {target})"
    raise BandMismatch(
        f"Expected {len(wanted)} bands of {sensor.collection} for {modality}, got {shape[-3]}.",
        wanted=", ".join(wanted),
        found=f"shape {shape}; {_AXES}",
        fix=fix,
    )


def _require_grid(shape: tuple[int, ...], geobox: GeoBox | None, where: str) -> None:
    if geobox is None or tuple(geobox.shape) == shape[-2:]:
        return
    raise InputError(
        f"Expected {geobox.shape[0]} x {geobox.shape[1]} pixels, got {shape[-2]} x {shape[-1]} in the {where}.",
        wanted=f"{geobox.crs} at {geobox.resolution.x:g} m",
        fix="pass pixels on exactly that grid (rs_embed.core.geo.geobox_for), or leave the place out",
    )


def _checked(
    stored: NDArray[np.generic], units: tuple[Unit, ...], declared: Unit | None, where: str
) -> tuple[Pixels, list[str]]:
    """Return one frame as float32 with NaN for nodata, and notes. Bands of one unit are checked together."""
    with np.errstate(over="ignore"):  # values too large for float32 become infinite, which is nodata
        values = stored.astype(np.float32)
    if all(unit == units[0] for unit in units):
        return _in_unit(values, units[0], declared, stored.dtype, where)
    notes: list[str] = []
    for unit in dict.fromkeys(units):
        index = np.flatnonzero([other == unit for other in units])
        values[index], found = _in_unit(values[index], unit, declared, stored.dtype, where)
        notes += found
    return values, notes


def _has_pixels(values: Pixels) -> bool:
    """Return whether any value is finite; the first row answers for most frames."""
    return bool(np.isfinite(values[:, :1]).any() or np.isfinite(values).any())


def _in_unit(
    values: Pixels, wanted: Unit, declared: Unit | None, stored: np.dtype[np.generic], where: str
) -> tuple[Pixels, list[str]]:
    """Mask, check and convert bands of one expected unit; return them with notes. A picture stays in bytes."""
    picture = wanted is Unit.DN and _is_picture(declared, stored)
    unit = Unit.BYTE if picture else declared or wanted
    values, lost = mask_nodata(values, unit, where)
    refuse_implausible(values, unit, where, stored)
    notes = [*lost, *(doubt_dn(values, where, stated=declared is not None) if unit is Unit.DN else ())]
    if not picture:
        values = convert(values, unit, wanted)
        if wanted is Unit.DN:
            notes += judge_offset(values, where, fix="subtract 1000 once, and only from values that contain it")
    return values, notes + list(warn_of_oddities(values, Unit.BYTE if picture else wanted, where))
