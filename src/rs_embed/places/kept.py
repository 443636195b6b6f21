"""The other columns of the user's table, kept with their types for results and files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import SpecError
from rs_embed.places.strings import Strings

if TYPE_CHECKING:
    import pandas as pd

Cell = str | int | float | bool | date | None
Kind = Literal["string", "int64", "float64", "bool", "date32", "timestamp[us]", "timestamp[us, UTC]"]
"""Types as Arrow calls them."""
OURS = frozenset(
    {
        *("id", "row", "geometry", "bbox", "center_lon", "center_lat", "embedding", "scale", "href"),
        *("start_datetime", "end_datetime", "datetime", "model_id", "weights_id", "source_ids", "proj_code"),
        *("transform", "valid_fraction", "cloud_fraction", "status", "stage", "error", "fingerprint", "meta"),
        *("spatial", "temporal", "weights"),
    }
)
"""Names of the result's own columns, in memory and in files: user columns with such a name are not kept."""
_STORED: Mapping[str, str] = {
    "int64": "int64",
    "float64": "float64",
    "bool": "bool",
    "date32": "datetime64[D]",
    "timestamp[us]": "datetime64[us]",
    "timestamp[us, UTC]": "datetime64[us]",
}
"""Kind -> numpy type, for all kinds but text."""


_PANDAS: Mapping[str, str] = {
    "string": "string",
    "int64": "Int64",
    "float64": "float64",
    "bool": "boolean",
    "timestamp[us]": "datetime64[us]",
    "timestamp[us, UTC]": "datetime64[us, UTC]",
}


@dataclass(frozen=True, eq=False)
class Kept:
    """One column."""

    kind: Kind
    values: "NDArray[np.generic] | Strings"
    missing: NDArray[np.bool_]
    """Rows without a value; `values` has no meaning there."""

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, index: int) -> Cell:
        if self.missing[index]:
            return None
        if isinstance(self.values, Strings):
            return self.values[index]
        value: str | int | float | bool | date = self.values[index].item()
        return value.replace(tzinfo=UTC) if self.kind == "timestamp[us, UTC]" and isinstance(value, datetime) else value

    def take(self, indices: NDArray[np.int64]) -> "Kept":
        """Select rows, in this order."""
        values = self.values.take(indices) if isinstance(self.values, Strings) else self.values[indices]
        return Kept(self.kind, values, self.missing[indices])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays from which `of_arrays` makes the same column."""
        if isinstance(self.values, Strings):
            return {"": self.values.data, "_offsets": self.values.offsets, "_missing": self.missing}
        numbers = self.values.astype(np.int64) if self.values.dtype.kind == "M" else self.values
        return {"": numbers, "_missing": self.missing}


class KeptRow(Mapping[str, Cell]):
    """The kept columns of one row: name -> value, looked up on access."""

    def __init__(self, columns: Mapping[str, Kept] | None = None, index: int = 0) -> None:
        self.columns: Mapping[str, Kept] = columns or {}
        self._index = index

    def __getitem__(self, name: str) -> Cell:
        return self.columns[name][self._index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return repr(dict(self))


def frame_of(rows: Sequence[KeptRow]) -> "pd.DataFrame":
    """Return the kept columns of some rows as a table, numbered from 0."""
    import pandas as pd

    kinds = {name: column.kind for row in rows for name, column in row.columns.items()}
    columns = {
        name: pd.Series([row.get(name) for row in rows], dtype=_PANDAS.get(kind, object))
        for name, kind in kinds.items()
    }
    return pd.DataFrame(columns, index=range(len(rows)))


def of_arrays(kind: Kind, arrays: Mapping[str, NDArray[np.generic]]) -> Kept:
    """Make a column from the arrays that `Kept.arrays` returned."""
    missing = arrays["_missing"].astype(bool)
    if kind == "string":
        return Kept(kind, Strings(arrays[""].astype(np.uint8), arrays["_offsets"].astype(np.int64)), missing)
    return Kept(kind, arrays[""].astype(_STORED[kind]), missing)


def keep_column(name: str, column: "pd.Series") -> Kept | None:
    """Keep a column of a table; `None` if it is not text, numbers, booleans or times, but lists or geometries, say.

    Raises:
        SpecError: It has text that is not Unicode.
    """
    missing = column.isna().to_numpy(bool)
    kind = _kind(column, missing)
    if kind is None:
        return None
    if kind == "string":
        values = column.to_numpy(object)
        texts = ["" if gone else str(value) for value, gone in zip(values.tolist(), missing.tolist(), strict=True)]
        require_unicode(f"column {name!r}", texts)
        return Kept(kind, Strings.of(texts), missing)
    if kind.startswith("timestamp"):
        import pandas as pd

        moments = pd.to_datetime(column, utc=kind.endswith("UTC]"))
        moments = moments.dt.tz_convert(None) if kind.endswith("UTC]") else moments
        return Kept(kind, moments.to_numpy().astype("datetime64[us]"), missing)
    values = column.to_numpy(object, copy=True)
    values[missing] = date(1970, 1, 1) if kind == "date32" else 0
    return Kept(kind, values.astype(_STORED[kind]), missing)


def _kind(column: "pd.Series", missing: NDArray[np.bool_]) -> Kind | None:
    import pandas as pd

    types = pd.api.types
    dtype = column.dtype.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    if types.is_bool_dtype(dtype):
        return "bool"
    if types.is_integer_dtype(dtype):
        return "int64" if _fit(column[~missing].tolist()) else "string"
    if types.is_float_dtype(dtype):
        return "float64"
    if types.is_datetime64_any_dtype(dtype):
        return "timestamp[us]" if dtype.kind == "M" and not isinstance(dtype, pd.DatetimeTZDtype) else _UTC
    if not (types.is_object_dtype(dtype) or types.is_string_dtype(dtype)):
        return "string" if dtype.kind == "m" else None
    return _kind_of_objects({type(value) for value in column[~missing].tolist()}, column[~missing].tolist())


_UTC: Kind = "timestamp[us, UTC]"


def _kind_of_objects(types: set[type], values: list[object]) -> Kind | None:
    if any(issubclass(one, list | tuple | dict | set | np.ndarray | bytes) for one in types) or any(
        "__geo_interface__" in dir(one) for one in types
    ):
        return None
    if types and all(issubclass(one, bool | np.bool_) for one in types):
        return "bool"
    if types and all(issubclass(one, int | np.integer) and one is not bool for one in types):
        return "int64" if _fit(values) else "string"
    if types and all(issubclass(one, float | int | np.number) and one is not bool for one in types):
        return "float64" if _fit([value for value in values if isinstance(value, int)]) else "string"
    if types == {date}:
        return "date32"
    return "string"


def _fit(values: list[object]) -> bool:
    """Whether whole numbers fit into int64."""
    return all(isinstance(value, int | np.integer) and -(2**63) <= int(value) < 2**63 for value in values)


def require_unicode(what: str, texts: list[str]) -> None:
    """Raise `SpecError` with the rows whose text cannot be written to a file: lone surrogates."""
    try:
        "\n".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        bad = [row for row, text in enumerate(texts) if any("\ud800" <= char <= "\udfff" for char in text)]
        raise SpecError(
            f"Expected text in the {what}, got {len(bad)} rows with half a character (a lone surrogate).",
            rows=", ".join(map(str, bad[:10])),
            fix="read the table as UTF-8, or drop these characters",
        ) from None
