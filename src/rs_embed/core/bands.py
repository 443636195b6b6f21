"""The shared vocabulary of sensors: which bands a collection has, in which unit, at which pixel size.

The collection ids are those of the Earth Engine catalogue, because that is what papers and users write; every
provider maps them to its own names through its lexicon. Source of pixel sizes: ESA's Sentinel user guides.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import short
from rs_embed.errors import SpecError, UnitMismatch


class Unit(StrEnum):
    """What a pixel value means."""

    DN = "dn"
    """Sentinel-2 digital number: reflectance x 10,000, 0-based (the baseline-04.00 offset removed)."""
    REFLECTANCE = "reflectance"
    """0 to about 1."""
    DB = "db"
    """Radar backscatter, 10 log10(power)."""
    POWER = "power"
    """Radar backscatter, linear."""
    KELVIN = "kelvin"
    """Brightness temperature."""
    METRE = "metre"
    """Height."""
    BYTE = "byte"
    """0 to 255, as aerial photographs are delivered: no physical quantity."""
    CLASS = "class"
    """Code of a class: neither averaged nor interpolated."""
    INDEX = "index"
    """A normalised difference such as NDVI, -1 to 1."""
    COMPONENT = "component"
    """One of the numbers of a vector of unit length, -1 to 1: neither averaged nor interpolated band by band."""


@dataclass(frozen=True, slots=True)
class Band:
    """One channel: its name in the collection and what its values mean."""

    name: str
    unit: Unit
    gsd_m: float
    """Native pixel size, metres."""


DN_PER_REFLECTANCE = 10_000.0
HIGHEST_BYTE = 255
_FACTORS: Mapping[tuple[Unit, Unit], float] = {
    (Unit.DN, Unit.REFLECTANCE): 1 / DN_PER_REFLECTANCE,
    (Unit.REFLECTANCE, Unit.DN): DN_PER_REFLECTANCE,
}


def convert(values: NDArray[np.float32], from_unit: Unit, to_unit: Unit) -> NDArray[np.float32]:
    """The same quantity in another unit.

    Args:
        values: Any shape; NaN stays NaN. Linear power of zero or less has no dB and becomes NaN.

    Raises:
        UnitMismatch: The two units do not measure the same quantity.
    """
    if from_unit == to_unit:
        return values
    if (from_unit, to_unit) in _FACTORS:
        return values * np.float32(_FACTORS[from_unit, to_unit])
    if (from_unit, to_unit) == (Unit.POWER, Unit.DB):
        positive = np.where(values > 0, values, np.float32(np.nan))
        return (10 * np.log10(positive)).astype(np.float32, copy=False)
    if (from_unit, to_unit) == (Unit.DB, Unit.POWER):
        return np.power(np.float32(10), values / 10).astype(np.float32, copy=False)
    raise UnitMismatch(
        f"Expected values in {to_unit}, got {from_unit}: one cannot be computed from the other.",
        fix=f"give imagery in {to_unit}, or declare the unit that the values really have",
    )


def is_picture(bands: Sequence[Band], wanted: Sequence[Band]) -> bool:
    """Whether these are bytes where reflectances are wanted: a picture, which models may take or refuse."""
    return {band.unit for band in bands} == {Unit.BYTE} and {band.unit for band in wanted} == {Unit.DN}


def _bands(unit: Unit, **gsd_by_name: float) -> dict[str, Band]:
    return {name: Band(name, unit, gsd_m) for name, gsd_m in gsd_by_name.items()}


_S2_L2A = {
    "B1": 60, "B2": 10, "B3": 10, "B4": 10, "B5": 20, "B6": 20, "B7": 20, "B8": 10,
    "B8A": 20, "B9": 60, "B11": 20, "B12": 20,
}  # fmt: skip
_S1 = {"VV": 10, "VH": 10, "HH": 10, "HV": 10}
_LANDSAT_TOA = {f"B{i}": 30 for i in (1, 2, 3, 4, 5, 6, 7, 9)} | {"B8": 15}
_OLCI = {f"Oa{i:02d}_reflectance": 300 for i in range(1, 22)}
_LANDSAT = {f"SR_B{i}": 30 for i in range(1, 8)}
_ALPHAEARTH = {f"A{i:02d}": 10 for i in range(64)}
_SLSTR_OPTICAL = {f"S{i}_reflectance_an": 500 for i in range(1, 7)}
_SLSTR_THERMAL = {f"S{i}_BT_in": 1000 for i in range(7, 10)}

COLLECTIONS: Mapping[str, Mapping[str, Band]] = MappingProxyType(
    {
        "COPERNICUS/S2_SR_HARMONIZED": _bands(Unit.DN, **_S2_L2A),
        "COPERNICUS/S2_HARMONIZED": _bands(Unit.DN, **_S2_L2A, B10=60),
        "COPERNICUS/S1_GRD": _bands(Unit.DB, **_S1),
        "COPERNICUS/S1_GRD_FLOAT": _bands(Unit.POWER, **_S1),
        "COPERNICUS/S1_RTC": _bands(Unit.DB, VV=10, VH=10),
        "COPERNICUS/DEM/GLO30": _bands(Unit.METRE, DEM=30),
        "LANDSAT/LC08/C02/T1_TOA": _bands(Unit.REFLECTANCE, **_LANDSAT_TOA) | _bands(Unit.KELVIN, B10=100, B11=100),
        "IGN/BD_ORTHO": _bands(Unit.BYTE, R=0.2, G=0.2, B=0.2, N=0.2, ELEVATION=0.2),
        "AIRBUS/SPOT67": _bands(Unit.BYTE, R=1.5, G=1.5, B=1.5),
        "COPERNICUS/S3/OLCI": _bands(Unit.REFLECTANCE, **_OLCI),
        "LANDSAT/LC08/C02/T1_L2": _bands(Unit.REFLECTANCE, **_LANDSAT) | _bands(Unit.KELVIN, ST_B10=100),
        "LANDSAT/LC09/C02/T1_L2": _bands(Unit.REFLECTANCE, **_LANDSAT) | _bands(Unit.KELVIN, ST_B10=100),
        "USDA/NAIP/DOQQ": _bands(Unit.BYTE, R=1, G=1, B=1, N=1),
        "ESA/WorldCover/v100": _bands(Unit.CLASS, Map=10),
        "ESA/WorldCover/v200": _bands(Unit.CLASS, Map=10),
        "TERRAMESH/LULC": _bands(Unit.CLASS, LULC=10),
        "TERRAMESH/NDVI": _bands(Unit.INDEX, NDVI=10),
        "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL": _bands(Unit.COMPONENT, **_ALPHAEARTH),
        "COPERNICUS/S3/SLSTR": _bands(Unit.REFLECTANCE, **_SLSTR_OPTICAL) | _bands(Unit.KELVIN, **_SLSTR_THERMAL),
    }
)
"""Collection id -> band name -> `Band`. Earth Engine has no `COPERNICUS/S3/SLSTR`, `COPERNICUS/S1_RTC`
(terrain-corrected gamma0), `IGN/BD_ORTHO` (French aerial photographs; ELEVATION as FLAIR stores it), `AIRBUS/SPOT67`
and `TERRAMESH/...` (land cover and NDVI as TerraMind takes and makes them); the names are ours."""

KEPT_WHOLE = (Unit.CLASS, Unit.COMPONENT)
"""Units of which a pixel is taken as it is or not at all."""

_UNHARMONISED = {
    "COPERNICUS/S2_SR": "COPERNICUS/S2_SR_HARMONIZED",
    "COPERNICUS/S2": "COPERNICUS/S2_HARMONIZED",
}
"""Superseded collections whose DN are 1000 too high from processing baseline 04.00 on (January 2022)."""

_CLOUD_MASKS = {
    "COPERNICUS/S2_SR_HARMONIZED": ("none", "scl", "cs+"),
    "COPERNICUS/S2_HARMONIZED": ("none", "cs+"),
}


def cloud_masks_of(collection: str) -> tuple[str, ...]:
    """The pixel masks that a collection can be asked with."""
    return _CLOUD_MASKS.get(collection, ("none",))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one most likely means, or `None`."""
    word = str(word)
    by_fold = {candidate.casefold(): candidate for candidate in known}
    folded = word.casefold()
    prefixes = sorted((known for known in by_fold if len(known) > 1 and folded.startswith(known)), key=len)
    close = difflib.get_close_matches(folded, by_fold, n=1, cutoff=0.75)
    close = close or prefixes[-1:] or difflib.get_close_matches(folded, by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def bands_of(collection: str, names: Iterable[str]) -> tuple[Band, ...]:
    """The bands of that name in a collection, in the order asked.

    Raises:
        SpecError: The collection, or a band in it, is not known.
    """
    if not isinstance(collection, str):
        raise SpecError(f"Expected the name of a collection, got {short(collection)}.", fix="see rs_embed.core.bands")
    if collection in _UNHARMONISED:
        raise SpecError(
            f"Expected harmonised DN, got {collection}: since January 2022 its values are 1000 higher.",
            fix=f"use {_UNHARMONISED[collection]!r}: the same scenes, with that offset removed",
        )
    if collection not in COLLECTIONS:
        raise SpecError(
            f"Expected a known collection, got {collection!r}.",
            known=", ".join(COLLECTIONS),
            fix=did_you_mean(collection, COLLECTIONS),
        )
    table = COLLECTIONS[collection]
    for name in names:
        if name not in table:
            raise SpecError(
                f"{collection} has no band {name!r}.",
                bands=", ".join(table),
                fix=did_you_mean(name, table),
            )
    return tuple(table[name] for name in names)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A fix line: the nearest known word, or where to look."""
    guess = nearest(word, known)
    return f"did you mean {guess!r}?" if guess else "use one of the names above"
