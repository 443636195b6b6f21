"""Tables of places on disk, read into a pandas DataFrame or a GeoDataFrame."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed._optional import require
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

EXTRA = "export"
_SEPARATORS = ",;\t|"
_EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""What stands for a missing number or date in a CSV; an id may well be "NA"."""

Wanted = Callable[[Collection[str]], Collection[str]]
"""Which of the columns of a file are needed; the first of them is the id where there is one."""


def read_table(path: Path, wanted: Wanted, id_column: Callable[[Collection[str]], str | None]) -> "pd.DataFrame":
    """The table in a file; of a CSV only the columns wanted, ids as text.

    Raises:
        SpecError: There is no such file, it cannot be read, or it holds several layers.
    """
    if not path.is_file() and not (path.is_dir() and path.suffix == ".gdb"):
        raise SpecError(f"Wanted a table of places, found no file {str(path)!r}.", fix="check the path")
    kind = "".join(path.suffixes[-2:]).lower() if path.suffix == ".gz" else path.suffix.lower()
    if kind in (".csv", ".tsv", ".txt", ".csv.gz"):
        return _read_csv(path, wanted, id_column)
    if kind in (".parquet", ".geoparquet", ".pq"):
        return _read_parquet(path, wanted)
    if kind in (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".gdb", ".zip"):
        return _read_vector(path)
    raise SpecError(
        f"Wanted a table of places, found {str(path)!r}.",
        known=".csv, .tsv, .parquet, .geojson, .gpkg, .shp, .fgb",
        fix="save it as one of these, or pass a DataFrame",
    )


def _read_csv(path: Path, wanted: Wanted, id_column: Callable[[Collection[str]], str | None]) -> "pd.DataFrame":
    import pandas as pd

    try:
        options = {"encoding": "utf-8-sig", "sep": _separator(path)}
        names = list(pd.read_csv(path, nrows=0, **options).columns)
        needed, id_name = wanted(names), id_column(names)
        frame: pd.DataFrame = pd.read_csv(
            path,
            usecols=list(needed),
            dtype=None if id_name is None else {id_name: str},
            keep_default_na=False,
            na_values={name: list(_EMPTY) for name in needed if name != id_name},
            low_memory=False,
            **options,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from error
    return frame


def _separator(path: Path) -> str:
    """The one that occurs most in the first line."""
    import pandas as pd

    head = pd.read_csv(path, nrows=1, header=None, sep="\0", encoding="utf-8-sig", dtype=str)
    line = str(head.iloc[0, 0])
    return max(_SEPARATORS, key=line.count)


def _read_parquet(path: Path, wanted: Wanted) -> "pd.DataFrame":
    require("pyarrow", EXTRA)
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        if b"geo" in (schema.metadata or {}):
            require("geopandas", EXTRA)
            import geopandas

            return geopandas.read_parquet(path)
        table: pd.DataFrame = pd.read_parquet(path, columns=list(wanted(schema.names)))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise _unreadable(path, error) from error
    return table


def _read_vector(path: Path) -> "pd.DataFrame":
    require("geopandas", EXTRA)
    import geopandas

    try:
        layers = [str(name) for name in geopandas.list_layers(path)["name"]]
        if len(layers) > 1:
            raise SpecError(
                f"Wanted one layer in {str(path)!r}, found {len(layers)}.",
                layers=", ".join(layers),
                fix="pass geopandas.read_file(path, layer=...) instead",
            )
        return geopandas.read_file(path)
    except (RuntimeError, OSError) as error:  # pyogrio's own errors are RuntimeErrors
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> SpecError:
    return SpecError(
        f"Wanted a table of places in {str(path)!r}, found one that cannot be read.",
        found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
        fix="open it in the program that wrote it and save it again, CSV as UTF-8",
    )
