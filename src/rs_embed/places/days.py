"""The window of each row: from columns of dates or years, or from `temporal`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import short
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import SpecError
from rs_embed.places.columns import Days
from rs_embed.places.problems import PlaceProblems, cell, numbers

if TYPE_CHECKING:
    import pandas as pd

Temporal = TemporalSpec | Sequence[TemporalSpec | None] | None
"""One window for all, one per row, or none."""
_ONE_DAY = np.timedelta64(1, "D")
_NEVER = np.datetime64("NaT", "D")
_FIRST_YEAR, _LAST_YEAR = 1900, 2200
"""As in `TemporalSpec.year`."""


def read_windows(
    frame: "pd.DataFrame | None", found: Mapping[str, str], temporal: Temporal, problems: PlaceProblems, count: int
) -> tuple[Days, Days]:
    """Return the first day and the day after the last of every row; NaT for rows without a window.

    Raises:
        SpecError: Days are given twice, or only half.
    """
    ways = [way for way in (("start", "end"), ("date",), ("year",)) if set(way) & set(found)]
    named = [repr(found[what]) for way in ways for what in way if what in found]
    if len(ways) + (temporal is not None) > 1:
        said = ["the argument temporal"] * (temporal is not None) + named
        raise SpecError(
            f"Expected the days once, got {', '.join(said)}.",
            fix="leave out temporal, or switch columns off, as in year=False",
        )
    if frame is None or not ways:
        return _given(temporal, count)
    (way,) = ways
    missing = [what for what in way if what not in found]
    if missing:
        raise SpecError(
            f"Expected columns of start and end, got only {', '.join(named)}.",
            fix=f'{missing[0]}="<its column>", or switch the other off, as in {(set(way) - set(missing)).pop()}=False',
        )
    columns = [frame[found[what]] for what in way]
    if way == ("year",):
        return _years(columns[0], problems)
    if way == ("date",):
        first = _days(columns[0], problems, floor=True)
        return first, first + _ONE_DAY
    first, last = (_days(column, problems, floor=False) for column in columns)
    problems.add(~(first < last), lambda row: f"Expected start before end, got {first[row]} and {last[row]}")
    return first, last


def _given(temporal: Temporal, count: int) -> tuple[Days, Days]:
    if temporal is None or isinstance(temporal, TemporalSpec):
        edges = (None, None) if temporal is None else (temporal.start, temporal.end)
        first, last = (np.full(count, _NEVER if edge is None else np.datetime64(edge, "D")) for edge in edges)
        return first, last
    if isinstance(temporal, str | Mapping) or not isinstance(temporal, Iterable):
        raise SpecError(
            f"Expected a TemporalSpec or one per place, got {short(temporal)}.",
            fix='for example TemporalSpec.range("2022-06-01", "2022-09-01")',
        )
    windows = list(temporal.flat) if isinstance(temporal, np.ndarray) else list(temporal)
    if len(windows) != count:
        raise SpecError(
            f"Expected one window for all or one per place ({count}), got {len(windows)}.",
            fix="pass a single TemporalSpec, or a list as long as the places",
        )
    for row, window in enumerate(windows):
        if window is not None and not isinstance(window, TemporalSpec):
            raise SpecError(
                f"Expected a TemporalSpec in row {row}, got {short(window)}.",
                fix='TemporalSpec.range("2022-06-01", ...)',
            )
    firsts = [_NEVER if window is None else window.start for window in windows]
    lasts = [_NEVER if window is None else window.end for window in windows]
    return np.array(firsts, "datetime64[D]"), np.array(lasts, "datetime64[D]")


def _years(column: "pd.Series", problems: PlaceProblems) -> tuple[Days, Days]:
    years = numbers(column)
    good = (years >= _FIRST_YEAR) & (years <= _LAST_YEAR) & (years == np.round(years))
    problems.add(~good, lambda row: f"Expected a year, got {cell(column, row)}")
    first = np.where(good, years, _FIRST_YEAR).astype(np.int64) - 1970
    return first.astype("datetime64[Y]").astype("datetime64[D]"), (first + 1).astype("datetime64[Y]").astype(
        "datetime64[D]"
    )


def _days(column: "pd.Series", problems: PlaceProblems, *, floor: bool) -> Days:
    """Return days in UTC; a time of day is cut off, or refused if it would move the edge of a window."""
    import pandas as pd

    moments = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    problems.add(
        moments.isna().to_numpy(bool), lambda row: f'Expected a date such as "2022-06-01", got {cell(column, row)}'
    )
    whole = moments.dt.tz_localize(None).to_numpy()
    days: NDArray[np.datetime64] = whole.astype("datetime64[D]")
    if not floor:
        problems.add(
            (days != whole) & ~np.isnat(whole), lambda row: f"Expected a whole day (UTC), got {cell(column, row)}"
        )
    return days
