"""Read tables of places on disk into a pandas DataFrame or a GeoDataFrame."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.core.checks import short
from rs_embed.core.optional import require
from rs_embed.errors import SpecError
from rs_embed.places.texts import Found, read_text_table
from rs_embed.places.vectors import EXTRA, SUFFIXES, read_vector_table

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = (".csv", ".tsv", ".txt", ".csv.gz")
_PARQUET = (".parquet", ".geoparquet", ".pq")


def read_table(path: Path, found: Found) -> "pd.DataFrame":
    """Read the table in a file. In a CSV, ids and columns that are not needed stay text.

    Raises:
        SpecError: The file does not exist, cannot be read, or holds several layers.
    """
    kind = "".join(path.suffixes[-2:]).lower() if path.suffix == ".gz" else path.suffix.lower()
    _require_file(path, may_be_folder=kind == ".gdb")
    import pandas as pd

    reading: tuple[type[Exception], ...] = (OSError, ValueError, csv.Error, EOFError, RecursionError)
    # The errors of GDAL's readers, and of pyproj, are RuntimeErrors; those of pandas and pyarrow ValueErrors.
    reading += (RuntimeError, pd.errors.ParserError, KeyError, TypeError)
    try:
        if kind in _TEXTS:
            return read_text_table(path, found)
        if kind in _PARQUET:
            return _read_parquet(path)
        if kind in SUFFIXES:
            return read_vector_table(path)
    except SpecError:
        raise
    except reading as error:
        raise _unreadable(path, error) from error
    raise SpecError(
        f"Expected a table of places, got {str(path)!r}.",
        known=".csv, .tsv, .parquet, .geojson, .gpkg, .shp, .fgb, .zip",
        fix="save it as one of these, or pass a DataFrame",
    )


def _require_file(path: Path, *, may_be_folder: bool) -> None:
    """Raise `SpecError` for paths that do not exist, and for pipes and devices, which might never end."""
    try:
        there, is_file, is_folder = path.exists(), path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:  # a name that is too long, a NUL in it, a folder that may not be read
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(f"Expected the path of a table, got {short(str(path))}: {why}.", fix="check it") from error
    if is_file or (is_folder and may_be_folder):
        return
    what = "a folder" if is_folder else "something that is no file" if there else "no file"
    raise SpecError(f"Expected a table of places at {str(path)!r}, got {what}.", fix="check the path")


def _read_parquet(path: Path) -> "pd.DataFrame":
    require("pyarrow", EXTRA)
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    if b"geo" in (schema.metadata or {}):
        require("geopandas", EXTRA)
        import geopandas

        return geopandas.read_parquet(path, columns=flat)
    table: pd.DataFrame = pd.read_parquet(path, columns=flat)
    return table


def _unreadable(path: Path, error: Exception) -> SpecError:
    return SpecError(
        f"Expected a table of places in {str(path)!r}, got one that cannot be read.",
        found=f"{type(error).__name__}: {(str(error).splitlines() or ['no more said'])[0][:300]}",
        fix="open it in the program that wrote it and save it again, CSV as UTF-8",
    )
