"""Rasters made on the spot, and short ways to ask for them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

NORTH_WEST = (600_000.0, 5_300_000.0)

MakeRaster = Callable[..., Path]


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Write a GeoTIFF at 10 m in UTM 33N, unless told otherwise."""

    def make(values: NDArray[np.generic], name: str = "scene.tif", **options: object) -> Path:
        bands, units = options.pop("bands", None), options.pop("units", None)
        scales, offsets = options.pop("scales", None), options.pop("offsets", None)
        tags = options.pop("tags", {})
        count, height, width = values.shape
        profile = {
            "driver": "GTiff", "dtype": values.dtype, "count": count, "height": height, "width": width,
            "crs": "EPSG:32633", "transform": Affine(10, 0, NORTH_WEST[0], 0, -10, NORTH_WEST[1]),
        } | options  # fmt: skip
        path = tmp_path / name
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(values)
            dataset.update_tags(**tags)
            for index, band in enumerate(bands or (), start=1):
                dataset.set_band_description(index, band)
            if units:
                dataset.units = units
            if scales:
                dataset.scales = scales
            if offsets:
                dataset.offsets = offsets
        return path

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20170613)


@pytest.fixture(scope="session")
def stac_server():
    """A STAC API and its files, in a process of its own: GDAL may hold the interpreter while it waits for an answer."""
    from stac_server import serving

    with serving() as server:
        yield server
