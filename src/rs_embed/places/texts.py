"""Tables as text: CSV and its relatives. Every row must have as many fields as the header: nothing is cut or filled."""

import csv
import gzip
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rs_embed.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

Found = Callable[[Collection[str]], Mapping[str, str]]
"""Returns role -> column for a table with these names."""
SEPARATORS = ",;\t|"
_EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""Texts that mean a missing number or date in a CSV; an id may well be "NA"."""
_SHOWN = 10
"""Largest number of lines that an error names."""
_HEADER_BYTES = 1 << 20
"""Longest header: a file with a longer first line is not text."""
_FIELD_CHARS = 2**31 - 1
"""The standard library's limit of 131,072 is less than a polygon may have."""
_LIMIT = threading.Lock()
"""That limit is global: it is raised while a file is read, then restored."""


def read_text_table(path: Path, found: Found) -> "pd.DataFrame":
    """Read a CSV: columns with a role as numbers or dates where possible, all others as text.

    Raises:
        SpecError: Rows are longer or shorter than the header, or two columns have the same name.
    """
    import pandas as pd

    with _limit_lifted(), _opened(path) as file:
        separator = _separator(file)
        names = _checked_names(path, file, separator)
    wanted = found(names)
    typed = [name for what, name in wanted.items() if what != "id"]
    with _opened(path) as file:
        frame: pd.DataFrame = pd.read_csv(
            file,
            sep=separator,
            header=0,
            names=names,
            dtype=dict.fromkeys((name for name in names if name not in typed), str),
            keep_default_na=False,
            na_values={name: list(_EMPTY) for name in typed},
            low_memory=False,
        )
    named = wanted.get("id")
    return frame.assign(**{name: _typed(frame[name]) for name in names if name not in typed and name != named})


def _typed(column: "pd.Series") -> "pd.Series":
    """Numbers where all are some that text would show alike: "007" and numbers of 20 digits stay text; "" is none."""
    import pandas as pd

    column = column.mask(column == "", None)
    filled = column.dropna()
    if filled.empty or filled.str.match(r"\s*[+-]?(?:0\d|\d{16}|[^\d.])").any():
        return column
    numbers = pd.to_numeric(filled, errors="coerce")
    return column if numbers.isna().any() else pd.to_numeric(column)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file


@contextmanager
def _limit_lifted() -> Iterator[None]:
    with _LIMIT:
        before = csv.field_size_limit(_FIELD_CHARS)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _separator(file: TextIO) -> str:
    """Return the separator that occurs most often in the first line."""
    line = file.readline(_HEADER_BYTES)
    file.seek(0)
    return max(SEPARATORS, key=line.count)


def _names(header: list[str]) -> list[str]:
    """Names of the columns; those without one get a number, as spreadsheets and pandas write such columns for rows."""
    refuse_doubles([name for name in header if name.strip()])
    return [name if name.strip() else f"{UNNAMED}{at}" for at, name in enumerate(header)]


UNNAMED = "Unnamed: "
"""Prefix that pandas gives to columns without a name."""


def refuse_doubles(names: Collection[str]) -> None:
    """Raise `SpecError` if two columns have the same name."""
    doubled = sorted({str(name) for name in names if list(names).count(name) > 1})
    if doubled:
        raise SpecError(
            f"Expected columns of different names, got {', '.join(map(repr, doubled))} more than once.",
            columns=", ".join(map(str, names)),
            fix="rename or drop one of them",
        )


def _checked_names(path: Path, file: TextIO, separator: str) -> list[str]:
    """The header, after a look at every row.

    Raises:
        SpecError: Rows have more or fewer fields than the header, with their lines; or columns have one name.
    """
    rows = csv.reader(file, delimiter=separator)
    names = _names(next(rows, []))
    width, count, longer = len(names), 0, False
    shown: list[str] = []
    for row in rows:
        if len(row) != width and row:
            count, longer = count + 1, longer or len(row) > width
            if count <= _SHOWN:
                shown.append(f"line {rows.line_num}: {len(row)} in {separator.join(row)[:60]!r}")
    if not count:
        return names
    if count > len(shown):
        shown.append(f"... and {count - len(shown)} more")
    numbers = "10,5 for 10.5" if separator == "," else f"{separator!r} within a text"
    ragged = "1 row" if count == 1 else f"{count:,} rows"
    raise SpecError(
        f"Expected {width} fields in every row of {str(path)!r}, as in its header, got more or fewer in {ragged}.",
        rows="\n".join(shown),
        header=separator.join(names),
        fix=f"mend these lines; is it {numbers}? then put quotes around, or separate the fields by another character"
        if longer
        else "fill these lines up: an empty field needs its separator, too",
    )
