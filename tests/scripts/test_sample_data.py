"""The files under `rs_embed/data` and the scripts that made them."""

import importlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import rasterio
import safetensors.numpy
from rasterio.warp import transform_bounds

SCENE = files("rs_embed") / "data/sample"


@pytest.fixture(scope="module")
def scene() -> dict:
    return json.loads((SCENE / "scene.json").read_text())


@pytest.fixture
def fit_rcf_bank(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("fit_rcf_bank")


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


def test_a_fitted_bank_survives_its_file(fit_rcf_bank):
    patches = np.random.default_rng(0).uniform(1, 3000, size=(2, 12, 20, 20))
    bank = fit_rcf_bank.fit(patches)
    stored = safetensors.numpy.load(safetensors.numpy.save(bank))
    for name, values in bank.items():
        np.testing.assert_array_equal(stored[name], values)


def test_filters_are_pieces_whitened_twice(fit_rcf_bank, monkeypatch):
    monkeypatch.setattr(fit_rcf_bank, "FILTERS", 324)  # all the pieces there are, in some order
    patches = np.random.default_rng(0).uniform(1, 3000, size=(1, 12, 20, 20))
    weight = fit_rcf_bank.fit(patches)["weight"].reshape(324, -1).astype(np.float64)
    centred = patches[0] - patches[0].mean(axis=(1, 2), keepdims=True)
    every = fit_rcf_bank.pieces(centred / patches[0].std(axis=(1, 2), keepdims=True))
    variances, directions = np.linalg.eigh(every.T @ every / len(every))
    zca = directions @ np.diag((variances + 1e-3) ** -0.5) @ directions.T
    expected = every @ zca @ zca.T
    order = np.random.default_rng(0).choice(324, 324, replace=False)
    np.testing.assert_allclose(weight, expected[order], rtol=2e-3, atol=0.1)
