"""Read items from a table in stac-geoparquet: each row is an item, and its properties are columns."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import shapely

from rs_embed.core.optional import require
from rs_embed.errors import ReadError

_ROWS = 1024
"""Rows read at a time: nested columns become ten times as large in Python."""
_OWN = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection")
"""Columns that are not properties."""


def items_of_table(path: str) -> Iterator[Mapping[str, object]]:
    """Read the items of a table.

    Raises:
        MissingDependency: pyarrow is not installed.
        ReadError: The file does not exist or is not stac-geoparquet.
    """
    require("pyarrow", extra="export")
    import pyarrow as pa  # imported here: it is slow, and only tables need it
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise ReadError(f"Expected stac-geoparquet, got no file {path}.", fix="check the path")
    try:
        with pq.ParquetFile(path) as table:
            missing = [name for name in ("id", "geometry", "assets") if name not in table.schema_arrow.names]
            if missing:
                raise ReadError(
                    f"Expected stac-geoparquet, got {path} without the columns {', '.join(missing)}.",
                    columns=", ".join(table.schema_arrow.names[:20]),
                    fix="write it with stac-geoparquet or rustac",
                )
            for batch in table.iter_batches(_ROWS):
                yield from (_item(row) for row in batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise ReadError(f"Expected stac-geoparquet, got {path}: {error}", fix="check the file") from error


def _item(row: Mapping[str, object]) -> Mapping[str, object]:
    geometry, assets = row["geometry"], row["assets"]
    shape = shapely.from_wkb(geometry) if isinstance(geometry, bytes) else None
    found: dict[str, object] = {name: _plain(row[name]) for name in _OWN if row.get(name) is not None}
    found["geometry"] = None if shape is None else shapely.geometry.mapping(shape)
    found["properties"] = {name: _plain(value) for name, value in row.items() if name not in _OWN and value is not None}
    if isinstance(assets, Mapping):  # all items share the columns: null means that an item lacks the property
        found["assets"] = {name: _plain(asset) for name, asset in assets.items() if asset is not None}
    return found


def _plain(value: object) -> object:
    """A value as in JSON: times as text, and without null fields."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list) else value
