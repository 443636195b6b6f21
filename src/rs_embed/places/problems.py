"""What is wrong with which row of a table of places."""

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
"""Rows named in an error."""


class PlaceProblems:
    """What is wrong with which row; raised all at once, so that a table is mended in one go."""

    def __init__(self, count: int, ids: Sequence[str] | None) -> None:
        self._count, self._ids = count, ids
        self._bad = np.zeros(count, bool)
        self._said: list[tuple[int, str]] = []

    def add(self, rows: NDArray[np.bool_], says: Callable[[int], str]) -> None:
        """These rows are bad, as far as nothing was said of them before."""
        new = rows & ~self._bad
        self._said += [(row, says(row)) for row in np.flatnonzero(new)[:SHOWN].tolist()]
        self._bad |= new

    def refuse(self) -> None:
        """Raise `SpecError` if there is a bad row."""
        if not self._said:
            return
        lines = [f"row {row}{self._named(row)}: {text}" for row, text in sorted(self._said)[:SHOWN]]
        bad = int(self._bad.sum())
        if bad > len(lines):
            lines.append(f"... and {bad - len(lines)} more")
        raise SpecError(
            f"Expected {self._count} places, got {bad} invalid.",
            rows="\n".join(lines),
            fix="mend these rows or drop them (the first row is row 0)",
        )

    def _named(self, row: int) -> str:
        return "" if self._ids is None else f" (id {short(self._ids[row])})"


def numbers(column: "pd.Series") -> NDArray[np.float64]:
    """A column as numbers; NaN where there is none."""
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
    """A value as people know it, for a message."""
    value: object = column.iloc[row]
    return short(value.item() if isinstance(value, np.generic) else value)
