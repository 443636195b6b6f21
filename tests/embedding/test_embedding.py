"""An embedding tells where it comes from, and shows itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from rs_embed import Embedding, OutputSpec, PointBuffer, SensorSpec, TemporalSpec, get_embedding, get_embeddings
from rs_embed.embedding.plot import pca_rgb
from rs_embed.errors import BatchError, OutsideCoverage, RSEmbedError, StorageError
from rs_embed.testing import FieldProvider, hills

PLACE = PointBuffer(lon=-72.5, lat=-38.8, buffer_m=400)


@pytest.fixture(scope="module")
def grid() -> Embedding:
    return get_embedding(
        "mosaiks_rcf", PLACE, TemporalSpec.year(2020), OutputSpec.grid(), backend=FieldProvider(), patch_size=16
    )


@pytest.fixture(scope="module")
def vector() -> Embedding:
    return get_embedding("mosaiks_rcf", PLACE, TemporalSpec.year(2020), backend=FieldProvider())


def test_xarray_has_the_share_of_valid_pixels_beside_the_values(grid):
    array = grid.to_xarray()
    assert array.valid_fraction.dims == ("y", "x")
    np.testing.assert_array_equal(array.where(array.valid_fraction >= 0.5), grid.data)


def test_metadata_that_do_not_tell_of_tokens_on_nodata_are_still_read(vector):
    told = json.loads(vector.meta.model_dump_json())
    assert told.pop("nodata_tokens") == 0
    assert type(vector.meta).model_validate(told).nodata_tokens is None


def test_the_call_can_be_made_again_from_the_metadata_alone(tmp_path):
    sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B4", "B3"), 20, 50, "mosaic", "mean", cloud_mask="scl")
    asked = {"pretrained": False, "sensor": sensor, "input_prep": "tile", "patch_size": 8}
    first = get_embedding("thor_1_0_tiny", PLACE, TemporalSpec.year(2020), backend=FieldProvider(), **asked)
    meta = Embedding.load(first.save(tmp_path / "a.npz")).meta
    told = meta.inputs[0]
    again = SensorSpec(
        told.collection, told.bands, told.scale_m, told.cloudy_pct, told.composite, told.fill_value,
        orbit_pass=told.orbit_pass, cloud_mask=told.cloud_mask,
    )  # fmt: skip
    words = {"PointBuffer": PointBuffer, "TemporalSpec": TemporalSpec}
    place, window = (eval(text, words) for text in (meta.spatial, meta.temporal))
    second = get_embedding(
        meta.model_id, place, window, OutputSpec(meta.output), backend=FieldProvider(), sensor=again,
        input_prep=meta.input_prep, **meta.knobs,
    )  # fmt: skip
    assert second.meta.fingerprint == first.meta.fingerprint
    np.testing.assert_array_equal(second.data, first.data)


@pytest.mark.filterwarnings("ignore:More than 5% of the values of s1")  # the hills are no decibels
def test_radar_says_its_mode_and_pass_and_optical_imagery_has_none():
    radar = SensorSpec("COPERNICUS/S1_GRD", ("VV",), fill_value="mean", orbit_pass="DESCENDING")
    ground = FieldProvider(lambda lon, lat, band: hills(lon, lat, band) / (-200 if band == "VV" else 1))  # -2 to -19 dB
    both = get_embedding(
        "thor_1_0_tiny", PLACE, TemporalSpec.year(2020), backend=ground, modality="s2+s1",
        sensor={"s1": radar}, pretrained=False, input_prep="tile",
    )  # fmt: skip
    assert [(one.instrument_mode, one.orbit_pass) for one in both.meta.inputs] == [(None, None), ("IW", "DESCENDING")]


def test_an_embedding_without_a_place_keeps_working(tmp_path):
    pixels = np.random.default_rng(0).uniform(200, 4000, (12, 64, 96)).astype(np.float32)
    grid = get_embedding("mosaiks_rcf", input_chw=pixels, output=OutputSpec.grid())
    assert grid.geobox is None
    assert "x" not in grid.to_xarray().coords
    np.testing.assert_array_equal(Embedding.load(grid.save(tmp_path / "a.nc")).data, grid.data)
    with pytest.raises(StorageError, match="without a place"):
        grid.save(tmp_path / "a.tif")
    placed = get_embedding("mosaiks_rcf", PointBuffer(12.9, 47.7, 320), input_chw=pixels[:, :, :64])
    assert placed.geobox.shape == (64, 64)


@pytest.mark.slow
def test_pictures_are_written_and_say_what_they_show(grid, vector, tmp_path: Path):
    for embedding, name in ((grid, "grid.png"), (vector, "vector.png")):
        figure = embedding.plot(tmp_path / name)
        assert "mosaiks_rcf" in figure.axes[0].get_title()
        assert imread(tmp_path / name).std() > 0.01
    with pytest.raises(StorageError, match="nowhere"):
        grid.plot(tmp_path / "nowhere" / "grid.png")


def test_equal_grids_have_equal_colours_and_nodata_is_transparent(grid):
    colours = pca_rgb(grid.data)
    assert colours.shape == (*grid.data.shape[1:], 4)
    assert (colours[..., 3] == 1).all()
    assert 0 <= colours.min() < colours.max() <= 1
    holed = grid.data.copy()
    holed[:, 0, 0] = np.nan
    assert pca_rgb(holed)[0, 0, 3] == 0 and (pca_rgb(holed)[..., 3] == 1).sum() == colours[..., 3].size - 1
    assert pca_rgb(grid.data[:1]).shape == colours.shape, "fewer than three channels"
    np.testing.assert_array_equal(colours, pca_rgb(grid.data.copy()))


def test_a_batch_loses_nothing_when_items_fail():
    places = [PointBuffer(12.939, 47.768, 300), PointBuffer(0, 0, 300), PointBuffer(12.94, 47.77, 300)]
    with pytest.raises(BatchError, match="1 of 3 items failed") as caught:
        get_embeddings("mosaiks_rcf", places, backend="sample")
    done, (failure,) = caught.value.embeddings, caught.value.failures
    assert [embedding is None for embedding in done] == [False, True, False]
    assert (failure.index, failure.stage) == (1, "fetch")
    assert isinstance(failure.error, OutsideCoverage)
    assert "item 1 at fetch" in str(caught.value)


def test_errors_travel_between_processes_whole():
    import pickle

    error = OutsideCoverage("Expected a, got b.", fix="do c", place="there", nothing=None)
    again: RSEmbedError = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "Expected a, got b.\n  place: there\n  fix:   do c"
    assert type(again) is OutsideCoverage


def test_the_number_of_clear_observations_travels_with_the_embedding(grid, tmp_path):
    class Counted(FieldProvider):
        def fetch(self, query):
            chip = super().fetch(query)
            return replace(chip, source=replace(chip.source, clear_observations=3.5))

    (unknown,) = grid.meta.inputs
    assert unknown.clear_observations is None
    counted = get_embedding("mosaiks_rcf", PLACE, TemporalSpec.year(2020), backend=Counted())
    (known,) = Embedding.load(counted.save(tmp_path / "v.npz")).meta.inputs
    assert known.clear_observations == 3.5
