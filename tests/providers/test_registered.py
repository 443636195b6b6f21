"""A collection and a unit that the library does not know, by public names only, with every backend."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from earth import CLOUD_SCORE, ask, earth_engine, expected
from gee_server import EarthEngineServer, default_world
from stac_asking import stac

import rs_embed
from rs_embed import Band, Collection, Limit, LocalRasters, SensorSpec, StacCollection, Unit, get_embedding
from rs_embed.core.bands import convert, unit_named
from rs_embed.embedders.card import BandStats
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import SpecError, UnitMismatch
from rs_embed.providers.arrays import ArrayProvider
from rs_embed.providers.base import Query
from rs_embed.providers.cached import CachedProvider
from rs_embed.testing import FieldProvider

PERCENT = Unit("percent", (Limit(-5, 150),), quantity="reflectance", factor=0.01)
PLANET = Collection(
    "PLANET/PSSCENE",
    bands=(
        Band("red", Unit.REFLECTANCE, gsd_m=3, scale=1e-4, aliases=("r1",)),
        Band("nir", PERCENT, gsd_m=3, scale=1e-2),
    ),
)
RADIANCE = Unit("radiance_w_m2_sr_um", (Limit(0, 800),))
rng = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def known():
    rs_embed.register_collection(PLANET, replace=True)


def test_a_registered_collection_is_a_sensor_and_another_is_told_how_to_become_one():
    assert SensorSpec("PLANET/PSSCENE", ("red",), scale_m=3).collection == "PLANET/PSSCENE"
    with pytest.raises(SpecError, match="no band 'blue'"):
        SensorSpec("PLANET/PSSCENE", ("blue",))
    with pytest.raises(SpecError) as caught:
        SensorSpec("PLANET/PSCENE", ("red",))
    assert "'PLANET/PSSCENE'?" in caught.value.fix and "register_collection" in caught.value.fix


def test_an_id_means_one_collection_and_those_of_the_library_are_not_for_users_to_change():
    rs_embed.register_collection(PLANET)  # the same again
    other = replace(PLANET, bands=PLANET.bands[:1])
    with pytest.raises(SpecError, match="a different collection"):
        rs_embed.register_collection(other)
    with pytest.raises(SpecError, match="an id that the library does not use"):
        rs_embed.register_collection(replace(PLANET, id="COPERNICUS/S1_GRD"), replace=True)
    with pytest.raises(SpecError, match="a different unit of that name"):
        rs_embed.register_unit(replace(PERCENT, factor=0.1))
    with pytest.raises(SpecError, match="red twice"):
        Collection("ME/MINE", (Band("red", Unit.DN, 3), Band("RED", Unit.DN, 3)))


def test_arrays_and_files_are_in_its_units_or_say_in_which(make_raster):
    sensor, stored = SensorSpec("PLANET/PSSCENE", ("red", "nir"), scale_m=10), rng.uniform(0, 0.5, (2, 8, 8))
    query = Query("M", sensor, None, None)
    stored[1] *= 100
    from_array = ArrayProvider({"M": stored}).fetch(query)
    np.testing.assert_array_equal(from_array.values[0], stored.astype(np.float32))
    path = make_raster((100 * stored).astype(np.float32), bands=("R1", "nir"))
    sensor = SensorSpec("PLANET/PSSCENE", ("red",), scale_m=10)
    chip = LocalRasters(path, unit="percent").fetch(Query("M", sensor, None, None))
    np.testing.assert_allclose(chip.values[0, 0], stored[0], rtol=1e-6)
    assert chip.bands == PLANET.bands[:1]


def test_values_beyond_the_limits_of_its_unit_are_refused():
    query = Query("M", SensorSpec("PLANET/PSSCENE", ("nir",)), None, None)
    with pytest.raises(UnitMismatch, match="Expected values in percent, got too many outside of -5 to 150"):
        ArrayProvider({"M": np.full((1, 8, 8), 3000)}).fetch(query)


def test_units_of_one_quantity_are_converted_into_each_other():
    values = np.float32([50, np.nan])
    np.testing.assert_array_equal(convert(values, PERCENT, Unit.DN), np.float32([5000, np.nan]))
    np.testing.assert_array_equal(convert(values, PERCENT, Unit.REFLECTANCE), np.float32([0.5, np.nan]))
    celsius = Unit("celsius", quantity="kelvin", offset=273.15)
    np.testing.assert_array_equal(convert(values, celsius, Unit.KELVIN), np.float32([323.15, np.nan]))
    np.testing.assert_allclose(convert(np.float32([323.15]), Unit.KELVIN, celsius), [50], atol=1e-4)
    with pytest.raises(UnitMismatch):
        convert(values, RADIANCE, Unit.REFLECTANCE)


def test_features_have_no_range_but_vectors_of_unit_length_do():
    free, unit_length = (
        Collection(f"TEST/{unit.name}", (Band("F0", unit, 10), Band("F1", unit, 10)))
        for unit in (Unit.FEATURE, Unit.COMPONENT)
    )
    vectors = rng.normal(0, 40, (2, 8, 8)).astype(np.float32)
    vectors[:, 0, 0] = 0  # a vector like any other, where its length is free
    for one in (free, unit_length):
        rs_embed.register_collection(one)
    query = Query("M", SensorSpec("TEST/feature", ("F0", "F1")), None, None)
    np.testing.assert_array_equal(ArrayProvider({"M": vectors}).fetch(query).values[0], vectors)
    with pytest.raises(UnitMismatch, match="beyond -1 to 1"):
        ArrayProvider({"M": vectors}).fetch(replace(query, sensor=SensorSpec("TEST/component", ("F0", "F1"))))


def test_earth_engine_is_asked_for_its_id_and_its_stored_values_are_scaled():
    clear = Unit("clear_share", (Limit(0, 100),))
    rs_embed.register_collection(
        Collection(CLOUD_SCORE, (Band("cs", clear, 10, scale=50, offset=7), Band("cs_cdf", clear, 10)))
    )
    query = ask("toulouse", ("cs", "cs_cdf"), collection=CLOUD_SCORE)
    with EarthEngineServer(default_world()) as server:
        chip = earth_engine(server).fetch(query)
        stored = expected(server.world, query)
    np.testing.assert_allclose(chip.values[0], [stored[0] * 50 + 7, stored[1]], rtol=1e-5)
    assert chip.bands[0].unit is unit_named("clear_share")


def test_a_catalogue_says_where_it_has_it_and_the_collection_how_it_is_stored(stac_server):
    site = stac_server.site("earth-search", applied=True)
    mine = StacCollection("sentinel-2-l2a", {"red": "red"}, nodata=0, cloud_property="eo:cloud_cover")
    site.catalog = replace(site.catalog, mapping={"PLANET/PSSCENE": mine})
    query = ask("toulouse", ("B4",))
    chip = stac(site).fetch(replace(query, sensor=SensorSpec("PLANET/PSSCENE", ("red",))))
    np.testing.assert_allclose(chip.values[0], expected(default_world(), query) * 1e-4, rtol=1e-6)


def test_a_model_is_fed_with_it():
    card, bands = get_card("mosaiks_rcf"), tuple(f"p{i}" for i in range(12))
    rs_embed.register_collection(Collection("TEST/TWELVE", tuple(Band(band, RADIANCE, 3) for band in bands)))
    stats = {band: BandStats(band, RADIANCE, 100, 50) for band in bands}
    sensor = SensorSpec("TEST/TWELVE", bands, fill_value="mean")
    mine = replace(card, id="mine", aliases=(), modalities=(replace(card.modalities[0], sensor=sensor, stats=stats),))
    emb = get_embedding(mine, input_chw=rng.uniform(0, 300, (12, 64, 64)))
    assert emb.data.shape == (1024,) and emb.meta.inputs[0].units == ("radiance_w_m2_sr_um",) * 12


def test_a_sensor_takes_its_collection_to_another_process():
    sensor = SensorSpec("PLANET/PSSCENE", ("red", "nir"))
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).facts()['registered'])"
    found = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(sensor), capture_output=True, check=True)
    assert found.stdout.decode().strip() == repr(PLANET) and pickle.loads(pickle.dumps(Unit.DN)) is Unit.DN


def test_chips_are_kept_for_the_collection_as_it_was(tmp_path):
    pixels = FieldProvider(lambda lon, lat, band: 0.1 + 0 * lon)
    query = replace(ask("toulouse", ("B4",)), sensor=SensorSpec("PLANET/PSSCENE", ("red",)))
    for collection in (PLANET, PLANET, replace(PLANET, bands=(replace(PLANET.bands[0], scale=2e-4), PLANET.bands[1]))):
        rs_embed.register_collection(collection, replace=True)
        CachedProvider(pixels, tmp_path, 1.0).fetch(query)
    assert len(pixels.queries) == 2
