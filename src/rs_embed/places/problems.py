"""Collect what is wrong with the rows of a table of places."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import short
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""Largest number of rows that an error names."""


class PlaceProblems:
    """The problems of rows, raised together, so that a table can be corrected in one go."""

    def __init__(self, count: int, ids: Sequence[str] | None) -> None:
        self._count, self._ids = count, ids
        self._bad = np.zeros(count, bool)
        self._said: list[tuple[int, str]] = []

    def add(self, rows: NDArray[np.bool_], says: Callable[[int], str]) -> None:
        """Mark rows as invalid, unless they already have a problem."""
        new = rows & ~self._bad
        self._said += [(row, says(row)) for row in np.flatnonzero(new)[:SHOWN].tolist()]
        self._bad |= new

    def refuse(self) -> None:
        """Raise `SpecError` if a row is invalid."""
        if not self._said:
            return
        lines = [f"row {row}{self._named(row)}: {text}" for row, text in sorted(self._said)[:SHOWN]]
        bad = int(self._bad.sum())
        if bad > len(lines):
            lines.append(f"... and {bad - len(lines)} more")
        raise SpecError(
            f"Expected {self._count} places, got {bad} invalid.",
            rows="\n".join(lines),
            fix="correct or drop these rows (the first row is row 0)",
        )

    def _named(self, row: int) -> str:
        return "" if self._ids is None else f" (id {short(self._ids[row])})"


def numbers(column: "pd.Series") -> NDArray[np.float64]:
    """Return a column as numbers; NaN for cells without one."""
    import pandas as pd

    try:
        read = pd.to_numeric(column, errors="coerce")
        found: NDArray[np.float64] = read.to_numpy(np.float64, na_value=np.nan, copy=True)
    except (OverflowError, TypeError, ValueError):  # whole numbers of hundreds of digits, lists, dicts
        found = np.array([_number(value) for value in column.to_numpy(object)], np.float64)
    found[~np.isfinite(found)] = np.nan
    return found


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float | str | np.number) else math.nan
    except (OverflowError, ValueError):
        return math.nan


def cell(column: "pd.Series", row: int) -> str:
    """Format a value for a message."""
    value: object = column.iloc[row]
    return short(value.item() if isinstance(value, np.generic) else value)
