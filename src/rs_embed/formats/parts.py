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

META_TAG = "RS_EMBED_META"
"""Name of the metadata (JSON) in every format."""
VALID = "valid_fraction"
"""Name of `Embedding.valid` beside a grid: a variable of netCDF and Zarr, a coordinate in xarray."""
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
    return {META_TAG: text, CHECKSUM_TAG: checksum_of(embedding.data, embedding.valid, text)}


def from_parts(
    data: NDArray[np.float32], meta_json: str, valid: NDArray[np.float32] | None = None, told: str | None = None
) -> Embedding:
    """An embedding from its arrays and its metadata (JSON); the place is in the metadata.

    Args:
        data: As in `Embedding`, and `valid`.
        meta_json: What `Meta` says.
        valid: `None` for a vector.
        told: Their checksum; files of older versions have none.

    Raises:
        ValueError: They do not belong together, or are not what was written.
    """
    if told is not None and told != checksum_of(data, valid, meta_json):
        raise ValueError("other content than was written")
    meta = Meta.model_validate(json.loads(meta_json))
    if valid is not None and valid.shape != data.shape[1:]:
        raise ValueError(f"shares of {valid.shape} beside a grid of {data.shape}")
    if meta.crs is None or meta.transform is None:
        return Embedding(data, meta, None, valid)
    chip_px = meta.inputs[0].shape_px if meta.inputs else meta.input_px
    shape = data.shape[1:] if data.ndim == 3 else chip_px
    return Embedding(data, meta, GeoBox(shape, Affine(*meta.transform), meta.crs), valid)


def checksum_of(data: NDArray[np.float32], valid: NDArray[np.float32] | None, meta_json: str) -> str:
    """sha256 of values, shares of valid pixels and metadata; NaN counts as one value, whatever its bits."""
    total = hashlib.sha256(meta_json.encode())
    for array in (data, valid):
        if array is not None:
            values = np.ascontiguousarray(array, "<f4")
            empty = np.isnan(values)
            total.update(f"{values.shape}".encode())
            total.update((np.where(empty, np.float32(np.nan), values) if empty.any() else values).tobytes())
    return total.hexdigest()
