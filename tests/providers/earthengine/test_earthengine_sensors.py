"""Each collection in the unit that models are given, and what makes it so."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from earth import S1, S1_FLOAT, ask, earth_engine, expected, frames_of, pixels_of, routes, scenes_of
from gee_server import EarthEngineServer, default_world

from rs_embed import SensorSpec
from rs_embed.core.bands import COLLECTIONS, Unit
from rs_embed.core.specs import Series, TemporalSpec
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import OutsideCoverage, SensorNotOffered, SpecError, UnitMismatch
from rs_embed.providers.common.composite import composite
from rs_embed.providers.earthengine.archives import ARCHIVES, OLCI_SOLAR_FLUX
from rs_embed.providers.earthengine.expressions import cos_sun
from rs_embed.providers.earthengine.pixels import in_units

SPRING = TemporalSpec.range("2022-04-01", "2022-05-01")


@pytest.fixture(scope="module")
def server():
    with EarthEngineServer(default_world()) as server:
        yield server


@pytest.fixture
def provider(server):
    server.reset()
    return earth_engine(server)


def db(power):
    return 10 * np.log10(power)


@pytest.mark.parametrize("how", ["median", "mean"])
def test_radar_is_averaged_as_power_and_given_in_decibels(server, provider, how):
    query = ask(bands=("VV", "VH"), collection=S1, composite=how, window=SPRING)
    frames = frames_of(server.world, query)
    assert len(frames) > 2
    chip = provider.fetch(query)
    power = composite([(10 ** (frame.astype(float) / 10)).astype(np.float32) for frame in frames], how)
    np.testing.assert_allclose(chip.values[0], db(power), atol=2e-3)
    assert {band.unit for band in chip.bands} == {Unit.DB}
    assert any("linear power" in note for note in chip.source.notes)


@pytest.mark.parametrize("how", ["first", "mosaic"])
def test_a_single_radar_scene_is_given_as_it_is_stored(server, provider, how):
    query = ask(bands=("VV",), collection=S1, composite=how, window=SPRING)
    chip = provider.fetch(query)
    on_top = scenes_of(server.world, query)[-1]
    np.testing.assert_allclose(chip.values[0], pixels_of(on_top, ("VV",), query.geobox), rtol=1e-6)


def test_linear_radar_stays_linear(server, provider):
    query = ask(bands=("VV", "VH"), collection=S1_FLOAT, window=SPRING)
    chip = provider.fetch(query)
    np.testing.assert_allclose(chip.values[0], expected(server.world, query), rtol=1e-5)
    assert {band.unit for band in chip.bands} == {Unit.POWER}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"orbit_pass": "ASCENDING"}, {"instrumentMode": "IW", "orbitProperties_pass": "ASCENDING"}),
        ({"orbit_pass": "DESCENDING"}, {"instrumentMode": "IW", "orbitProperties_pass": "DESCENDING"}),
        ({"instrument_mode": "EW"}, {"instrumentMode": "EW"}),
    ],
)
@pytest.mark.slow
def test_radar_scenes_are_chosen_by_mode_polarisation_and_pass(server, provider, asked, wanted):
    query = ask(bands=("VV", "VH"), collection=S1, window=TemporalSpec.year(2022), **asked)
    chip = provider.fetch(query)
    scenes = scenes_of(server.world, query)
    assert chip.source.scene_ids == tuple(scene.index for scene in scenes)
    assert all(scene.properties[name] == value for scene in scenes for name, value in wanted.items())
    assert all("VV" in scene.properties["transmitterReceiverPolarisation"] for scene in scenes)
    np.testing.assert_allclose(chip.source.clear_observations, len(scenes))


def test_mixed_passes_are_noted_and_other_polarisations_can_be_had(server, provider):
    both = provider.fetch(ask(bands=("VV",), collection=S1, window=TemporalSpec.year(2022)))
    assert any("orbit_pass" in note for note in both.source.notes)
    cross = provider.fetch(ask(bands=("HH", "HV"), collection=S1, window=TemporalSpec.year(2022)))
    assert all("1SH" in scene_id for scene_id in cross.source.scene_ids)


@pytest.mark.parametrize("place", ["toulouse", "far_north", "south"])
def test_heights_are_interpolated_in_metres_whatever_the_days(server, provider, place):
    query = ask(place, bands=("DEM",), collection="COPERNICUS/DEM/GLO30", scale_m=30, side_m=1920)
    chip = provider.fetch(query)
    assert routes(server) == ["pixels"]
    near = composite(
        [pixels_of(scene, ("DEM",), query.geobox) for scene in scenes_of(server.world, anyday(query))], "mean"
    )
    assert chip.bands[0].unit is Unit.METRE
    assert chip.valid_fraction == 1
    assert np.corrcoef(chip.values[0].ravel(), near.ravel())[0, 1] > 0.99
    assert not np.array_equal(chip.values[0], near)
    assert "the window was not used" in chip.source.notes[0]
    np.testing.assert_array_equal(provider.fetch(anyday(query, None)).values, chip.values)


def anyday(query, window=TemporalSpec.range("1990-01-01", "2030-01-01")):
    return type(query)(query.modality, query.sensor, query.geobox, window)


def test_landsat_at_the_top_of_the_atmosphere_comes_as_anysat_takes_it(server, provider):
    modality = get_card("anysat").modality("l8")
    query = ask(  # at 20 m, where no pixel has its middle on an edge of the 30 m ones
        bands=modality.sensor.bands, collection=modality.sensor.collection, scale_m=20, window=TemporalSpec.year(2022)
    )
    chip = provider.fetch(query)
    wanted = expected(server.world, query)
    np.testing.assert_allclose(chip.values[0, 1:], wanted[1:], rtol=1e-5, atol=1e-5)
    assert chip.band_names[0] == "B8"  # of 15 m: every third row is a tie
    assert np.corrcoef(chip.values[0, 0].ravel(), wanted[0].ravel())[0, 1] > 0.99
    assert {(band.name, str(band.unit)) for band in chip.bands if band.name in ("B8", "B11")} == {
        ("B8", "reflectance"),
        ("B11", "kelvin"),
    }


def test_olci_integers_that_were_never_scaled_are_refused():
    sensor = SensorSpec("COPERNICUS/S3/OLCI", ("Oa01_reflectance",), scale_m=240)
    clipped = np.full((1, 4, 4), 2, np.float32)
    with pytest.raises(UnitMismatch, match="a hundred times as high"):
        in_units(clipped, sensor, ARCHIVES[sensor.collection])


def test_olci_radiances_become_reflectances_by_the_sun_of_each_scene(server, provider):
    bands = ("Oa01_reflectance", "Oa08_reflectance", "Oa21_reflectance")
    query = ask(bands=bands, collection="COPERNICUS/S3/OLCI", scale_m=240, side_m=4800, window=SPRING, composite="mean")
    provider = earth_engine(server, resampling="nearest", provenance=False)
    chip = provider.fetch(query)
    frames = []
    lon, lat = 1.4437, 43.6047
    for scene in scenes_of(server.world, query):
        radiance = pixels_of(scene, [band.replace("reflectance", "radiance") for band in bands], query.geobox)
        flux = np.array([OLCI_SOLAR_FLUX[i] for i in (0, 7, 20)])[:, None, None]
        frames.append((math.pi * radiance / (flux * cos_sun(lon, lat, scene.when))).astype(np.float32))
    np.testing.assert_allclose(chip.values[0], composite(frames, "mean"), rtol=2e-3)
    assert np.nanmin(chip.values) >= 0 and np.nanmax(chip.values) <= 2
    assert {band.unit for band in chip.bands} == {Unit.REFLECTANCE}


@pytest.mark.parametrize(
    ("when", "lon", "lat", "zenith_deg"),
    [
        (datetime(2022, 3, 20, 12, 7, tzinfo=UTC), 0.0, 0.0, 0.0),
        (datetime(2022, 6, 21, 12, 2, tzinfo=UTC), 0.0, 23.44, 0.0),
        (datetime(2022, 12, 21, 11, 58, tzinfo=UTC), 0.0, 60.0, 83.44),
        (datetime(2022, 3, 20, 18, 7, tzinfo=UTC), 0.0, 0.0, 90.0),
    ],
)
def test_the_sun_stands_where_almanacs_have_it(when, lon, lat, zenith_deg):
    assert math.degrees(math.acos(min(1.0, cos_sun(lon, lat, when)))) == pytest.approx(zenith_deg, abs=0.5)


@pytest.mark.parametrize("collection", ["LANDSAT/LC08/C02/T1_L2", "LANDSAT/LC09/C02/T1_L2"])
def test_landsat_is_reflectance_and_kelvin(server, provider, collection):
    query = ask(bands=("SR_B4", "ST_B10"), collection=collection, scale_m=20, window=TemporalSpec.year(2022))
    stored = expected(server.world, query)
    wanted = np.stack([stored[0] * 2.75e-5 - 0.2, stored[1] * 0.00341802 + 149])
    chip = provider.fetch(query)
    np.testing.assert_allclose(chip.values[0], wanted, atol=2e-3)
    assert [band.unit for band in chip.bands] == [Unit.REFLECTANCE, Unit.KELVIN]


@pytest.mark.parametrize("collection", ["LANDSAT/LC08/C02/T1", "LANDSAT/LC09/C02/T1"])
def test_landsat_of_level_1_is_as_delivered(server, provider, collection):
    query = ask(bands=("B4", "B10"), collection=collection, scale_m=20, window=TemporalSpec.year(2022))
    chip = provider.fetch(query)
    np.testing.assert_allclose(chip.values[0], expected(server.world, query), atol=0.5)
    assert {band.unit for band in chip.bands} == {Unit.LANDSAT_L1_DN}


def test_naip_is_bytes(server, provider):
    query = ask("iowa", bands=("R", "G", "B", "N"), collection="USDA/NAIP/DOQQ", scale_m=1, side_m=64,
                window=TemporalSpec.year(2021))  # fmt: skip
    chip = provider.fetch(query)
    np.testing.assert_array_equal(chip.values[0], expected(server.world, query))
    assert chip.bands[0].unit is Unit.BYTE


def test_land_cover_is_codes_and_never_averaged_nor_interpolated(server):
    provider = earth_engine(server, resampling="bilinear")
    query = ask(bands=("Map",), collection="ESA/WorldCover/v200", composite="mean", window=None)
    chip = provider.fetch(query)
    assert set(np.unique(chip.values)) <= {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100}
    assert chip.bands[0].unit is Unit.CLASS


@pytest.mark.parametrize("collection", ["COPERNICUS/S2_SR", "COPERNICUS/S2"])
def test_unharmonised_sentinel_2_is_refused_with_its_harmonised_twin(collection):
    with pytest.raises(SpecError, match="1000 higher") as caught:
        SensorSpec(collection, ("B2",))
    assert f"{collection}_HARMONIZED" in caught.value.fix


@pytest.mark.parametrize(
    ("collection", "band", "word"),
    [("COPERNICUS/S1_RTC", "VV", "S1_GRD"), ("COPERNICUS/S3/SLSTR", "S1_reflectance_an", "backend=<path>")],
)
def test_what_earth_engine_lacks_is_said_before_anything_is_asked(server, provider, collection, band, word):
    with pytest.raises(SensorNotOffered) as caught:
        provider.require("M", SensorSpec(collection, (band,)))
    assert word in caught.value.fix
    assert server.requests == []


@pytest.mark.parametrize(
    ("collection", "mask"), [(S1, "scl"), ("COPERNICUS/S2_HARMONIZED", "scl"), ("LANDSAT/LC08/C02/T1_L2", "cs+")]
)
def test_a_mask_that_a_collection_does_not_have_is_refused(collection, mask):
    band = {S1: "VV", "COPERNICUS/S2_HARMONIZED": "B2"}.get(collection, "SR_B2")
    with pytest.raises(SpecError, match="cloud_mask"):
        SensorSpec(collection, (band,), cloud_mask=mask)


def test_every_archive_names_every_band_of_its_collection():
    for collection, archive in ARCHIVES.items():
        assert set(archive.bands) == set(COLLECTIONS[collection])


def test_heights_of_srtm_are_one_image_interpolated_whatever_the_days(server, provider):
    query = ask(bands=("elevation",), collection="USGS/SRTMGL1_003", side_m=1920)
    chip = provider.fetch(query)
    (near,) = (pixels_of(scene, ("elevation",), query.geobox) for scene in scenes_of(server.world, anyday(query)))
    assert chip.bands[0].unit is Unit.METRE
    assert chip.valid_fraction == 1
    assert len(np.unique(chip.values)) > 4 * len(np.unique(near))
    assert np.corrcoef(chip.values[0].ravel(), near.ravel())[0, 1] > 0.99
    with pytest.raises(OutsideCoverage, match="SRTM"):
        provider.fetch(ask("far_north", bands=("elevation",), collection="USGS/SRTMGL1_003"))


@pytest.mark.parametrize(
    ("collection", "bands", "unit"),
    [
        ("ECMWF/ERA5_LAND/MONTHLY_AGGR", ("temperature_2m",), Unit.KELVIN),
        ("ECMWF/ERA5_LAND/MONTHLY_AGGR", ("total_precipitation_sum",), Unit.WATER_METRE),
        ("IDAHO_EPSCOR/TERRACLIMATE", ("def", "soil", "aet"), Unit.WATER_TENTH_MM),
        ("NOAA/VIIRS/DNB/MONTHLY_V1/VCMCFG", ("avg_rad",), Unit.NW_CM2_SR),
    ],
)
def test_months_come_as_a_series_and_days_within_one_ask_for_the_whole(server, provider, collection, bands, unit):
    asked = {"bands": bands, "collection": collection, "series": Series(12, "month")}
    part = ask(window=TemporalSpec.range("2022-04-20", "2022-07-10"), **asked)
    whole = ask(window=TemporalSpec.range("2022-04-01", "2022-08-01"), **asked)
    chip = provider.fetch(part)
    assert [(time.month, time.day) for time in chip.times] == [(4, 20), (5, 1), (6, 1), (7, 1)]
    np.testing.assert_array_equal(chip.values, provider.fetch(whole).values)
    np.testing.assert_allclose(chip.values, frames_of(server.world, whole), rtol=1e-5)
    assert chip.bands[0].unit == unit
    one = provider.fetch(ask(bands=bands, collection=collection, window=TemporalSpec.range("2022-06-10", "2022-06-20")))
    np.testing.assert_array_equal(one.values[0], chip.values[2])


def test_probabilities_of_land_cover_are_averaged_over_its_maps(server, provider):
    bands = tuple(COLLECTIONS["GOOGLE/DYNAMICWORLD/V1"])
    query = ask(bands=bands, collection="GOOGLE/DYNAMICWORLD/V1", composite="mean", window=SPRING)
    assert len(frames_of(server.world, query)) > 2
    chip = provider.fetch(query)
    np.testing.assert_allclose(chip.values[0], expected(server.world, query), atol=1e-5)
    assert chip.bands[0].unit is Unit.PROBABILITY
