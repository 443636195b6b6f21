"""The files under `rs_embed/data`."""

import json
from importlib.resources import files

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds

SCENE = files("rs_embed") / "data/sample"


@pytest.fixture(scope="module")
def scene() -> dict:
    return json.loads((SCENE / "scene.json").read_text())


def test_each_layer_says_what_it_is_in_the_file_itself(scene):
    for layer in scene["layers"]:
        with rasterio.open(str(SCENE / layer["file"])) as raster:
            assert raster.descriptions == tuple(layer["bands"])
            assert raster.units == (layer["unit"],) * raster.count
            assert raster.scales == (layer["step"],) * raster.count
            assert raster.nodata == layer["nodata"]
            assert raster.tags()["datetime"] == layer["datetime"]
            assert raster.tags()["scene_ids"].split(",") == layer["scene_ids"]
            assert raster.tags()["attribution"] == scene["attribution"]


def test_both_layers_lie_on_the_grid_of_the_scene(scene):
    for layer in scene["layers"]:
        with rasterio.open(str(SCENE / layer["file"])) as raster:
            assert raster.crs == scene["grid_crs"]
            assert list(raster.bounds) == scene["grid_bounds_m"]
            assert raster.res == (scene["pixel_m"], scene["pixel_m"])
            np.testing.assert_allclose(transform_bounds(raster.crs, 4326, *raster.bounds), scene["bounds"], atol=1e-6)


def test_coarse_bands_are_exact_repeats_of_their_own_pixels(scene):
    layer = scene["layers"][0]
    with rasterio.open(str(SCENE / layer["file"])) as raster:
        pixels = raster.read()
    for band, gsd_m in zip(pixels, layer["native_gsd_m"], strict=True):
        times = gsd_m // 10
        np.testing.assert_array_equal(band, np.kron(band[::times, ::times], np.ones((times, times))))


def test_the_scene_has_no_nodata(scene):
    for layer in scene["layers"]:
        with rasterio.open(str(SCENE / layer["file"])) as raster:
            assert (raster.read() != layer["nodata"]).all()
