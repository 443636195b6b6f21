"""A grid as a file of its own: COG, Zarr, netCDF or npz."""

from pathlib import Path

from rs_embed.embedding import Embedding
from rs_embed.embedding_files import load, write_to
from rs_embed.errors import StorageError
from rs_embed.writers.base import SUFFIX, GridFormat


def write_grid(stem: Path, embedding: Embedding, fmt: GridFormat) -> Path:
    """Write a grid `[D, H, W]` and its metadata; the same grid gives the same bytes.

    North-up, with the coordinates of pixel centres where the format has them, NaN where there is no value.

    Args:
        stem: The path without its suffix, which the format appends.

    Returns:
        The file, or the folder of a Zarr store.

    Raises:
        StorageError: A vector, or a COG or Zarr of a grid without a place.
        MissingDependency: zarr is not installed (Zarr only).
    """
    if not embedding.is_grid:
        raise StorageError(
            f"Wanted a grid [D, H, W], found a vector {embedding.data.shape}.", fix="write vectors with write_table"
        )
    path = stem.with_name(stem.name + SUFFIX[fmt])
    if fmt == "zarr":
        from rs_embed.writers.zarr_store import write_zarr

        write_zarr(path, embedding)
    else:
        write_to(embedding, path)
    return path


def read_grid(path: Path) -> Embedding:
    """What `write_grid` wrote.

    Raises:
        StorageError: There is no such file, or it is not one of ours.
        MissingDependency: zarr is not installed (Zarr only).
    """
    if path.suffix != SUFFIX["zarr"]:
        return load(path)
    from rs_embed.writers.zarr_store import read_zarr

    return read_zarr(path)
