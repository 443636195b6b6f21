"""Checks of single values, shared by the specs and by what takes bare numbers."""

import numbers

from rs_embed.errors import SpecError

METRES = "degrees for lon and lat, metres for buffers and pixel sizes"


def require_number(name: str, value: object, low: float, high: float, meaning: str = METRES) -> float:
    """A finite number within `[low, high]`, as a float; `meaning` ends the error.

    Raises:
        SpecError: It is a string, bool or None, not finite, or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise SpecError(
            f"Wanted a number for {name}, found {value!r} ({type(value).__name__}).",
            fix=f"pass {name} as a number between {low:g} and {high:g}",
        )
    number = float(value)
    if not low <= number <= high:  # also true of NaN
        raise SpecError(
            f"Wanted {name} between {low:g} and {high:g}, found {number:g}.",
            fix=f"check {name}: {meaning}",
        )
    return number


def require_whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number within `[low, high]`.

    Raises:
        SpecError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise SpecError(
            f"Wanted a whole number from {low} to {high} for {name}, found {value!r}.", fix=f"for example {name}={low}"
        )
    return int(value)


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `SpecError` unless `value` is one of `choices`."""
    if value not in choices:
        raise SpecError(
            f"Wanted {name} to be one of {', '.join(choices)}, found {value!r}.",
            fix=f"use {name}={choices[0]!r} if in doubt",
        )


def require_lon_lat(lon: object, lat: object) -> tuple[float, float]:
    """Longitude and latitude in degrees; says so when they look swapped.

    Raises:
        SpecError: One is not a number, or out of range.
    """
    if (
        isinstance(lat, numbers.Real)
        and isinstance(lon, numbers.Real)
        and 90 < abs(float(lat)) <= 180
        and abs(float(lon)) <= 90
    ):
        raise SpecError(
            f"Wanted lat between -90 and 90, found {float(lat):g}.",
            fix=f"lon and lat look swapped: use lon={float(lat):g}, lat={float(lon):g}",
        )
    return require_number("lon", lon, -180, 180), require_number("lat", lat, -90, 90)
