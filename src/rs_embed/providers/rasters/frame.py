"""Read the pixels of a scene on a target grid, in the units of the collection."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import DN_PER_REFLECTANCE, Band, Unit, bands_of, convert, unit_named, unit_of_tag
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import ScaleWarning, UnitMismatch, warn
from rs_embed.providers.common.nodata import mask_nodata
from rs_embed.providers.common.plausible import Pixels, refuse_implausible, warn_of_oddities
from rs_embed.providers.common.recognised import OPTICAL, recognise_unit
from rs_embed.providers.common.sentinel2 import doubt_dn, judge_offset
from rs_embed.providers.rasters.raster import NEAREST_FROM, Zero, pixels_brought, read_stored
from rs_embed.providers.rasters.scene import Layer, Scene

_BY_COLOUR = "{}: bands without names, taken as the red, green and blue that the file says they are."


@dataclass(frozen=True)
class RasterFrame:
    """One scene on the target grid, in the units of the collection."""

    values: Pixels
    """`[C, H, W]`, NaN for nodata and outside the scene."""
    units: tuple[Unit, ...]
    """One unit per band: that of the collection, or bytes for a picture."""
    offset_applied: float | None
    """As in `Source`."""
    notes: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """Whether any pixel has a value."""
        return bool(np.isfinite(self.values).any())


@dataclass(frozen=True)
class _Coding:
    """How a band stores its values: value = (stored + offset) x scale."""

    dtype: np.dtype[np.generic]
    scale: float
    offset: float
    offset_known: bool
    unit: Unit | None


def _coding(layer: Layer, index: int, wanted: Unit) -> _Coding:
    header, raster = layer.header, layer.raster
    scale, offset = header.scales[index - 1] or 1.0, header.offsets[index - 1]  # a scale of 0 means unset
    makes_reflectance = wanted in OPTICAL and math.isclose(scale * DN_PER_REFLECTANCE, 1, rel_tol=1e-6)
    unit = unit_named(raster.unit) if raster.unit is not None else unit_of_tag(header.units[index - 1])
    if makes_reflectance and unit in (None, Unit.DN):  # the stored values are DN, the scaled values are reflectance
        unit = Unit.REFLECTANCE
    if unit is None and wanted is Unit.DN and header.dtypes[index - 1] == "uint8":
        unit = Unit.BYTE
    return _Coding(
        dtype=np.dtype(header.dtypes[index - 1]),
        scale=scale,
        offset=offset / scale if raster.offset is None else raster.offset,
        offset_known=raster.offset is not None or scale != 1 or offset != 0,
        unit=unit,
    )


def read_frame(scene: Scene, sensor: SensorSpec, geobox: GeoBox) -> RasterFrame | None:
    """Read the bands of a scene on `geobox`; `None` if all of its files lie outside.

    Raises:
        ReadError: A file cannot be read.
        UnitMismatch: The unit cannot be recognised, or the values cannot be in the declared unit.
    """
    bands = bands_of(sensor.collection, sensor.bands)
    by_band = scene.find(sensor.collection)
    values = np.full((len(bands), *geobox.shape), np.nan, np.float32)
    codings = [_coding(*by_band[band.name], band.unit) for band in bands]
    sizes_m: dict[float, str] = {}
    for layer in scene.layers:
        here = [i for i, name in enumerate(sensor.bands) if by_band[name][0] is layer]
        if not here:
            continue
        zero: Zero = "value"
        if all(bands[i].unit is Unit.DN and codings[i].unit is not Unit.BYTE for i in here):
            zero = "nodata" if any(codings[i].offset for i in here) else "nodata_if_all"
        indexes = [by_band[sensor.bands[i]][1] for i in here]
        whole = any(bands[i].unit.kept_whole for i in here)
        stored = read_stored(layer.header, indexes, geobox, nodata=layer.raster.nodata, zero=zero, whole=whole)
        if stored is None:
            continue
        size_m, how = pixels_brought(layer.header.grid, geobox, whole=whole)
        sizes_m[size_m] = how
        for i, plane in zip(here, stored, strict=True):
            values[i] = (plane + np.float32(codings[i].offset)) * np.float32(codings[i].scale)
    if not sizes_m:
        return None
    where = scene.ids[0]
    frame = _in_units(values, codings, [band.unit for band in bands], where)
    named = [_BY_COLOUR.format(where)] if any(by_band[band.name][0].named_by_colour for band in bands) else []
    return replace(frame, notes=(*frame.notes, *named, *_brought(sizes_m, bands, sensor.scale_m, where)))


def _brought(sizes_m: Mapping[float, str], bands: Sequence[Band], scale_m: float, where: str) -> list[str]:
    """Return notes about resampled pixels, and warn if a file is coarser than its sensor."""
    finest_m = min(sizes_m)
    if finest_m >= NEAREST_FROM * max(scale_m, min(band.gsd_m for band in bands)):
        warn(f"{where}: its pixels are {finest_m:g} m, and stand for pixels of {scale_m:g} m.", ScaleWarning)
    return [f"{where}: pixels of {size_m:g} m {how} to {scale_m:g} m." for size_m, how in sizes_m.items() if how]


def _in_units(values: Pixels, codings: list[_Coding], wanted: list[Unit], where: str) -> RasterFrame:
    notes: list[str] = []
    units = list(wanted)
    for unit in dict.fromkeys(wanted):
        here = [i for i, other in enumerate(wanted) if other == unit]
        values[here], is_unit, found = _converted(values[here], [codings[i] for i in here], unit, where)
        notes += found
        for i in here:
            units[i] = is_unit
    offsets = {coding.offset if coding.offset_known else None for coding in codings}
    applied = offsets.pop() if len(offsets) == 1 and Unit.DN in units else None
    return RasterFrame(values, tuple(units), applied, tuple(notes))


def _converted(values: Pixels, codings: list[_Coding], wanted: Unit, where: str) -> tuple[Pixels, Unit, list[str]]:
    """Mask, check and convert bands of one expected unit; return them with unit and notes. A picture stays in bytes."""
    stated = {coding.unit for coding in codings}
    if len(stated) > 1:
        raise UnitMismatch(
            f"Expected bands in one unit, got {', '.join(sorted(str(unit) for unit in stated))} in {where}.",
            fix='declare it, for example LocalRasters(path, unit="dn")',
        )
    plain = all(coding.scale == 1 for coding in codings)
    dtype = np.result_type(*(coding.dtype for coding in codings)) if plain else np.dtype(np.float32)
    shifted = any(coding.offset for coding in codings)
    harmonised = all(coding.offset_known for coding in codings)
    picture = wanted is Unit.DN and stated == {Unit.BYTE}
    values, lost = mask_nodata(values, Unit.BYTE if picture else wanted, where, zero_is_nodata=not shifted)
    notes = list(lost)
    if wanted is Unit.COMPONENT and dtype == np.int8:
        values = _from_8_bits(values)
        notes.append(f"{where}: 8-bit vectors de-quantised.")
    unit = stated.pop()
    if unit is None:
        unit = recognise_unit(values, dtype, wanted, where)
        notes.append(f"{where}: unit not stated, taken as {unit}.")
    if shifted and plain and unit is not Unit.DN:
        raise UnitMismatch(
            f"Expected an offset only for DN, got {unit} in {where}.",
            fix="leave the offset out: it applies to stored DN",
        )
    refuse_implausible(values, unit, where, dtype)
    if picture:
        return values, unit, notes
    if unit is Unit.DN:
        notes += doubt_dn(values, where, stated=_says_dn(codings))
    if unit is Unit.DN and not harmonised:
        notes.append(f"{where}: offset of processing baseline 04.00 not stated, DN taken as 0-based.")
    converted = convert(values, unit, wanted)
    if wanted is Unit.DN:
        fix = "leave offset out" if shifted else "use 0-based DN: subtract nothing, or 1000 once"
        notes += judge_offset(converted, where, fix=fix)
    return converted, wanted, notes + list(warn_of_oddities(converted, wanted, where, harmonised=harmonised))


def _says_dn(codings: list[_Coding]) -> bool:
    """Whether the user or the file declares DN, by the unit or by an offset."""
    return all(coding.unit is Unit.DN or coding.offset_known for coding in codings)


def _from_8_bits(stored: Pixels) -> Pixels:
    """Convert AlphaEarth's 8-bit copies to components of unit vectors; -128 is nodata.

    Source of -128 and 8 bits: Google (developers.google.com/earth-engine/guides/aef_on_gcs_readme). The mapping was not
    checked against a pair of files; lengths near 1 confirm it chip by chip.
    """
    q = stored.astype(np.float64)  # in float32, most values would differ from those of the public store by rounding
    values = (np.sign(q) * np.square(q / 127.5)).astype(np.float32)
    return np.where(stored == -128, np.float32(np.nan), values)
