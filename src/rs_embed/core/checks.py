"""Checks of single values."""

import math
import numbers

from rs_embed.errors import SpecError


def short(value: object) -> str:
    """Return the repr of a value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}... ({len(text):,} characters)"


_SHOWN_CHARS = 100


def require_number(name: str, value: object, low: float, high: float, fix: str | None = None) -> float:
    """Return a finite number within `[low, high]` as a float.

    Args:
        name: Name of the argument, for messages.
        value: What the user passed.
        low: Smallest allowed value.
        high: Largest allowed value.
        fix: A better fix than "in that range", for a number outside the range.

    Raises:
        SpecError: The value is not a number (a string, bool or None), not finite, or outside the range.
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
    """Return a whole number within `[low, high]`.

    Raises:
        SpecError: The value is something else.
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
            fix=f"if in doubt, use {name}={choices[0]!r}",
        )


def require_crs(crs: object) -> None:
    """Raise `SpecError` unless `crs` is text that could name a CRS. Whether it exists is checked when it is used."""
    if not isinstance(crs, str):
        fix = f'crs="EPSG:{crs}"' if isinstance(crs, int) else 'for example crs="EPSG:32633"'
        raise SpecError(f"Expected a CRS as text, got {short(crs)} ({type(crs).__name__}).", fix=fix)
    if not crs or "\0" in crs or crs.encode(errors="replace").decode() != crs:  # pyproj would stop reading at a NUL
        raise SpecError(f"Expected a CRS name, got {short(crs)}.", fix='for example crs="EPSG:32633"')


def require_lon_lat(lon: object, lat: object) -> tuple[float, float]:
    """Return longitude and latitude in degrees. The error says so if they look swapped.

    Raises:
        SpecError: One of them is not a number, or out of range.
    """
    if isinstance(lat, numbers.Real) and isinstance(lon, numbers.Real) and 90 < _size(lat) <= 180 and _size(lon) <= 90:
        raise SpecError(
            f"Expected lat between -90 and 90, got {float(lat):g}.",
            fix=f"lon and lat look swapped: use lon={float(lat):g}, lat={float(lon):g}",
        )
    fix = 'lon and lat are degrees; for metres, use BBox(..., crs="EPSG:32633")'
    return require_number("lon", lon, -180, 180, fix), require_number("lat", lat, -90, 90, fix)
