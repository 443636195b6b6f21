"""What every file of an embedding holds: its arrays, and two texts beside them."""

import hashlib
import json
import zlib
from zipfile import BadZipFile

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import ValidationError

from rs_embed.embedding.embedding import Embedding, Meta
from rs_embed.embedding.position import PositionMeans

META_TAG = "RS_EMBED_META"
"""Name of the metadata (JSON) in every format."""
VALID = "valid_fraction"
"""Name of `Embedding.valid` beside a grid: a variable of netCDF and Zarr, a coordinate in xarray."""
POSITION = "position_means"
"""Name of `Embedding.position_means` in every format; where the windows lie is a text beside the values."""
CHECKSUM_TAG = "RS_EMBED_SHA256"
"""See `checksum_of`. Formats have checksums for some of their bytes, or none; this one is for what is read."""
UNREADABLE = (
    *(OSError, EOFError, BadZipFile, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError),
    *(MemoryError, ValidationError, zlib.error),
)
"""What numpy, h5netcdf, zarr, rasterio, zlib and pydantic raise for a file that is not ours or is damaged."""


def texts_of(embedding: Embedding) -> dict[str, str]:
    """What stands beside the values in every format: their metadata, and a checksum of all."""
    text = embedding.meta.model_dump_json()
    return {META_TAG: text, CHECKSUM_TAG: checksum_of(embedding.data, embedding.valid, text, embedding.position_means)}


def windows_text(means: PositionMeans) -> str:
    """Where the windows of a grid lie, beside the values of `Embedding.position_means` (JSON)."""
    return json.dumps({"rows": means.rows, "cols": means.cols, "windows": means.windows})


def position_of(values: NDArray[np.float32], text: str) -> PositionMeans:
    """What `windows_text` was written beside.

    Raises:
        KeyError: It is another text.
    """
    told = json.loads(text)
    return PositionMeans(values, tuple(told["rows"]), tuple(told["cols"]), told["windows"])


def from_parts(
    data: NDArray[np.float32],
    meta_json: str,
    valid: NDArray[np.float32] | None = None,
    told: str | None = None,
    position: PositionMeans | None = None,
) -> Embedding:
    """An embedding from its arrays and its metadata (JSON); the place is in the metadata.

    Args:
        data: As in `Embedding`, and `valid`.
        meta_json: What `Meta` says.
        valid: `None` for a vector.
        told: Their checksum; files of older versions have none.
        position: Of a grid of many windows.

    Raises:
        ValueError: They do not belong together, or are not what was written.
    """
    if told is not None and told != checksum_of(data, valid, meta_json, position):
        raise ValueError("other content than was written")
    meta = Meta.model_validate(json.loads(meta_json))
    if valid is not None and valid.shape != data.shape[1:]:
        raise ValueError(f"shares of {valid.shape} beside a grid of {data.shape}")
    if position is not None and position.values.shape[0] != data.shape[0]:
        raise ValueError(f"means of {position.values.shape} beside a grid of {data.shape}")
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
    """sha256 of values, shares of valid pixels, metadata and means; NaN counts as one value, whatever its bits."""
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
