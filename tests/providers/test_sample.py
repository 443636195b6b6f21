import json
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from asking import L1C, S1, S1_FLOAT, S2, ask

from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import PointBuffer, SensorSpec, TemporalSpec
from rs_embed.embedders.cards.thor import S2_BANDS_12 as S2_BANDS
from rs_embed.errors import OutsideCoverage, SensorNotOffered
from rs_embed.providers.base import Query
from rs_embed.providers.sample import _EXAMPLE, _FOLDER, _RASTERS, SampleScene


@pytest.mark.parametrize(
    ("collection", "bands", "scale", "file"),
    [(S2, S2_BANDS, 1.0, "s2_l2a_12band_10m.tif"), (S1, ("VV", "VH"), 0.01, "s1_vv_vh_10m.tif")],
)
def test_without_a_place_the_whole_scene_comes_as_it_is_stored(collection, bands, scale, file):
    chip = SampleScene().fetch(ask(bands, collection=collection))
    with rasterio.open(_FOLDER / file) as dataset:
        np.testing.assert_allclose(chip.values[0], dataset.read() * scale, rtol=1e-5)
    assert chip.valid_fraction == 1
    assert chip.shape_px == (360, 240)
    assert chip.source.provider == "sample"
    assert chip.source.notes == ()


def test_dates_ids_and_offset_are_those_of_the_record_beside_the_files():
    record = json.loads((_FOLDER / "scene.json").read_text())
    for layer, (collection, raster) in zip(record["layers"], _RASTERS.items(), strict=True):
        chip = SampleScene().fetch(ask(tuple(layer["bands"]), collection=collection))
        assert raster.path.name == layer["file"]
        assert chip.times == chip.source.scene_times == (datetime.fromisoformat(layer["datetime"]),)
        assert chip.source.scene_ids == tuple(layer["scene_ids"])
        assert chip.source.offset_applied == (0.0 if collection == S2 else None)


def test_any_window_is_answered_and_a_note_says_when_the_date_is_another():
    inside = SampleScene().fetch(ask(window=TemporalSpec.range("2017-06-13", "2017-06-14")))
    outside = SampleScene().fetch(ask(window=TemporalSpec.year(2022)))
    assert inside.source.notes == ()
    assert "2017-06-13, outside of 2022-01-01" in outside.source.notes[0]
    assert outside.times == inside.times == (datetime(2017, 6, 13, 10, 10, 31, tzinfo=UTC),)


def test_the_example_in_the_message_works():
    place = eval(_EXAMPLE)  # what a user would paste
    chip = SampleScene().fetch(ask(geobox=geobox_for(place)))
    assert chip.shape_px == (200, 200)
    assert chip.valid_fraction == 1


def test_elsewhere_is_outside_with_bounds_centre_and_an_example():
    with pytest.raises(OutsideCoverage, match="sample scene") as caught:
        SampleScene().fetch(ask(geobox=geobox_for(PointBuffer(13.4, 52.5, 500))))
    text = str(caught.value)
    for part in ("lon 12.92", "centre:", _EXAMPLE):
        assert part in text


def test_a_place_over_the_edge_is_filled_with_nodata():
    chip = SampleScene().fetch(ask(geobox=geobox_for(PointBuffer(12.9394, 47.7682, 2560))))
    assert chip.shape_px == (512, 512)
    assert chip.valid_fraction == pytest.approx(240 * 360 / 512**2)


@pytest.mark.parametrize("collection", [L1C, S1_FLOAT])
def test_other_collections_are_not_offered(collection):
    bands = ("VV",) if collection == S1_FLOAT else ("B2",)
    for call in (SampleScene().fetch, SampleScene().native_geobox):
        with pytest.raises(SensorNotOffered, match="has: COPERNICUS/S2_SR_HARMONIZED, COPERNICUS/S1_GRD"):
            call(ask(bands, collection=collection))


def test_a_band_it_lacks_is_not_offered():
    with pytest.raises(SensorNotOffered, match="HH"):
        SampleScene().fetch(ask(("HH",), collection=S1))


def test_the_identity_is_of_the_bytes_and_the_same_every_time():
    assert SampleScene().identity() == SampleScene().identity()
    assert SampleScene().identity().startswith("sample:")


def test_the_native_grid_is_the_scenes_own():
    native = SampleScene().native_geobox(ask(window=TemporalSpec.year(2022)))
    assert (native.crs.epsg, native.shape, native.affine.c, native.affine.f) == (32633, (360, 240), 344400, 5294400)


def test_another_radar_mode_is_not_answered_with_what_there_is():
    sensor = SensorSpec("COPERNICUS/S1_GRD", ("VV", "VH"), instrument_mode="EW")
    with pytest.raises(SensorNotOffered, match="mode EW, ascending; the sample scene is in mode IW"):
        SampleScene().fetch(Query("s1_ew", sensor, None, None))


def test_the_other_orbit_pass_is_not_answered_with_what_there_is():
    sensor = SensorSpec("COPERNICUS/S1_GRD", ("VV", "VH"), orbit_pass="DESCENDING")
    with pytest.raises(SensorNotOffered, match="descending; the sample scene is in mode IW, ascending"):
        SampleScene().fetch(Query("s1_des", sensor, None, None))
    chip = SampleScene().fetch(
        Query("s1", SensorSpec("COPERNICUS/S1_GRD", ("VV", "VH"), orbit_pass="ASCENDING"), None, None)
    )
    assert not any("orbit" in note for note in chip.source.notes)
