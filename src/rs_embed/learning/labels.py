"""Read labels: a table of places with a column of classes, of numbers, or of several labels per place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import require_choice, short
from rs_embed.errors import ChoiceWarning, SpecError, warn
from rs_embed.places import Column, Given, Places, Temporal, read_places
from rs_embed.places.naming import Columns
from rs_embed.places.reading import is_frame, opened_table

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["classes", "number", "multilabel"]
"""What a label is: one of several classes, a number, or any set of classes."""
Targets = NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_]
_SHOWN = 10
"""Largest number of rows that a message names."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Places with their labels. `read_labels` makes them."""

    places: Places
    """The places that have a label, with all columns of the table."""
    column: str
    """Name of the column; several are joined by ", "."""
    kind: Kind
    classes: tuple[str, ...]
    """Names of the classes, sorted; empty for numbers."""
    targets: Targets
    """int64 `[N]`, indices into `classes`; float64 `[N]`; or bool `[N, K]`, one column per class."""

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        if self.kind == "number":
            low, high = self.targets.min(), self.targets.max()
            return f"Labels({len(self):,} places, {self.column!r}: numbers from {low:g} to {high:g})"
        counts = ", ".join(f"{name} {count:,}" for name, count in self.support().items())
        several = "several classes a place" if self.kind == "multilabel" else "classes"
        return f"Labels({len(self):,} places, {self.column!r}: {several}: {counts})"

    def support(self) -> dict[str, int]:
        """Count the places of each class; empty for numbers."""
        if self.kind == "number":
            return {}
        if self.kind == "multilabel":
            counts = self.targets.sum(axis=0)
        else:
            counts = np.bincount(self.targets.astype(np.int64), minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Labels":
        """Select places, in this order; the classes stay the same."""
        at = np.asarray(indices, np.int64)
        return Labels(self.places.take(at), self.column, self.kind, self.classes, self.targets[at])


def read_labels(
    given: Given,
    label: str | Sequence[str],
    *,
    kind: Kind | None = None,
    temporal: Temporal = None,
    buffer_m: float | str | None = None,
    id: Column = None,  # noqa: A002  (named like the column)
    lon: Column = None,
    lat: Column = None,
    start: Column = None,
    end: Column = None,
    date: Column = None,
    year: Column = None,
    geometry: Column = None,
    crs: str | None = None,
) -> Labels:
    """Read a table of labelled places. Places without a label are left out, and a warning counts them.

    Args:
        given: A table, as for `read_places`: a DataFrame, a GeoDataFrame, features, a file, or places already read.
        label: The column of the labels. Several columns of 0 and 1 (or True and False) are the classes of a
            multi-label table.
        kind: "classes", "number" or "multilabel". By default, the column decides: text and booleans are classes,
            numbers with a fraction are numbers, and lists or text with ";" hold several labels. Whole numbers may be
            codes of classes or quantities, so they need `kind`.

    The other arguments are those of `read_places`.

    Raises:
        SpecError: The column is missing, it is not what `kind` says, all labels are the same, or places are invalid.
        MissingDependency: The file needs geopandas or pyarrow.
    """
    if kind is not None:
        require_choice("kind", kind, get_args(Kind))
    names = (label,) if isinstance(label, str) else tuple(label)
    roles = Columns(id, lon, lat, start, end, date, year, buffer_m if isinstance(buffer_m, str) else None, geometry)
    table = given if isinstance(given, Places) else _table(given, roles)
    columns = [_values(table, name) for name in names]
    options: dict[str, Column] = {name: column for name, column in vars(roles).items() if name != "buffer_m"}
    places = read_places(table, temporal=temporal, buffer_m=buffer_m, crs=crs, **options)  # type: ignore[arg-type]
    labelled = np.array([all(not _is_missing(one) for one in row) for row in zip(*columns, strict=True)], bool)
    if not labelled.any():
        raise SpecError(
            f"Expected labels in {_quoted(names)}, got none in {len(places):,} rows.", fix="check the column"
        )
    if not labelled.all():
        rows = np.flatnonzero(~labelled)
        shown = ", ".join(map(str, rows[:_SHOWN].tolist())) + (", ..." if len(rows) > _SHOWN else "")
        warn(f"{len(rows):,} of {len(places):,} rows have no label in {_quoted(names)}: {shown}.", ChoiceWarning)
    at = np.flatnonzero(labelled)
    cells = [[column[row] for row in at.tolist()] for column in columns]
    found, classes, targets = _read(names, cells, kind, places.rows[at])
    _refuse_one_value(names, classes, targets)
    return Labels(places.take(at), ", ".join(names), found, classes, targets)


def _table(given: object, columns: Columns) -> "pd.DataFrame":
    opened = opened_table(given, columns)
    if isinstance(opened, list) and opened and all(isinstance(one, Mapping) and "properties" in one for one in opened):
        import geopandas

        opened = geopandas.GeoDataFrame.from_features(opened, crs="EPSG:4326")
    if not is_frame(opened):
        raise SpecError(
            f"Expected a table with a column of labels, got {type(given).__name__}.",
            fix="pass a DataFrame, features with properties, or the path of a file",
        )
    return opened


def _values(table: "Places | pd.DataFrame", name: str) -> list[object]:
    known = table.kept if isinstance(table, Places) else table.columns
    if name not in known:
        raise SpecError(
            f"Expected a column {short(name)} of labels, got a table without one of that name.",
            columns=", ".join(map(str, known)) or None,
            fix="label=<one of them>",
        )
    if isinstance(table, Places):
        column = table.kept[name]
        return [column[row] for row in range(len(table))]
    values: list[object] = table[name].tolist()
    return values


def _is_missing(value: object) -> bool:
    if _is_list(value):
        return False
    return value is None or repr(value) in ("nan", "<NA>", "NaT") or (isinstance(value, str) and not value.strip())


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def _read(
    names: Sequence[str], columns: list[list[object]], kind: Kind | None, rows: NDArray[np.int64]
) -> tuple[Kind, tuple[str, ...], Targets]:
    """Return kind, classes and targets."""
    if len(names) > 1:
        if kind not in (None, "multilabel"):
            raise SpecError(f"Expected one column for kind={kind!r}, got {_quoted(names)}.", fix='kind="multilabel"')
        flags = [_flags(name, column, rows) for name, column in zip(names, columns, strict=True)]
        return "multilabel", tuple(names), np.stack(flags, axis=1)
    (name,), (values,) = names, columns
    kind = kind or _kind(name, values)
    if kind == "multilabel":
        return kind, *_sets(values)
    if kind == "number":
        return kind, (), _numbers(name, values, rows)
    texts = [_text(value) for value in values]
    classes = tuple(sorted(set(texts), key=_order))
    place = {text: at for at, text in enumerate(classes)}
    return kind, classes, np.array([place[text] for text in texts], np.int64)


def _kind(name: str, values: list[object]) -> Kind:
    if any(_is_list(value) or (isinstance(value, str) and ";" in value) for value in values):
        return "multilabel"
    if any(isinstance(value, str | bool | np.bool_) for value in values):
        return "classes"
    if all(float(value).is_integer() for value in values):  # type: ignore[arg-type]
        raise SpecError(
            f"Expected labels whose meaning is clear, got whole numbers in {name!r}.",
            found=", ".join(sorted({_text(value) for value in values}, key=_order)[:_SHOWN]),
            fix='kind="classes" for codes of classes, kind="number" for quantities',
        )
    return "number"


def _text(value: object) -> str:
    """Write a class: 3 and 3.0, which a missing value in the column makes of it, are the same."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value).strip()  # type: ignore[call-overload]


def _order(text: str) -> tuple[bool, float, str]:
    """Sort whole numbers as numbers, before texts."""
    is_code = text.lstrip("-").isdecimal()
    return not is_code, float(text) if is_code else 0.0, text


def _sets(values: list[object]) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    sets = []
    for value in values:
        parts = value.split(";") if isinstance(value, str) else value if _is_list(value) else [value]
        sets.append({_text(part) for part in parts} - {""})  # type: ignore[attr-defined]
    classes = tuple(sorted(set().union(*sets), key=_order))
    return classes, np.array([[name in one for name in classes] for one in sets], bool)


def _flags(name: str, values: list[object], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    numbers = _numbers(name, values, rows)
    wrong = ~np.isin(numbers, (0, 1))
    if wrong.any():
        raise _wrong(f"0 or 1 in the column {name!r}, one of several of labels", values, rows, np.flatnonzero(wrong))
    return numbers.astype(bool)


def _numbers(name: str, values: list[object], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    numbers = np.full(len(values), np.nan)
    for at, value in enumerate(values):
        try:
            numbers[at] = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise _wrong(f"numbers in the column {name!r} of labels", values, rows, wrong)
    return numbers


def _wrong(what: str, values: list[object], rows: NDArray[np.int64], at: NDArray[np.intp]) -> SpecError:
    told = [f"row {rows[one]}: {short(values[one])}" for one in at[:_SHOWN].tolist()]
    return SpecError(f"Expected {what}, got {len(at):,} other values.", rows="\n".join(told), fix="correct these rows")


def _refuse_one_value(names: Sequence[str], classes: tuple[str, ...], targets: Targets) -> None:
    """A label that is the same everywhere cannot be learnt; of several, one has to differ."""
    if (targets == targets[:1]).all():
        only = short(classes[int(targets[0])] if targets.ndim == 1 and classes else targets[0])
        raise SpecError(
            f"Expected at least two different labels in {_quoted(names)}, got {only} in all {len(targets):,} rows.",
            fix="add places with other labels",
        )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
