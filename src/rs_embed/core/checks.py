"""Checks of single values, shared by the specs and by what takes bare numbers."""

import math
import numbers

from rs_embed.errors import SpecError


def short(value: object) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}... ({len(text):,} characters)"


_SHOWN_CHARS = 100


def require_number(name: str, value: object, low: float, high: float, fix: str | None = None) -> float:
    """A finite number within `[low, high]`, as a float.

    Args:
        fix: Of a number outside of the range, where there is more to say than the range.

    Raises:
        SpecError: It is a string, bool or None, not finite, or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise SpecError(
            f"Expected a number for {name}, got {short(value)} ({type(value).__name__}).",
            fix=f"pass {name} as a plain number",
        )
    number = _float(value)
    if not low <= number <= high:  # also true of NaN
        raise SpecError(
            f"Expected {name} between {low:g} and {high:g}, got {number:g}.",
            fix=fix or f"choose {name} in that range",
        )
    return number


def _float(value: numbers.Real) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _size(value: numbers.Real) -> float:
    return abs(_float(value))


def require_whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number within `[low, high]`.

    Raises:
        SpecError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise SpecError(
            f"Expected a whole number from {low} to {high} for {name}, got {short(value)}.",
            fix=f"for example {name}={low}",
        )
    return int(value)


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `SpecError` unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise SpecError(
            f"Expected {name} to be one of {', '.join(choices)}, got {short(value)}.",
            fix=f"use {name}={choices[0]!r} if in doubt",
        )


def require_crs(crs: object) -> None:
    """Raise `SpecError` for what is no name of a CRS; whether there is such a CRS shows when it is used."""
    if not isinstance(crs, str):
        fix = f'crs="EPSG:{crs}"' if isinstance(crs, int) else 'for example crs="EPSG:32633"'
        raise SpecError(f"Expected a CRS as text, got {short(crs)} ({type(crs).__name__}).", fix=fix)
    if not crs or "\0" in crs or crs.encode(errors="replace").decode() != crs:  # pyproj would stop reading at a NUL
        raise SpecError(f"Expected the name of a CRS, got {short(crs)}.", fix='for example crs="EPSG:32633"')


def require_lon_lat(lon: object, lat: object) -> tuple[float, float]:
    """Longitude and latitude in degrees; says so when they look swapped.

    Raises:
        SpecError: One is not a number, or out of range.
    """
    if isinstance(lat, numbers.Real) and isinstance(lon, numbers.Real) and 90 < _size(lat) <= 180 and _size(lon) <= 90:
        raise SpecError(
            f"Expected lat between -90 and 90, got {float(lat):g}.",
            fix=f"lon and lat look swapped: use lon={float(lat):g}, lat={float(lon):g}",
        )
    fix = 'lon and lat are degrees; for metres: BBox(..., crs="EPSG:32633")'
    return require_number("lon", lon, -180, 180, fix), require_number("lat", lat, -90, 90, fix)
