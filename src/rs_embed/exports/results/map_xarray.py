"""Present a map as a lazy xarray array, without dask."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from rs_embed.core.geo import with_coordinates
from rs_embed.formats.parts import VALID

if TYPE_CHECKING:
    from rs_embed.exports.results.embedding_map import Box, EmbeddingMap
    from rs_embed.exports.results.map_store import Time


def lazy_array(whole: "EmbeddingMap", bbox: "Box", level: int, time: "Time") -> xr.DataArray:
    """See `EmbeddingMap.to_xarray`."""
    one = whole.level(level)
    crop = one.crop(bbox)
    numbers = tuple(range(one.times)) if time is None else (whole.time_number(time),)
    ground = (crop.height, crop.width)

    def tokens(moment: int, bands: slice, rows: slice, cols: slice) -> NDArray[np.float32]:
        return one.read(numbers[moment], _moved(rows, crop.row), _moved(cols, crop.col), bands)

    def shares(moment: int, rows: slice, cols: slice) -> NDArray[np.float32]:
        return one.valid(numbers[moment], _moved(rows, crop.row), _moved(cols, crop.col))

    header = whole.header
    array = xr.DataArray(
        xr.Variable(("time", "band", "y", "x"), _lazy((len(numbers), one.dim, *ground), tokens)),
        coords={"band": np.arange(one.dim)},
        name="embedding",
        attrs={
            "long_name": f"embedding by {header.model_id}",
            "weights": header.weights_note or header.weights or "",
            "licence": header.licence,
        },
    )
    about = {"long_name": "share of valid pixels under each token", "units": "1"}
    array = array.assign_coords({VALID: xr.Variable(("time", "y", "x"), _lazy((len(numbers), *ground), shares), about)})
    array = with_coordinates(array, crop.geobox(one.geobox))
    return _timed(array, whole, numbers, keep=len(numbers) > 1)


def _timed(array: xr.DataArray, whole: "EmbeddingMap", numbers: tuple[int, ...], *, keep: bool) -> xr.DataArray:
    windows = [whole.times[number] for number in numbers]
    for name, days in (
        ("time", [None if one is None else one.start for one in windows]),
        ("time_end", [None if one is None else one.end for one in windows]),
    ):
        array = array.assign_coords({name: ("time", np.array(days, "datetime64[D]").astype("datetime64[s]"))})
    return array if keep else array.isel(time=0)


def _lazy(shape: tuple[int, ...], read: Callable[..., NDArray[np.float32]]) -> indexing.LazilyIndexedArray:
    return indexing.LazilyIndexedArray(_OnDemand(shape, read))


class _OnDemand(BackendArray):
    """Values that are read when they are used.

    Args:
        shape: The first axis is time.
        read: Returns the values for the number of a time and a slice of each other axis.
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[..., NDArray[np.float32]]) -> None:
        self.shape, self.dtype, self._read_time = shape, np.dtype(np.float32), read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> object:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[np.float32]:
        numbers = [np.arange(length)[one] for length, one in zip(self.shape, key, strict=True)]
        shape = tuple(one.size for one in numbers if one.ndim)
        if 0 in shape:
            return np.empty(shape, np.float32)
        slices = [_slice_of(np.atleast_1d(one)) for one in numbers[1:]]
        parts = [self._read_time(int(moment), *slices) for moment in np.atleast_1d(numbers[0])]
        return np.stack(parts).reshape(shape)


def _slice_of(numbers: NDArray[np.intp]) -> slice:
    """Return the slice that selects these evenly spaced numbers."""
    step = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
    return slice(int(numbers[0]), int(numbers[-1]) + 1, step)


def _moved(some: slice, by: int) -> slice:
    return slice(some.start + by, some.stop + by, some.step)
