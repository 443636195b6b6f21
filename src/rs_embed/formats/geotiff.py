"""Grids as Cloud Optimized GeoTIFFs, for QGIS and other software based on GDAL."""

import json
import math
import zlib
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.position import PositionMeans
from rs_embed.errors import StorageError
from rs_embed.formats.parts import CHECKSUM_TAG, META_TAG, from_parts, position_of, texts_of, windows_text

VALID_TAG = "RS_EMBED_VALID"
"""Tag of `Embedding.valid`, packed by `_packed`. An extra band would look like a dimension, and a TIFF mask has one
bit.
"""
POSITION_TAG = "RS_EMBED_POSITION_MEANS"
"""Tag of `Embedding.position_means`: shape, positions of the windows, and values packed by `_packed`."""
COG_BLOCK_PX = 128
"""Largest side of a block. Before GDAL 3.11 a block holds all channels, so it must be small: 50 MB for 768 channels."""
GDAL_WITH_TILES = (3, 11)
"""First version whose blocks can hold one channel after the other, which compresses better."""


class Cog:
    """The GeoTIFF format. rasterio is imported late: it takes 0.2 s, and other formats do not need it."""

    name: str = "cog"
    suffix: str = ".tif"
    grids_only: bool = True
    media_type = "image/tiff; application=geotiff; profile=cloud-optimized"

    def room(self, embedding: Embedding) -> int:
        """See `FileFormat`; overviews are first written to a separate file."""
        return 2 * embedding.data.nbytes

    def write(self, embedding: Embedding, path: Path) -> None:
        """See `FileFormat`."""
        from rasterio._err import CPLE_BaseError
        from rasterio.errors import RasterioError

        geobox = embedding.geobox
        if geobox is None:
            raise StorageError(
                "Expected a georeferenced grid for a GeoTIFF, got an array without a place.",
                fix="save it as .npz or .nc",
            )
        try:
            _write(embedding, geobox, path)
        except (RasterioError, CPLE_BaseError) as error:  # only some of these are an OSError
            raise error if isinstance(error, OSError) else OSError(str(error)) from error

    def read(self, path: Path) -> Embedding:
        """See `FileFormat`."""
        import rasterio

        with rasterio.open(path) as file:
            tags = file.tags()
            valid = _unpacked(tags[VALID_TAG], file.shape) if VALID_TAG in tags else None
            means = _means(tags[POSITION_TAG], file.count) if POSITION_TAG in tags else None
            return from_parts(file.read(), tags[META_TAG], valid, tags.get(CHECKSUM_TAG), means)


def _write(embedding: Embedding, geobox: GeoBox, path: Path) -> None:
    import rasterio

    channels, height, width = embedding.data.shape
    tiled = {"INTERLEAVE": "TILE"} if _gdal_version() >= GDAL_WITH_TILES else {}
    with rasterio.open(
        path,
        "w",
        driver="COG",
        dtype="float32",
        count=channels,
        height=height,
        width=width,
        crs=str(geobox.crs),
        transform=geobox.affine,
        nodata=np.nan,
        compress="ZSTD",
        predictor="YES",
        blocksize=min(COG_BLOCK_PX, 16 * math.ceil(max(height, width) / 16)),  # TIFF requires multiples of 16
        overview_resampling="average",
        **tiled,
    ) as file:
        file.write(embedding.data)
        file.descriptions = [f"{embedding.meta.model_id} {band}" for band in range(channels)]
        valid = {} if embedding.valid is None else {VALID_TAG: _packed(embedding.valid)}
        if (means := embedding.position_means) is not None:
            content = [list(means.values.shape), windows_text(means), _packed(means.values)]
            valid |= {POSITION_TAG: json.dumps(content)}
        file.update_tags(**texts_of(embedding), **valid)


def _means(text: str, channels: int) -> PositionMeans:
    shape, windows, packed = json.loads(text)
    if shape[0] != channels:
        raise ValueError(f"means of {shape[0]} channels for a grid of {channels}")
    return position_of(_unpacked(packed, tuple(shape)), windows)


def _gdal_version() -> tuple[int, ...]:
    import rasterio

    return tuple(int(part) for part in rasterio.__gdal_version__.split(".")[:2])


def _packed(valid: NDArray[np.float32]) -> str:
    """Encode an array as text: little-endian float32, row by row, compressed by zlib, in base64."""
    return b64encode(zlib.compress(valid.astype("<f4").tobytes(), 9)).decode("ascii")


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    size = 4 * math.prod(shape)
    unpacked = zlib.decompressobj().decompress(b64decode(text, validate=True), size + 1)  # limits the memory
    return np.frombuffer(unpacked, "<f4").reshape(shape).astype(np.float32)
