"""Write rows as GeoParquet 1.1, with one schema for vectors and for the index of grids, including failed rows."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from rs_embed.core.optional import require
from rs_embed.core.specs import TemporalSpec
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import StorageError
from rs_embed.formats.base import Dtype, Row, RunHeader
from rs_embed.formats.fields import table_fields, without_none
from rs_embed.formats.footprint import Footprint, center, footprint
from rs_embed.formats.geoparquet import covering, geo_header
from rs_embed.formats.quantize import quantize

if TYPE_CHECKING:
    import pyarrow as pa

CHECKSUM = "rs_embed:sha256"
"""Metadata key of the checksum of the other keys. Pages have their own checksums."""
VECTORS = "embedding.list.element"
"""Parquet's name of the leaf column."""
_REPEATED = ["model_id", "weights_id", "status", "stage", "error", "proj_code", "source_ids.list.element"]
_COUNTED = ["row", "id", "status", "bbox.xmin", "bbox.ymin", "bbox.xmax", "bbox.ymax", "start_datetime", "end_datetime"]
"""Columns with statistics, by which readers skip row groups."""


def write_table(path: Path, rows: Sequence[Row], header: RunHeader, *, dtype: Dtype | None = None) -> None:
    """Write pooled vectors, one row each, to exactly this path.

    The same rows and header give the same bytes.

    Args:
        path: The file to write.
        rows: The rows, in order; failed ones get a null `embedding`.
        header: The header of the run.
        dtype: Type in which vectors are stored; `None` for the header's.

    Raises:
        StorageError: The length of a vector differs from the header's, or it cannot be stored in `dtype`.
        MissingDependency: pyarrow is not installed.
    """
    require("pyarrow", "export")
    header = header if dtype is None else replace(header, dtype=dtype)
    _write(path, _vector_columns(rows, header), rows, header)


def write_index(path: Path, rows: Sequence[Row], header: RunHeader, hrefs: Sequence[str | None]) -> None:
    """Write the index of grids: the same table with paths of files instead of vectors.

    Args:
        path: The file to write.
        rows: The rows, in order.
        header: The header of the run.
        hrefs: One path per row, relative to the folder of `path`; `None` for a failed row.

    Raises:
        MissingDependency: pyarrow is not installed.
    """
    require("pyarrow", "export")
    import pyarrow as pa

    _write(path, {"href": pa.array(list(hrefs), pa.string())}, rows, header)


def _write(path: Path, data: "dict[str, pa.Array]", rows: Sequence[Row], header: RunHeader) -> None:
    import pyarrow as pa

    shapes = [footprint(row) for row in rows]
    columns = {**_place_columns(rows, shapes), **_kept_columns(rows), **data, **_other_columns(rows, header)}
    keys = {"geo": geo_header(shapes), "emb": without_none(table_fields(header))}
    metadata = {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in keys.items()}
    save_table(pa.table(columns), path, header, metadata)


def save_table(table: "pa.Table", path: Path, header: RunHeader, keys: Mapping[str, str]) -> None:
    """Write a table as one row group, with a checksum of every page and of the keys.

    Args:
        table: A table with the columns of `write_table` or `write_index`.
        path: The file to write.
        header: The header, which determines the encoding of columns.
        keys: The keys of the file's metadata.
    """
    import pyarrow.parquet as pq

    sealed = {**keys, CHECKSUM: checksum_of(keys)}
    pq.write_table(
        table.replace_schema_metadata(sealed),
        path,
        row_group_size=max(1, len(table)),
        write_page_checksum=True,
        **parquet_options(header),
    )


def checksum_of(keys: Mapping[str, str]) -> str:
    """Return the sha256 of a table's metadata, without the checksum itself and what pyarrow adds."""
    own = {name: keys[name] for name in ("geo", "emb") if name in keys}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def parquet_options(header: RunHeader) -> dict[str, str | bool | list[str]]:
    """Return the options of `pyarrow.parquet.write_table` for a header.

    Measured on 4,096 x 768 normally distributed values: float32 with byte-stream split 10.6 MB (plain 11.6 MB), int8
    with a dictionary 2.9 MB (plain 4.3 MB). float16 stays plain, 5.8 MB, as DuckDB 2.0 does not read it split.
    """
    is_pooled = header.output == "pooled"
    return {
        "compression": "zstd",
        "use_dictionary": [*_REPEATED, *([VECTORS] if is_pooled and header.dtype == "int8" else [])],
        "use_byte_stream_split": [VECTORS] if is_pooled and header.dtype == "float32" else False,
        "write_statistics": _COUNTED,
    }


def _place_columns(rows: Sequence[Row], shapes: Sequence[Footprint | None]) -> "dict[str, pa.Array]":
    import pyarrow as pa

    centers = [center(row) or (None, None) for row in rows]
    return {
        "id": pa.array([row.id for row in rows], pa.string()),
        "row": pa.array([row.index for row in rows], pa.int64()),
        "geometry": pa.array([None if shape is None else shapely.to_wkb(shape) for shape in shapes], pa.binary()),
        "bbox": covering(shapes),
        "center_lon": pa.array([lon for lon, _ in centers], pa.float64()),
        "center_lat": pa.array([lat for _, lat in centers], pa.float64()),
    }


def _kept_columns(rows: Sequence[Row]) -> "dict[str, pa.Array]":
    """Return the other columns of the user's table."""
    import pyarrow as pa

    kinds = {name: column.kind for name, column in rows[0].kept.columns.items()} if rows else {}
    types = {
        name: pa.timestamp("us", tz="UTC") if kind == "timestamp[us, UTC]" else pa.type_for_alias(kind)
        for name, kind in kinds.items()
    }
    return {name: pa.array([row.kept[name] for row in rows], kind) for name, kind in types.items()}


def _other_columns(rows: Sequence[Row], header: RunHeader) -> "dict[str, pa.Array]":
    """Return the columns of time, model, imagery, quality, status and metadata."""
    import pyarrow as pa

    moments = pa.timestamp("us", tz="UTC")
    windows = [(None, None) if row.window is None else window_utc(row.window) for row in rows]
    weights = [header.weights if row.embedding is None else row.embedding.meta.weights for row in rows]

    def each(kind: "pa.DataType", value: Callable[[Embedding], object]) -> "pa.Array":
        return pa.array([None if row.embedding is None else value(row.embedding) for row in rows], kind)

    return {
        "start_datetime": pa.array([first for first, _ in windows], moments),
        "end_datetime": pa.array([last for _, last in windows], moments),
        "datetime": each(moments, middle_time),
        "model_id": pa.array([header.model_id] * len(rows), pa.string()).dictionary_encode(),
        "weights_id": pa.array(weights, pa.string()).dictionary_encode(),
        "source_ids": each(pa.list_(pa.string()), lambda one: [s for i in one.meta.inputs for s in i.scene_ids]),
        "proj_code": each(pa.string(), lambda one: one.meta.crs),
        "transform": each(pa.list_(pa.float64()), lambda one: one.meta.transform),
        "valid_fraction": each(pa.float32(), lambda one: one.meta.valid_fraction),
        "cloud_fraction": pa.nulls(len(rows), pa.float32()),  # unknown: no provider separates cloud from nodata
        "status": pa.array([row.status for row in rows], pa.string()),
        "stage": pa.array([row.stage for row in rows], pa.string()),
        "error": pa.array([row.error for row in rows], pa.string()),
        "fingerprint": each(pa.string(), lambda one: one.meta.fingerprint),
        "meta": each(pa.string(), lambda one: one.meta.model_dump_json()),
    }


def _vector_columns(rows: Sequence[Row], header: RunHeader) -> "dict[str, pa.Array]":
    import pyarrow as pa

    failed = np.array([row.embedding is None for row in rows], bool)
    vectors = np.zeros((len(rows), header.dim), np.float32)
    for i, row in enumerate(rows):
        if row.embedding is None:
            continue
        if row.embedding.data.shape != (header.dim,):
            raise StorageError(
                f"Expected a vector of {header.dim} values, got an array {row.embedding.data.shape}.",
                row=f"{row.index} ({row.id!r})",
                fix="write grids with Embedding.save, and their table with write_index",
            )
        vectors[i] = row.embedding.data
    stored, scale = quantize(vectors, header.dtype)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), header.dim, mask=pa.array(failed))
    if scale is None:
        return {"embedding": lists}
    return {"embedding": lists, "scale": pa.array(scale, pa.float32(), mask=failed)}


def window_utc(window: TemporalSpec) -> tuple[datetime, datetime]:
    """Return the first and last second of a time window; both belong to it, as in STAC."""
    start, end = (datetime.combine(day, time(), UTC) for day in (window.start, window.end))
    return start, end - timedelta(seconds=1)


def middle_time(embedding: Embedding) -> datetime | None:
    """Return the mean time of the scenes; `None` if it is unknown."""
    times = [datetime.fromisoformat(text) for one in embedding.meta.inputs for text in one.scene_times]
    if not times:
        return None
    seconds = [(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() for moment in times]
    return datetime.fromtimestamp(round(sum(seconds) / len(seconds)), UTC)
