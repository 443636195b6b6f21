"""The dates of an array's frames: moments, or days of the year, whose year comes from the window."""

import numbers
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import InputError
from rs_embed.providers.rasters.declared import parse_time

Given = str | date | datetime | int
"""A date or time, or a day of the year (1 January is 1)."""
Moment = datetime | int
LAST_DAY = 366
NO_YEAR = 2000
"""Stands for an unknown year; it has a 29 February."""
NO_YEAR_NOTE = f"Days of the year were given without a year: they stand in {NO_YEAR}."


def parse_day(value: Given) -> Moment:
    """Parse a moment in UTC, or a day of the year.

    Raises:
        InputError: The number is not a day of the year.
        SpecError: The value is neither.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        return parse_time(value)  # type: ignore[arg-type]  # anything else is refused there
    if not 1 <= value <= LAST_DAY:
        raise InputError(
            f"Expected a day of the year from 1 to {LAST_DAY}, got {value}.",
            fix="add 1: 1 January is 1, not 0 as in AnySat's own data" if value == 0 else "or pass an ISO date",
        )
    return int(value)


def moments_of(days: Sequence[Moment], window: TemporalSpec | None) -> tuple[datetime, ...]:
    """Turn days of the year into moments, in the year of the window that contains them, or else in `NO_YEAR`."""
    return tuple(day if isinstance(day, datetime) else _in_year(day, window) for day in days)


def lack_year(days: Sequence[Moment], window: TemporalSpec | None) -> bool:
    """Whether the year of any day is unknown."""
    return window is None and any(not isinstance(day, datetime) for day in days)


def _in_year(day: int, window: TemporalSpec | None) -> datetime:
    years = [NO_YEAR] if window is None else range(window.start.year, window.end.year + 1)
    found = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day - 1) for year in years]
    inside = [one for one in found if window is not None and window.start <= one.date() < window.end]
    return (inside or found)[0]
