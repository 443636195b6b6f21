"""Write one embedding to a file and read it back, with its metadata and its place."""

import hashlib
import json
import math
import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile, ZipFile

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import ValidationError

from rs_embed.core.geo import with_coordinates
from rs_embed.core.resources import SPARE_BYTES, is_about_space, require_room
from rs_embed.embedding.embedding import Embedding, Meta
from rs_embed.errors import StorageError

META_TAG = "RS_EMBED_META"
"""Name of the metadata (JSON) in every format."""
VALID = "valid_fraction"
"""Name of `Embedding.valid` beside a grid: a variable of netCDF and Zarr, a coordinate in xarray."""
VALID_TAG = "RS_EMBED_VALID"
"""The same in a GeoTIFF, see `_packed`: a band more would pass for a dimension, and a mask of TIFF has one bit."""
CHECKSUM_TAG = "RS_EMBED_SHA256"
"""See `checksum_of`. Formats have checksums for some of their bytes, or none; this one is for what is read."""
COG_BLOCK_PX = 128
"""At most. Blocks hold all channels (GDAL before 3.11 knows no other layout), so they are small: 50 MB for 768."""
GDAL_WITH_TILES = (3, 11)
"""From this version on a block can hold one channel after the other, which compresses better than pixel by pixel."""

ROOM = {".npz": 1, ".nc": 1, ".tif": 2}
"""Bytes that writing may take for each byte of values: a GeoTIFF has overviews, first in a file of their own."""
UNREADABLE = (
    *(OSError, EOFError, BadZipFile, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError),
    *(MemoryError, ValidationError, zlib.error),
)
"""What numpy, h5netcdf, zarr, rasterio, zlib and pydantic raise for a file that is not ours or is damaged."""


def save(embedding: Embedding, path: Path) -> Path:
    """Write under a temporary name, then rename: a file is whole or not there."""
    check_path(path, embedding.meta.output)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    size = ROOM[path.suffix] * embedding.data.nbytes
    try:
        require_room(path.parent, size)
        write_to(embedding, part)
        os.replace(part, path)
    except OSError as error:
        raise StorageError(
            f"Expected to write {str(path)!r}, got: {error}.",
            fix=f"make room: {(size + SPARE_BYTES) / 1e6:.1f} MB at most are needed"
            if is_about_space(error)
            else "check that the folder exists and may be written to",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def write_to(embedding: Embedding, path: Path) -> None:
    """Write to exactly this path, whose suffix says how; what happens to a half-written file is the caller's affair."""
    write, _ = _FORMATS[path.suffix]
    write(embedding, path)


def check_path(path: Path, output: Literal["pooled", "grid"]) -> None:
    """Raise `StorageError` for a path that `save` could not write, before anything is computed for it."""
    if path.suffix not in _FORMATS:
        raise StorageError(
            f"Expected a file name ending in {', '.join(_FORMATS)}, got {str(path)!r}.", fix="choose one of them"
        )
    if not path.parent.is_dir():
        raise StorageError(f"Expected to write {str(path)!r}, got no such folder.", fix="make the folder first")
    if path.suffix == ".tif" and output == "pooled":
        raise StorageError(
            "Expected a grid for a GeoTIFF, got a pooled vector.", fix="save it as .npz or .nc, or ask for a grid"
        )


def load(path: Path) -> Embedding:
    """Read what `save` wrote."""
    there = _exists(path)
    if path.suffix not in _FORMATS or not there or not path.is_file():
        raise StorageError(
            f"Expected a file ending in {', '.join(_FORMATS)}, got {str(path)!r}"
            f"{'' if there else ', which does not exist'}.",
            fix="give a file that Embedding.save wrote",
        )
    _, read = _FORMATS[path.suffix]
    try:
        return read(path)
    except UNREADABLE as error:
        raise StorageError(
            f"{str(path)!r} is not an embedding of rs_embed ({type(error).__name__}: {error}).",
            fix="give a file that Embedding.save wrote; if it was one, it is damaged",
        ) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def to_xarray(embedding: Embedding) -> xr.DataArray:
    """See `Embedding.to_xarray`."""
    attrs = {
        "long_name": f"embedding by {embedding.meta.model_id}",
        "weights": embedding.meta.warning or embedding.meta.weights,
        META_TAG: embedding.meta.model_dump_json(),
    }
    channels = {"band": np.arange(embedding.data.shape[0])}
    dims = ("band", "y", "x") if embedding.is_grid else ("band",)
    array = xr.DataArray(embedding.data, dims=dims, coords=channels, name="embedding", attrs=attrs)
    if embedding.valid is not None:
        about = {"long_name": "share of valid pixels under each token", "units": "1"}
        array = array.assign_coords({VALID: (("y", "x"), embedding.valid, about)})
    return array if embedding.geobox is None or not embedding.is_grid else with_coordinates(array, embedding.geobox)


def to_dataset(embedding: Embedding) -> xr.Dataset:
    """Variables `embedding` and, of a grid, `valid_fraction`, which CF calls ancillary to it."""
    array = to_xarray(embedding)
    array.attrs |= _texts(embedding)
    if embedding.valid is None:
        return array.to_dataset()
    array.attrs["ancillary_variables"] = VALID
    dataset = array.to_dataset().reset_coords(VALID)
    if "grid_mapping" in array.attrs:
        dataset[VALID].attrs["grid_mapping"] = array.attrs["grid_mapping"]
    return dataset


def from_dataset(dataset: xr.Dataset) -> Embedding:
    """What `to_dataset` made.

    Raises:
        KeyError: It is not such a dataset.
        ValueError: Its metadata are damaged.
    """
    array = dataset["embedding"].load()
    valid = dataset[VALID].load().to_numpy() if VALID in dataset else None
    return from_parts(array.to_numpy(), str(array.attrs[META_TAG]), valid, array.attrs.get(CHECKSUM_TAG))


def _write_npz(embedding: Embedding, path: Path) -> None:
    meta, checksum = (np.array(text) for text in _texts(embedding).values())
    if embedding.valid is None:
        np.savez(path, embedding=embedding.data, meta=meta, checksum=checksum)
    else:
        np.savez(path, embedding=embedding.data, meta=meta, checksum=checksum, valid=embedding.valid)


def _read_npz(path: Path) -> Embedding:
    _refuse_bomb(path)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # np.load leaves a bad file open
        told = str(arrays["checksum"]) if "checksum" in arrays else None
        return from_parts(arrays["embedding"], str(arrays["meta"]), arrays.get("valid"), told)


def _refuse_bomb(path: Path) -> None:
    """`np.savez` packs nothing; a few bytes of another file may unpack to, or declare, gigabytes.

    Raises:
        ValueError: There is more in it than it has bytes.
    """
    with ZipFile(path) as packed:
        for entry in packed.infolist():
            with packed.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                    version, np.lib.format.read_array_header_2_0
                )
                shape, _, kind = read_header(file)
            size = max(entry.file_size, math.prod(shape) * kind.itemsize)
            if size > path.stat().st_size:
                raise ValueError(f"{entry.filename} declares {size / 1e9:.3g} GB in a file of {path.stat().st_size} B")


def _write_netcdf(embedding: Embedding, path: Path) -> None:
    dataset = to_dataset(embedding)
    packed = {name: {"zlib": True, "complevel": 4} for name in ("embedding", VALID) if name in dataset}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=packed)


def _read_netcdf(path: Path) -> Embedding:
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return from_dataset(dataset)


def _write_geotiff(embedding: Embedding, path: Path) -> None:
    from rasterio._err import CPLE_BaseError  # rasterio takes 0.2 s, and the other formats do without it
    from rasterio.errors import RasterioError

    geobox = embedding.geobox
    if geobox is None:
        raise StorageError(
            "Expected a georeferenced grid for a GeoTIFF, got an array without a place.", fix="save it as .npz or .nc"
        )
    try:
        _write_cog(embedding, geobox, path)
    except (RasterioError, CPLE_BaseError) as error:  # of which only some are an OSError
        raise error if isinstance(error, OSError) else OSError(str(error)) from error


def _write_cog(embedding: Embedding, geobox: GeoBox, path: Path) -> None:
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
        blocksize=min(COG_BLOCK_PX, 16 * math.ceil(max(height, width) / 16)),  # TIFF wants multiples of 16
        overview_resampling="average",
        **tiled,
    ) as file:
        file.write(embedding.data)
        file.descriptions = [f"{embedding.meta.model_id} {band}" for band in range(channels)]
        valid = {} if embedding.valid is None else {VALID_TAG: _packed(embedding.valid)}
        file.update_tags(**_texts(embedding), **valid)


def _gdal_version() -> tuple[int, ...]:
    import rasterio

    return tuple(int(part) for part in rasterio.__gdal_version__.split(".")[:2])


def _read_geotiff(path: Path) -> Embedding:
    import rasterio

    with rasterio.open(path) as file:
        tags = file.tags()
        valid = _unpacked(tags[VALID_TAG], file.shape) if VALID_TAG in tags else None
        return from_parts(file.read(), tags[META_TAG], valid, tags.get(CHECKSUM_TAG))


def _packed(valid: NDArray[np.float32]) -> str:
    """Shares as text: their float32, row by row, little-endian, by zlib, in base64. Most are 1, so it is short."""
    return b64encode(zlib.compress(valid.astype("<f4").tobytes(), 9)).decode("ascii")


def _unpacked(text: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    size = 4 * shape[0] * shape[1]
    unpacked = zlib.decompressobj().decompress(b64decode(text, validate=True), size + 1)  # no more than it may be
    return np.frombuffer(unpacked, "<f4").reshape(shape).astype(np.float32)


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
    shape = data.shape[1:] if data.ndim == 3 else meta.inputs[0].shape_px
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


def _texts(embedding: Embedding) -> dict[str, str]:
    """What stands beside the values in every format: their metadata, and a checksum of all."""
    text = embedding.meta.model_dump_json()
    return {META_TAG: text, CHECKSUM_TAG: checksum_of(embedding.data, embedding.valid, text)}


_FORMATS: dict[str, tuple[Callable[[Embedding, Path], None], Callable[[Path], Embedding]]] = {
    ".npz": (_write_npz, _read_npz),
    ".nc": (_write_netcdf, _read_netcdf),
    ".tif": (_write_geotiff, _read_geotiff),
}
