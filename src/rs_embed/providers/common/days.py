"""When the frames of an array were acquired: moments, or days of a year that the window tells, if anything does."""

import numbers
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import InputError
from rs_embed.providers.rasters.declared import parse_time

Given = str | date | datetime | int
"""A moment, or a day of the year: 1 January is 1."""
Moment = datetime | int
LAST_DAY = 366
NO_YEAR = 2000
"""Stands for a year that nobody said; it has a 29 February."""
NO_YEAR_NOTE = f"Days of the year were given without a year: they stand in {NO_YEAR}."


def parse_day(value: Given) -> Moment:
    """A moment in UTC, or a day of the year.

    Raises:
        InputError: A day that no year has.
        SpecError: Neither.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        return parse_time(value)  # type: ignore[arg-type]  # what is none is refused there
    if not 1 <= value <= LAST_DAY:
        raise InputError(
            f"Expected a day of the year from 1 to {LAST_DAY}, got {value}.",
            fix="1 January is 1: where it is 0, as in AnySat's own data, add 1" if value == 0 else "or an ISO date",
        )
    return int(value)


def moments_of(days: Sequence[Moment], window: TemporalSpec | None) -> tuple[datetime, ...]:
    """Moments, each day of the year in the year of the window that has it; else, or without a window, in `NO_YEAR`."""
    return tuple(day if isinstance(day, datetime) else _in_year(day, window) for day in days)


def lack_year(days: Sequence[Moment], window: TemporalSpec | None) -> bool:
    """Whether a year is not known for all of them."""
    return window is None and any(not isinstance(day, datetime) for day in days)


def _in_year(day: int, window: TemporalSpec | None) -> datetime:
    years = [NO_YEAR] if window is None else range(window.start.year, window.end.year + 1)
    found = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day - 1) for year in years]
    inside = [one for one in found if window is not None and window.start <= one.date() < window.end]
    return (inside or found)[0]
