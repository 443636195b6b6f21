"""A model of the user's own imagery: of arrays, chips, files and backends; by card and by file, here and elsewhere."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import safetensors
import safetensors.numpy
from earth import earth_engine
from gee_server import EarthEngineServer, default_world
from rasterio.transform import from_origin
from shared_data import terramesh

import rs_embed
from rs_embed import (
    Band,
    Collection,
    LocalRasters,
    OutputSpec,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    Unit,
    describe_model,
    export_embeddings,
    fit_mosaiks,
    get_embedding,
    inspect_chip,
    load_mosaiks,
    register_model,
)
from rs_embed.embedders import catalog
from rs_embed.errors import (
    BandMismatch,
    InputError,
    NoImagery,
    NoValidPixels,
    SpecError,
    UnitMismatch,
    WeightsCorrupt,
    WeightsMismatch,
    WeightsNotFound,
)
from rs_embed.exports.status import retry_export
from rs_embed.testing import FieldProvider, pixel_centres

PLANET = Collection(
    "PLANET/PSSCENE",
    tuple(Band(name, Unit.REFLECTANCE, 3, aliases=(name[0],)) for name in ("blue", "green", "red", "nir")),
)
PS = ("blue", "green", "red", "nir")
S2_RGB = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B4", "B3", "B2"))


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    """Models that a test registers are gone after it."""
    monkeypatch.setattr(catalog, "_REGISTERED", {})


def scene(seed: int, side: int = 64, count: int = 4) -> np.ndarray:
    """Reflectances with some texture, float32 `[band, side, side]`."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.uniform(0.02, 0.4, (count, side // 8, side // 8)), np.ones((8, 8)))
    return (coarse + rng.normal(0, 0.01, coarse.shape).clip(-0.02, 0.1)).astype(np.float32)


@pytest.fixture
def planet(tmp_path) -> SensorSpec:
    """Three GeoTIFFs of 3 m whose bands have no names, with a corner of nodata; and the sensor."""
    rs_embed.register_collection(PLANET)
    for index in range(3):
        values = scene(index)
        values[:, :8, :8] = -9999
        profile = {"driver": "GTiff", "count": 4, "height": 64, "width": 64, "dtype": "float32", "nodata": -9999}
        place = {"crs": "EPSG:32633", "transform": from_origin(500_000 + 300 * index, 5_300_000, 3, 3)}
        with rasterio.open(tmp_path / f"ps{index}.tif", "w", **profile, **place) as raster:
            raster.write(values)
            raster.descriptions = PS
            raster.units = ("reflectance",) * 4
    return SensorSpec("PLANET/PSSCENE", PS, scale_m=3)


@pytest.fixture
def drone() -> SensorSpec:
    rs_embed.register_collection(Collection("MY/DRONE", tuple(Band(name, Unit.BYTE, 0.05) for name in "RGB")))
    return SensorSpec("MY/DRONE", ("R", "G", "B"), scale_m=0.05)


def pictures(count: int = 3) -> list[np.ndarray]:
    return [(scene(seed, count=3) * 250).clip(1, 255).astype(np.uint8) for seed in range(count)]


def said(path: Path) -> dict:
    with safetensors.safe_open(path, "numpy") as bank:
        return json.loads(bank.metadata()["rs_embed_bank"])["bank"]


def test_a_bank_of_planetscope_files_is_a_model_by_its_card_and_by_its_path(planet, tmp_path):
    out = tmp_path / "planet.safetensors"
    card = fit_mosaiks(str(tmp_path / "ps*.tif"), planet, out, filters=32)
    raster = str(tmp_path / "ps1.tif")
    by_card, by_path = (get_embedding(model, backend=raster, output=OutputSpec.grid()) for model in (card, str(out)))
    np.testing.assert_array_equal(by_card.data, by_path.data)
    assert by_card.meta.fingerprint == by_path.meta.fingerprint
    assert by_path.data.shape == (64, 8, 8) and by_path.meta.model_id == "planet"
    assert by_path.geobox.resolution.x == 24
    assert by_path.meta.weights.endswith(f"#sha256:{card.weights.sha256}")
    assert np.isnan(by_path.data[:, 0, 0]).all()  # wholly on nodata
    assert describe_model(str(out))["modalities"][0]["bands"] == list(PS)


def test_a_bank_says_what_it_is_made_of_and_for(planet, tmp_path):
    out = tmp_path / "planet.safetensors"
    card = fit_mosaiks(str(tmp_path / "ps*.tif"), planet, out, filters=32, seed=5, name="mine")
    facts = said(out)
    assert (facts["name"], facts["seed"], facts["filters"], facts["chips"]) == ("mine", 5, 32, 3)
    assert facts["sensor"]["collection"] == "PLANET/PSSCENE" and facts["sensor"]["scale_m"] == 3
    assert facts["units"] == ["reflectance"] * 4 and tuple(facts["sensor"]["bands"]) == PS
    assert facts["pixels"] == 3 * (64 * 64 - 64)  # nodata is no pixel
    assert facts["pieces"] == 3 * (62 * 62 - 64)  # and no piece holds any
    every = np.concatenate(
        [scene(index).reshape(4, -1)[:, np.setdiff1d(np.arange(4096), CORNER)] for index in range(3)], 1
    )
    stats = card.modalities[0].stats
    np.testing.assert_allclose([stats[name].mean for name in PS], every.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose([stats[name].std for name in PS], every.std(axis=1), rtol=1e-5)


CORNER = (np.arange(8)[:, None] * 64 + np.arange(8)).ravel()


def test_the_same_imagery_and_seed_give_the_same_bytes(planet, tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, seed in zip(files, (1, 1, 2), strict=True):
        fit_mosaiks(str(tmp_path / "ps*.tif"), planet, path, filters=32, seed=seed, name="x")
    one, again, other = (path.read_bytes() for path in files)
    assert one == again != other


def test_arrays_of_a_drone_and_chips_make_banks_too(drone, tmp_path):
    card = fit_mosaiks(pictures(), drone, tmp_path / "drone.safetensors", filters=16)
    assert get_embedding(card, input_chw=pictures(1)[0]).data.shape == (32,)
    chips = [
        inspect_chip(card, input_chw=picture).chips["image"] for picture in pictures()
    ]  # what another tool may hold already
    twin = fit_mosaiks(chips, drone, tmp_path / "twin.safetensors", filters=16)
    assert twin.modalities == card.modalities
    one, other = (safetensors.numpy.load_file(tmp_path / f"{name}.safetensors") for name in ("drone", "twin"))
    np.testing.assert_array_equal(one["weight"], other["weight"])


def test_arrays_in_another_unit_are_converted_as_they_are_said(planet, tmp_path):
    percent = [100 * scene(seed) for seed in range(2)]
    rs_embed.register_unit(Unit("percent_of_light", quantity="reflectance", factor=0.01))
    card = fit_mosaiks(percent, planet, tmp_path / "a.safetensors", unit="percent_of_light", filters=16)
    plain = fit_mosaiks([scene(seed) for seed in range(2)], planet, tmp_path / "b.safetensors", filters=16)
    for name in PS:
        assert card.modalities[0].stats[name].mean == pytest.approx(plain.modalities[0].stats[name].mean, rel=1e-5)


@pytest.mark.slow
def test_landsat_by_earth_engine_is_fetched_as_for_any_model(tmp_path):
    landsat = SensorSpec("LANDSAT/LC09/C02/T1_L2", ("SR_B2", "SR_B3", "SR_B4", "SR_B5"), scale_m=30, cloudy_pct=100)
    places = [PointBuffer(1.44, 43.60, 960), PointBuffer(1.47, 43.62, 960)]
    with EarthEngineServer(default_world()) as server:
        provider = earth_engine(server)
        days = TemporalSpec.year(2022)
        card = fit_mosaiks(
            provider, landsat, tmp_path / "landsat.safetensors", places=places, temporal=days, filters=16
        )
        vector = get_embedding(card, places[0], days, backend=provider)
    assert vector.data.shape == (32,)
    assert said(tmp_path / "landsat.safetensors")["chips"] == 2


@pytest.mark.slow
def test_l1c_scenes_of_terramesh_make_a_bank_of_thirteen_bands(tmp_path):
    paths = terramesh("S2L1C")
    names = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
    l1c = SensorSpec("COPERNICUS/S2_HARMONIZED", names)
    offsets = (0, -1000)
    rasters = [LocalRasters(path, bands=names, unit="dn", offset=by) for path, by in zip(paths, offsets, strict=True)]
    card = fit_mosaiks(rasters, l1c, tmp_path / "l1c.safetensors", filters=64)
    grid = get_embedding(card, backend=rasters[1], output=OutputSpec.grid())
    assert grid.data.shape == (128, 28, 28)


@pytest.mark.slow
def test_of_much_ground_squares_are_read_as_the_seed_says(tmp_path):
    field = FieldProvider()
    fit_mosaiks(field, S2_RGB, tmp_path / "a.safetensors", places=[PointBuffer(12, 47, 5000)], temporal=YEAR, filters=8)
    again = FieldProvider()
    fit_mosaiks(again, S2_RGB, tmp_path / "b.safetensors", places=[PointBuffer(12, 47, 5000)], temporal=YEAR, filters=8)
    boxes = [str(query.geobox) for query in field.queries]
    assert len(set(boxes)) == 32 and {tuple(query.geobox.shape) for query in field.queries} == {(256, 256)}
    assert sorted(boxes) == sorted(str(query.geobox) for query in again.queries)


YEAR = TemporalSpec.year(2022)


class Sparse(FieldProvider):
    """Has imagery of some of the places only."""

    def fetch(self, query):
        if pixel_centres(query.geobox)[0].max() > self.beyond:
            raise NoImagery("Expected imagery, got none.", fix="elsewhere")
        return super().fetch(query)


def test_places_without_imagery_are_left_out_and_none_at_all_is_an_error(tmp_path):
    places = [PointBuffer(12 + index / 10, 47, 320) for index in range(5)]
    some, none = Sparse(), Sparse()
    some.beyond, none.beyond = 12.25, 0
    fit_mosaiks(some, S2_RGB, tmp_path / "a.safetensors", places=places, temporal=YEAR, filters=8)
    assert said(tmp_path / "a.safetensors")["chips"] == 3
    with pytest.raises(NoImagery):
        fit_mosaiks(none, S2_RGB, tmp_path / "b.safetensors", places=places, temporal=YEAR, filters=8)
    assert not (tmp_path / "b.safetensors").exists()


def test_a_registered_bank_has_a_short_name(tmp_path):
    fit_mosaiks("sample", S2_RGB, tmp_path / "rgb.safetensors", filters=8)
    register_model(load_mosaiks(tmp_path / "rgb.safetensors"))
    assert get_embedding("rgb", backend="sample").data.shape == (16,)


@pytest.mark.slow
def test_another_process_needs_the_file_alone(planet, tmp_path):
    out = tmp_path / "planet.safetensors"
    card = fit_mosaiks(str(tmp_path / "ps*.tif"), planet, out, filters=16)
    code = (
        "import sys, numpy; from rs_embed import get_embedding, SensorSpec\n"
        "numpy.save(sys.argv[3], get_embedding(sys.argv[1], backend=sys.argv[2]).data)\n"
        "SensorSpec('PLANET/PSSCENE', ('nir',), 3)"
    )
    arguments = [str(out), str(tmp_path / "ps0.tif"), str(tmp_path / "there.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    here = get_embedding(card, backend=str(tmp_path / "ps0.tif"))
    np.testing.assert_array_equal(np.load(tmp_path / "there.npy"), here.data)


@pytest.mark.slow
def test_an_export_by_path_is_retried_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit_mosaiks("sample", S2_RGB, "rgb.safetensors", filters=8)
    places = [PointBuffer(12.94, 47.77, 200), PointBuffer(0, 0, 200)]
    report = export_embeddings("rgb.safetensors", places, "run", backend="sample", progress=False)
    assert (report.ok, report.failed) == (1, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = retry_export(tmp_path / "run", progress=False)
    assert (again.ok, again.failed) == (1, 1)
    assert (tmp_path / "run/rgb/units").is_dir()


@pytest.mark.parametrize("cut", [0, 100, 3000])
def test_a_truncated_bank_is_refused(cut, tmp_path):
    out = tmp_path / "rgb.safetensors"
    fit_mosaiks("sample", S2_RGB, out, filters=32)
    out.write_bytes(out.read_bytes()[:cut])
    with pytest.raises(WeightsCorrupt) as caught:
        get_embedding(str(out), backend="sample")
    assert "fit_mosaiks" in caught.value.fix


def test_a_changed_bank_is_refused_before_and_after_its_card_was_made(tmp_path):
    out = tmp_path / "rgb.safetensors"
    card = fit_mosaiks("sample", S2_RGB, out, filters=32)
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    with pytest.raises(WeightsCorrupt, match="not a readable filter bank"):
        load_mosaiks(out)
    with pytest.raises(WeightsCorrupt, match="not the file that its card describes"):
        get_embedding(card, backend="sample")


def test_a_foreign_file_and_a_missing_one_are_refused(tmp_path):
    safetensors.numpy.save_file({"encoder.weight": np.ones(3, np.float32)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsMismatch) as caught:
        get_embedding(str(tmp_path / "foreign.safetensors"), backend="sample")
    assert caught.value.facts["tensors"] == "encoder.weight"
    with pytest.raises(WeightsNotFound):
        get_embedding(str(tmp_path / "none.safetensors"), backend="sample")


def test_a_bank_refuses_other_bands_and_another_pixel_size(tmp_path):
    card = fit_mosaiks("sample", S2_RGB, tmp_path / "rgb.safetensors", filters=8)
    with pytest.raises(BandMismatch):
        get_embedding(card, backend="sample", bands=["B3", "B4", "B2"])
    with pytest.raises(BandMismatch):
        get_embedding(card, input_chw=np.full((4, 32, 32), 900))
    with pytest.raises(SpecError, match="10 m per pixel for .*, got 20"):
        get_embedding(card, backend="sample", sensor=replace(S2_RGB, scale_m=20, fill_value="mean"))
    with pytest.raises(SpecError, match="takes no COPERNICUS/S1_GRD"):
        get_embedding(card, backend="sample", sensor=SensorSpec("COPERNICUS/S1_GRD", ("VV",)))


def test_a_bank_whose_collection_is_registered_in_other_units_is_refused(planet, tmp_path):
    fit_mosaiks(str(tmp_path / "ps*.tif"), planet, tmp_path / "planet.safetensors", filters=8)
    rs_embed.register_collection(
        Collection("PLANET/PSSCENE", tuple(Band(name, Unit.DN, 3) for name in PS)), replace=True
    )
    with pytest.raises(SpecError) as caught:
        load_mosaiks(tmp_path / "planet.safetensors")
    assert "dn" in caught.value.facts["registered"]


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        pytest.param([np.full((4, 64, 64), np.nan)], NoValidPixels, id="nodata"),
        pytest.param([scene(0)[:, :5, :5]], InputError, id="too few pieces"),
        pytest.param([scene(0)[:, :2, :2]], InputError, id="smaller than a piece"),
        pytest.param([scene(0)[:3]], BandMismatch, id="a band too few"),
        pytest.param([scene(0), 10_000 * scene(1)], UnitMismatch, id="mixed units"),
        pytest.param([scene(0) * [[[1]], [[0]], [[1]], [[1]]] + 0.1], InputError, id="constant"),
    ],
)
def test_imagery_that_makes_no_bank_is_refused(arrays, error, planet, tmp_path):
    with pytest.raises(error) as caught:
        fit_mosaiks(arrays, planet, tmp_path / "a.safetensors", filters=64)
    assert caught.value.fix
    assert not (tmp_path / "a.safetensors").exists()


def test_pictures_are_not_mixed_with_reflectances(tmp_path):
    with pytest.raises(UnitMismatch, match="in dn, got byte"):
        fit_mosaiks(pictures(), S2_RGB, tmp_path / "a.safetensors", filters=8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"out": "bank.npz"},
        {"out": "missing/bank.safetensors"},
        {"out": 3},
        {"sensor": "S2"},
        {"imagery": []},
        {"imagery": "nothing"},
        {"filters": 0},
        {"seed": -1},
        {"name": "../x"},
        {"unit": "dn"},
        {"imagery": [scene(0)], "places": [PointBuffer(12, 47, 100)]},
        {"temporal": "2022"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"imagery": "sample", "sensor": S2_RGB, "out": "bank.safetensors", "filters": 8, **wrong}
    with pytest.raises(SpecError) as caught:
        fit_mosaiks(**options)
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []
