"""The parts of an embedding in every format: its arrays, metadata and checksum."""

import hashlib
import json
import zlib
from zipfile import BadZipFile

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import ValidationError

from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.meta import Meta
from rs_embed.embedding.position import PositionMeans

META_TAG = "RS_EMBED_META"
"""Name of the metadata (JSON)."""
VALID = "valid_fraction"
"""Name of `Embedding.valid`: a variable in netCDF and Zarr, a coordinate in xarray."""
POSITION = "position_means"
"""Name of `Embedding.position_means`; the positions of the windows are a text next to the values."""
CHECKSUM_TAG = "RS_EMBED_SHA256"
"""Name of the checksum of `checksum_of`. It covers everything that is read; formats cover some bytes or none."""
UNREADABLE = (
    *(OSError, EOFError, BadZipFile, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError),
    *(MemoryError, ValidationError, zlib.error),
)
"""The exceptions of numpy, h5netcdf, zarr, rasterio, zlib and pydantic for foreign or damaged files."""


def texts_of(embedding: Embedding) -> dict[str, str]:
    """Return the texts to store next to the arrays in every format: the metadata, and a checksum of everything."""
    text = embedding.meta.model_dump_json()
    return {META_TAG: text, CHECKSUM_TAG: checksum_of(embedding.data, embedding.valid, text, embedding.position_means)}


def windows_text(means: PositionMeans) -> str:
    """Return the positions of the windows of `Embedding.position_means` as JSON."""
    return json.dumps({"rows": means.rows, "cols": means.cols, "windows": means.windows})


def position_of(values: NDArray[np.float32], text: str) -> PositionMeans:
    """Rebuild `Embedding.position_means` from its values and the text of `windows_text`.

    Raises:
        KeyError: The text is not one of `windows_text`.
    """
    content = json.loads(text)
    return PositionMeans(values, tuple(content["rows"]), tuple(content["cols"]), content["windows"])


def from_parts(
    data: NDArray[np.float32],
    meta_json: str,
    valid: NDArray[np.float32] | None = None,
    told: str | None = None,
    position: PositionMeans | None = None,
) -> Embedding:
    """Rebuild an embedding from its arrays and its metadata, which hold the georeference.

    Args:
        data: `Embedding.data`.
        meta_json: `Embedding.meta` as JSON.
        valid: `Embedding.valid`; `None` for a vector.
        told: The stored checksum; `None` for files of older versions, which have none.
        position: `Embedding.position_means`.

    Raises:
        ValueError: The parts do not fit together, or do not match the checksum.
    """
    if told is not None and told != checksum_of(data, valid, meta_json, position):
        raise ValueError("the content does not match its checksum")
    meta = Meta.model_validate(json.loads(meta_json))
    if valid is not None and valid.shape != data.shape[1:]:
        raise ValueError(f"valid shares of shape {valid.shape} for a grid of shape {data.shape}")
    if position is not None and position.values.shape[0] != data.shape[0]:
        raise ValueError(f"means of shape {position.values.shape} for a grid of shape {data.shape}")
    if meta.crs is None or meta.transform is None:
        return Embedding(data, meta, None, valid, position)
    chip_px = meta.inputs[0].shape_px if meta.inputs else meta.input_px
    shape = data.shape[1:] if data.ndim == 3 else chip_px
    return Embedding(data, meta, GeoBox(shape, Affine(*meta.transform), meta.crs), valid, position)


def checksum_of(
    data: NDArray[np.float32],
    valid: NDArray[np.float32] | None,
    meta_json: str,
    position: PositionMeans | None = None,
) -> str:
    """Return the sha256 of values, valid shares, metadata and means; all NaN count as the same value."""
    total = hashlib.sha256(meta_json.encode())
    if position is not None:
        total.update(windows_text(position).encode())
    for array in (data, valid, None if position is None else position.values):
        if array is not None:
            values = np.ascontiguousarray(array, "<f4")
            empty = np.isnan(values)
            total.update(f"{values.shape}".encode())
            total.update((np.where(empty, np.float32(np.nan), values) if empty.any() else values).tobytes())
    return total.hexdigest()
