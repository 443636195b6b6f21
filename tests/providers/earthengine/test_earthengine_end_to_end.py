"""From a call of the library to Earth Engine and back; the doctor; and, if asked for, the real service."""

import json

import numpy as np
import pytest
from earth import S2, SUMMER, earth_engine, routes
from gee_server import PLACES, EarthEngineServer, default_world, faults
from rich.console import Console
from typer.testing import CliRunner

from rs_embed import EarthEngine, OutputSpec, PointBuffer, SensorSpec, get_embedding, get_embeddings, inspect_chip
from rs_embed.cli.doctor import run_doctor
from rs_embed.cli.main import app
from rs_embed.core.geo import geobox_for
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import NoImagery, NotConfigured, OutsideCoverage
from rs_embed.providers.base import Query

LON, LAT = PLACES["toulouse"]


@pytest.fixture
def server():
    with EarthEngineServer(default_world()) as server:
        yield server


def test_one_place_is_embedded_from_earth_engine(server):
    backend = earth_engine(server)
    where = PointBuffer(LON, LAT, 640)
    embedding = get_embedding("mosaiks_rcf", where, SUMMER, OutputSpec.grid(), backend)
    assert np.isfinite(embedding.data).all()
    assert embedding.geobox.boundingbox == geobox_for(where).boundingbox
    (source,) = embedding.meta.inputs
    assert source.provider == "gee" and source.collection == S2 and len(source.scene_ids) > 2
    assert routes(server) == ["value", "pixels"]
    again = get_embedding("mosaiks_rcf", where, SUMMER, OutputSpec.grid(), backend)
    np.testing.assert_array_equal(again.data, embedding.data)


@pytest.mark.slow
def test_many_places_are_fetched_by_several_threads_and_equal_the_single_calls(server):
    backend = earth_engine(server, concurrency=4)
    places = [PointBuffer(LON + 0.002 * i, LAT, 320) for i in range(12)]
    many = get_embeddings("mosaiks_rcf", places, SUMMER, backend=backend, progress=False)
    assert len(server.pixel_requests) == 12 and 1 < server.high_water <= 4
    one = get_embedding("mosaiks_rcf", places[5], SUMMER, backend=backend)
    np.testing.assert_array_equal(many[5].data, one.data)


def test_a_report_of_another_sensor_says_where_it_is_from(server):
    report = inspect_chip("thor", PointBuffer(LON, LAT, 320), SUMMER, earth_engine(server), modality="s1")
    assert "COPERNICUS/S1_GRD via gee" in str(report)


def test_a_place_without_imagery_is_one_error_and_no_pixels_are_asked_for(server):
    nowhere = PointBuffer(-150.0, 0.0, 320)
    with pytest.raises(OutsideCoverage):
        get_embedding("mosaiks_rcf", nowhere, SUMMER, backend=earth_engine(server))
    with pytest.raises(NoImagery):
        get_embedding("mosaiks_rcf", PointBuffer(LON, LAT, 320), TemporalSpec.year(2010), backend=earth_engine(server))
    assert "pixels" not in routes(server)


def test_the_identity_tells_what_decides_the_pixels_and_not_who_asks():
    assert EarthEngine("one").identity() == EarthEngine("other", host="standard", concurrency=3).identity()
    assert EarthEngine().identity() != EarthEngine(resampling="bilinear").identity()
    assert EarthEngine().identity() != EarthEngine(cloud_score=0.5).identity()


def examined(make) -> tuple[int, dict]:
    console = Console(record=True, width=200)
    with console.capture() as captured:
        code = run_doctor(console, as_json=True, earth_engine=make, stac=None, published=None)
    return code, json.loads(captured.get())


def test_the_doctor_finds_an_account_that_works(server):
    code, found = examined(lambda: earth_engine(server))
    assert (code, found["ok"]) == (0, True)
    names = [check["name"] for check in found["checks"]]
    assert names[-2:] == ["Earth Engine account", "Earth Engine request, one pixel"]
    assert {row["variable"] for row in found["settings"]} >= {"RS_EMBED_GEE_PROJECT", "RS_EMBED_GEE_QPS"}
    assert routes(server) == ["pixels"]


def test_the_doctor_says_what_the_service_refuses_and_what_to_do(server):
    server.faults.append(faults.not_registered())
    code, found = examined(lambda: earth_engine(server))
    last = found["checks"][-1]
    assert code == 1 and not found["ok"] and not last["ok"]
    assert "is not registered to use Earth Engine" in last["found"] and "register" in last["fix"]


def test_the_doctor_finds_no_fault_in_an_account_that_nobody_set_up(monkeypatch, tmp_path):
    def make() -> EarthEngine:
        raise NotConfigured("Expected credentials, got none.", fix="run this")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    code, found = examined(make)
    last = found["checks"][-1]
    assert (code, found["ok"]) == (0, True)
    assert (last["ok"], last["set_up"], last["fix"]) == (True, False, "run this")
    assert last["found"] == "not set up. Expected credentials, got none."
    monkeypatch.setenv("RS_EMBED_GEE_PROJECT", "mine")  # begun, and not finished
    code, found = examined(make)
    assert code == 1 and not found["checks"][-1]["ok"]


def test_the_command_lists_the_knobs_in_force(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RS_EMBED_GEE_HOST", "ftp://nowhere")
    monkeypatch.setenv("RS_EMBED_GEE_QPS", "12.5")
    monkeypatch.setenv("RS_EMBED_STAC_CATALOG", "nowhere")
    answer = CliRunner().invoke(app, ["doctor"])
    assert answer.exit_code == 1
    assert "Expected an Earth Engine host, got 'ftp://nowhere'." in answer.output
    assert "Expected a STAC catalogue, got 'nowhere'." in answer.output
    assert "RS_EMBED_GEE_QPS" in answer.output and "12.5" in answer.output


@pytest.mark.network
@pytest.mark.parametrize(
    ("collection", "bands"),
    [
        (S2, ("B2", "B11", "B1")),
        ("COPERNICUS/S1_GRD", ("VV", "VH")),
        ("COPERNICUS/DEM/GLO30", ("DEM",)),
        ("COPERNICUS/S3/OLCI", ("Oa08_reflectance",)),
    ],
)
def test_the_real_service_answers(collection, bands, request):
    """Maintainers: `pytest -m network tests/providers` with credentials that name a project; 7 small requests."""
    if "network" not in request.config.getoption("markexpr"):
        pytest.skip("not asked for: -m network")
    provider = EarthEngine()
    try:
        provider.require("M", SensorSpec(collection, bands))
    except NotConfigured as error:
        pytest.skip(error.headline)
    scale_m = 240 if "S3" in collection else 10
    place = geobox_for(PointBuffer(12.94, 47.77, 32 * scale_m), scale_m)
    sensor = SensorSpec(collection, bands, scale_m)
    chip = provider.fetch(Query("M", sensor, place, TemporalSpec.range("2022-06-01", "2022-08-01")))
    assert chip.values.shape == (1, len(bands), 64, 64)
    assert chip.valid_fraction > 0.9
