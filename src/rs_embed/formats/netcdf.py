"""Embeddings as xarray datasets and as netCDF files."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.core.geo import with_coordinates
from rs_embed.embedding.embedding import Embedding
from rs_embed.formats.parts import (
    CHECKSUM_TAG,
    META_TAG,
    POSITION,
    VALID,
    from_parts,
    position_of,
    texts_of,
    windows_text,
)

if TYPE_CHECKING:
    import xarray as xr


class NetCdf:
    """See `FileFormat`."""

    name: str = "netcdf"
    suffix: str = ".nc"
    media_type: str = "application/x-netcdf"
    grids_only: bool = False

    def room(self, embedding: Embedding) -> int:
        """See `FileFormat`."""
        return embedding.data.nbytes

    def write(self, embedding: Embedding, path: Path) -> None:
        """See `FileFormat`."""
        dataset = to_dataset(embedding)
        packed = {name: {"zlib": True, "complevel": 4} for name in ("embedding", VALID, POSITION) if name in dataset}
        dataset.to_netcdf(path, engine="h5netcdf", encoding=packed)

    def read(self, path: Path) -> Embedding:
        """See `FileFormat`."""
        import xarray as xr  # imported late because it is slow: exports of vectors do without

        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            return from_dataset(dataset)


def to_xarray(embedding: Embedding) -> "xr.DataArray":
    """Convert an embedding to an array; see `Embedding.to_xarray`."""
    import xarray as xr

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


def to_dataset(embedding: Embedding) -> "xr.Dataset":
    """Convert an embedding to a dataset with the variable `embedding` and, for a grid, `valid_fraction`."""
    import xarray as xr

    array = to_xarray(embedding)
    array.attrs |= texts_of(embedding)
    means = embedding.position_means
    beside = {}
    if means is not None:
        about = {
            "long_name": "mean token of each place in a window, less the mean of all",
            "windows": windows_text(means),
        }
        beside[POSITION] = xr.DataArray(means.values, dims=("band", "window_y", "window_x"), attrs=about)
    if embedding.valid is None:
        return array.to_dataset().assign(beside)
    array.attrs["ancillary_variables"] = VALID
    dataset = array.to_dataset().reset_coords(VALID).assign(beside)
    if "grid_mapping" in array.attrs:
        dataset[VALID].attrs["grid_mapping"] = array.attrs["grid_mapping"]
    return dataset


def from_dataset(dataset: "xr.Dataset") -> Embedding:
    """Convert a dataset of `to_dataset` back to an embedding.

    Raises:
        KeyError: A variable or attribute is missing.
        ValueError: The metadata are damaged.
    """
    array = dataset["embedding"].load()
    valid = dataset[VALID].load().to_numpy() if VALID in dataset else None
    means = dataset.get(POSITION)
    position = None if means is None else position_of(means.load().to_numpy(), str(means.attrs["windows"]))
    return from_parts(array.to_numpy(), str(array.attrs[META_TAG]), valid, array.attrs.get(CHECKSUM_TAG), position)
