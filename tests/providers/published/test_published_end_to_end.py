"""From a call of the library to a public store and back: every way in which embeddings are asked for."""

import io
import json
import subprocess
import sys
import warnings
from multiprocessing import get_context

import numpy as np
import pytest
import xarray as xr
from accounts import key_file
from command_line import invoke
from published_stores import (
    STEP,
    TOP,
    dequantised,
    fill_zone,
    mosaic,
    mosaic_pixel,
    paint,
    tessera,
    unit_vectors,
    zone,
    zone_pixel,
)
from rich.console import Console

from rs_embed import (
    BBox,
    OutputSpec,
    PointBuffer,
    TemporalSpec,
    embed_region,
    export_embeddings,
    geobox_for,
    get_embedding,
    get_embeddings,
    inspect_chip,
    plan_embedding,
)
from rs_embed.cli.doctor import run_doctor
from rs_embed.core.geo import pixel_centres
from rs_embed.errors import NotConfigured, SpecError, UnitMismatch
from rs_embed.providers import open_provider
from rs_embed.providers.earthengine.provider import EarthEngine
from rs_embed.providers.published.provider import PublishedEmbeddings

pytestmark = pytest.mark.slow

HERE = PointBuffer(lon=12.94, lat=47.77, buffer_m=150)
THERE = PointBuffer(lon=12.945, lat=47.772, buffer_m=150)
YEAR, GRID = TemporalSpec.year(2022), OutputSpec.grid()
ROW, COL = mosaic_pixel(HERE.lon, HERE.lat)
ROWS, COLS = slice(ROW - 120, ROW + 120), slice(COL - 150, COL + 200)
TOP_ROW, LEFT_COL = zone_pixel(33, HERE.lon, HERE.lat)
ZONE_ROWS, ZONE_COLS = slice(TOP_ROW - 100, TOP_ROW + 100), slice(LEFT_COL - 100, LEFT_COL + 100)


@pytest.fixture(scope="module")
def stored(world):
    """What both stores hold around the places: AlphaEarth as bytes, TESSERA as values."""
    array = mosaic(world.folder / "aef-mosaic")
    vectors = paint(array, 2022, ROWS, COLS, unit_vectors)
    group = zone(tessera(world.folder / "v1.1-dclimate"), 33)
    return vectors, fill_zone(group, 2022, ZONE_ROWS, ZONE_COLS)


@pytest.fixture
def stores(world, stored, monkeypatch, tmp_path):
    """Addresses by variables, on a machine on which nobody has ever set up Earth Engine."""
    for name in ("HOME", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("RS_EMBED_PUBLISHED_ALPHAEARTH", f"{world.url}/aef-mosaic/")
    monkeypatch.setenv("RS_EMBED_PUBLISHED_TESSERA", f"{world.url}/v1.1-dclimate")
    world.asked.clear()
    world.faults.clear()
    return world


def alphaearth(geobox, stored) -> np.ndarray:
    lon, lat = pixel_centres(geobox)
    rows, cols = ((TOP - lat) // STEP).astype(int) - ROWS.start, ((lon + 180) // STEP).astype(int) - COLS.start
    return dequantised(stored[0][:, rows, cols])


@pytest.mark.filterwarnings("ignore::rs_embed.errors.PixelWarning")
def test_alphaearth_needs_no_account_and_says_where_it_comes_from(stores, stored):
    grid = get_embedding("alphaearth_v1", HERE, YEAR, GRID)
    np.testing.assert_array_equal(grid.data, alphaearth(geobox_for(HERE), stored))
    (given,) = grid.meta.inputs
    assert given.provider == "published"
    assert given.notes[0] == "backend='auto' took the public store: Earth Engine is not set up."
    assert grid.meta.licence.startswith("CC-BY-4.0: ") and "Google and Google DeepMind" in grid.meta.licence
    vector = get_embedding("gse", HERE, YEAR, backend="published").data
    mean = grid.data.reshape(64, -1).astype(float).mean(axis=1)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_tessera_works_at_once_and_names_its_variant(stores, stored):
    grid = get_embedding("tessera_v1_1", HERE, YEAR, GRID)
    box = geobox_for(HERE)
    row, col = zone_pixel(33, *(float(one[0, 0]) for one in pixel_centres(box)))
    row, col = row - ZONE_ROWS.start, col - ZONE_COLS.start
    np.testing.assert_array_equal(grid.data, stored[1][:, row : row + 30, col : col + 30])
    assert (grid.meta.model_key, grid.meta.weights) == (
        "tessera/v1.1-dclimate", "precomputed:TESSERA/V1_1_DCLIMATE/ANNUAL",
    )  # fmt: skip
    assert grid.meta.licence.startswith("CC-BY-4.0: ") and "2506.20380" in grid.meta.licence
    vector = get_embedding("tessera", HERE, YEAR)
    np.testing.assert_allclose(vector.data, grid.data.reshape(128, -1).mean(axis=1), rtol=1e-5)
    assert vector.meta.pooling == "patch_mean"


def test_where_earth_engine_is_set_up_alphaearth_asks_it(stores, monkeypatch, tmp_path):
    monkeypatch.setenv("RS_EMBED_GEE_SERVICE_ACCOUNT", str(key_file(tmp_path, "http://127.0.0.1:9")))
    assert open_provider("gee-or-published").name == "gee"
    assert open_provider("gee-or-published").identity() == EarthEngine().identity()
    assert stores.asked == []


def test_many_places_are_as_one(stores):
    places = [HERE, THERE, HERE]
    for model in ("alphaearth_v1", "tessera_v1_1"):
        batch = get_embeddings(model, places, YEAR, progress=False)
        for place, one in zip(places, batch, strict=True):
            np.testing.assert_array_equal(one.data, get_embedding(model, place, YEAR).data)
    both = get_embeddings(["alphaearth_v1", "tessera_v1_1"], [HERE], YEAR, backend="published", progress=False)
    assert {model: one[0].data.shape for model, one in both.items()} == {"alphaearth_v1": (64,), "tessera_v1_1": (128,)}


@pytest.mark.alone
def test_a_forked_worker_reads_with_connections_and_memory_of_its_own(stores, stored):
    backend = PublishedEmbeddings()
    here = get_embedding("tessera_v1_1", HERE, YEAR, backend=backend).data
    before = len(stores.asked)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # that is what is tried
        with get_context("fork").Pool(1) as pool:
            there = pool.apply_async(_vector, (backend,)).get(60)
    np.testing.assert_allclose(there, here, rtol=1e-6)
    assert len(stores.asked) == 2 * before  # the server is a thread of this process


def _vector(backend: PublishedEmbeddings) -> np.ndarray:
    return get_embedding("tessera_v1_1", HERE, YEAR, backend=backend).data


def test_neighbouring_places_can_share_reads(stores, tmp_path):
    places = [(HERE.lon + 0.001 * i, HERE.lat) for i in range(3)]
    options = {"buffer_m": 60, "temporal": YEAR, "progress": False, "dtype": "float32"}
    report = export_embeddings("tessera_v1_1", places, tmp_path / "run", share_reads=True, **options)
    assert (report.ok, report.failed) == (3, 0)
    alone = [get_embedding("tessera_v1_1", place, YEAR, buffer_m=60).data for place in places]
    np.testing.assert_allclose(report.open().matrix(), alone, rtol=1e-6)


def test_an_export_and_its_dry_run(stores, tmp_path):
    options = {"buffer_m": 100, "temporal": YEAR, "backend": "published", "progress": False}
    call = (["alphaearth_v1", "tessera_v1_1"], [(HERE.lon, HERE.lat), (THERE.lon, THERE.lat)], tmp_path / "run")
    dry = export_embeddings(*call, dry_run=True, **options)
    assert "4 chips via published" in str(dry) and "kB" in str(dry)
    assert stores.asked == []
    report = export_embeddings(*call, **options)
    assert (report.ok, report.failed) == (4, 0)
    again = export_embeddings(*call, **options)
    assert again.ok == 4


@pytest.mark.parametrize("model", ["alphaearth_v1", "tessera_v1_1"])
def test_a_region_is_one_map_of_the_same_pixels(stores, tmp_path, model):
    box = geobox_for(HERE)
    west, south, east, north = box.boundingbox.bbox
    region = BBox(west, south, east, north, crs="EPSG:32633")
    report = embed_region(model, region, YEAR, tmp_path / "map", block_cells=16, progress=False)
    assert report.failed == 0
    asked = [(one.path, one.span) for one in stores.asked]
    assert len(asked) == len(set(asked))  # blocks share what was read
    (path,) = (tmp_path / "map").glob("*/map.zarr")
    found = xr.open_zarr(path, consolidated=False, chunks=None)
    inside = found.embedding.sel(x=slice(west, east), y=slice(north, south)).values
    np.testing.assert_array_equal(inside.squeeze(), get_embedding(model, HERE, YEAR, GRID).data)


def test_the_command_line_and_what_it_lists(stores, tmp_path):
    out = tmp_path / "grid.npz"
    done = invoke(
        "embed", "tessera_v1_1", "--lon", HERE.lon, "--lat", HERE.lat, "--buffer", 100, "--year", 2022,
        "--output", "grid", "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert out.is_file()
    assert "tessera_v1_1" in invoke("models").output
    assert "published" in invoke("describe", "tessera_v1_1").output


def test_the_doctor_reads_the_metadata_and_tells_what_it_found(stores, monkeypatch):
    def doctor() -> tuple[int, dict]:
        console = Console(file=io.StringIO(), width=200, markup=False)
        code = run_doctor(console, as_json=True, stac=None, earth_engine=EarthEngine)
        report = json.loads(console.file.getvalue())
        return code, {check["name"]: check for check in report["checks"]} | {"settings": report["settings"]}

    code, found = doctor()
    check = found["published embeddings"]
    assert check["ok"] and "1,859,584 x 4,009,984 px, 9 years" in check["found"] and "UTM zones" in check["found"]
    assert len(stores.data) == 0
    assert "RS_EMBED_PUBLISHED_CACHE_MB" in {one["variable"] for one in found["settings"]}
    stores.fail("aef-mosaic/zarr.json", 403)
    code, found = doctor()
    assert code == 1 and "403" in found["published embeddings"]["found"]


def test_a_plan_asks_nobody_and_a_chip_can_be_looked_at(stores):
    plan = plan_embedding("tessera_v1_1", HERE, YEAR)
    assert "TESSERA/V1_1_DCLIMATE/ANNUAL" in str(plan) and "30 x 30 px" in str(plan)
    assert stores.asked == []
    assert "TESSERA" in str(inspect_chip("tessera_v1_1", HERE, YEAR))
    with pytest.raises(SpecError, match="finished calendar year, 2017 or later"):
        plan_embedding("tessera_v1_1", HERE, TemporalSpec.range("2022-03-01", "2022-09-01"))


def test_a_fingerprint_tells_products_variants_and_copies_apart(stores, monkeypatch):
    one = get_embedding("tessera_v1_1", HERE, YEAR).meta.fingerprint
    assert one == get_embedding("tessera_v1_1", HERE, YEAR, backend=PublishedEmbeddings()).meta.fingerprint
    assert one != get_embedding("tessera_v1_1", HERE, YEAR, backend=PublishedEmbeddings(
        alphaearth=f"{stores.url}/another")).meta.fingerprint  # fmt: skip
    monkeypatch.delenv("RS_EMBED_PUBLISHED_ALPHAEARTH")
    monkeypatch.delenv("RS_EMBED_PUBLISHED_TESSERA")
    assert PublishedEmbeddings().identity() == "published:1"


def test_vectors_that_do_not_have_length_1_are_refused(stores, world):
    array = mosaic(world.folder / "wrong")
    paint(array, 2022, ROWS, COLS)
    with pytest.raises(UnitMismatch, match="Expected vectors of length 1"):
        get_embedding("gse", HERE, YEAR, backend=PublishedEmbeddings(alphaearth=f"{world.url}/wrong"))


@pytest.mark.slow
def test_without_the_extra_the_message_names_it_and_importing_loads_no_codec(stores):
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numcodecs" else find(name, *rest)
import rs_embed
from rs_embed.errors import MissingDependency, NotConfigured
from rs_embed.providers import open_provider
for backend, kind in (("published", MissingDependency), ("gee-or-published", NotConfigured)):
    try:
        open_provider(backend)
    except kind as error:
        print(error)
assert not {"numcodecs", "zarr"} & set(sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.count("pip install 'eo-rs-embed[export]'") == 3
    assert issubclass(NotConfigured, Exception)
