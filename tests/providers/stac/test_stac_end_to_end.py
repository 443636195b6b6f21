"""From a call of the library to a STAC catalogue and back; backend="auto"; the doctor; the real catalogues if asked."""

import json
import subprocess
import sys

import numpy as np
import pytest
from gee_server import PLACES, EarthEngineServer, default_world
from rich.console import Console
from stac_asking import QUICK, ask, expected, stac

from rs_embed import OutputSpec, PointBuffer, Stac, get_embedding, get_embeddings
from rs_embed.cli.doctor import run_doctor
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import KnobError, NotConfigured
from rs_embed.providers import open_provider
from rs_embed.providers.auto import Chosen

LON, LAT = PLACES["toulouse"]
DAYS = TemporalSpec.range("2022-06-01", "2022-06-14")


@pytest.fixture
def no_earth_engine(monkeypatch, tmp_path):
    """An environment in which nobody has ever authenticated."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)


@pytest.mark.slow
def test_one_place_is_embedded_from_a_catalogue_as_from_earth_engine(stac_server):
    from earth import earth_engine

    where = PointBuffer(LON, LAT, 320)
    ours = stac(stac_server.site("earth-search", applied=True))
    emb = get_embedding("mosaiks_rcf", where, DAYS, OutputSpec.grid(), ours)
    assert np.isfinite(emb.data).all()
    (source,) = emb.meta.inputs
    assert source.provider == "stac" and len(source.scene_ids) > 1
    with EarthEngineServer(default_world()) as server:
        theirs = get_embedding("mosaiks_rcf", where, DAYS, OutputSpec.grid(), earth_engine(server))
    np.testing.assert_allclose(emb.data, theirs.data, atol=2e-3 * theirs.data.max())  # medians in whole numbers there


@pytest.mark.slow
def test_many_places_equal_the_single_calls(stac_server):
    site = stac_server.site("earth-search", applied=True)
    backend = stac(site)
    places = [PointBuffer(LON + 0.0004 * i, LAT, 160) for i in range(4)]
    many = get_embeddings("mosaiks_rcf", places, DAYS, backend=backend, progress=False)
    assert site.count("search") == 1
    one = get_embedding("mosaiks_rcf", places[2], DAYS, backend=backend)
    np.testing.assert_array_equal(many[2].data, one.data)


def test_the_name_opens_the_preset_that_the_variable_names_and_asks_nothing(monkeypatch):
    assert open_provider("stac").identity().startswith("stac:1 earth-search ")
    monkeypatch.setenv("RS_EMBED_STAC_CATALOG", "planetary-computer")
    provider = open_provider("stac")
    assert isinstance(provider, Stac) and "planetary-computer" in provider.identity()
    with pytest.raises(NotConfigured, match="got 'elsewhere'"):
        Stac("elsewhere")
    monkeypatch.setenv("RS_EMBED_STAC_CONCURENCY", "2")
    with pytest.raises(KnobError, match="RS_EMBED_STAC_CONCURENCY"):
        Stac()


def test_who_names_no_backend_gets_stac_where_earth_engine_is_not_set_up(no_earth_engine, caplog):
    with caplog.at_level("INFO", "rs_embed.providers"):
        provider = open_provider("auto")
    assert isinstance(provider, Chosen) and provider.name == "stac"
    assert "took STAC (earth-search" in caplog.text and "Earth Engine is not set up" in caplog.text


def test_a_chip_says_who_chose_its_provider(stac_server):
    query = ask(window=TemporalSpec.range("2022-06-01", "2022-06-10"))
    provider = Chosen(stac(stac_server.site("earth-search", applied=True)), "backend='auto' took STAC.")
    chip = provider.fetch(query)
    assert chip.source.notes[0] == "backend='auto' took STAC."
    np.testing.assert_array_equal(chip.values[0], expected(default_world(), query))


def test_who_names_no_backend_gets_earth_engine_where_it_is_set_up(monkeypatch, tmp_path):
    from accounts import key_file

    monkeypatch.setenv("RS_EMBED_GEE_SERVICE_ACCOUNT", str(key_file(tmp_path, "http://127.0.0.1:9")))
    assert open_provider("auto").name == "gee"


@pytest.mark.slow
def test_without_the_extra_the_message_names_it_and_everything_else(no_earth_engine):
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pystac_client" else find(name, *rest)
from rs_embed.providers import open_provider
from rs_embed.errors import MissingDependency, NotConfigured
for backend, kind in (("stac", MissingDependency), ("auto", NotConfigured)):
    try:
        open_provider(backend)
    except kind as error:
        print(error)
assert "pystac_client" not in sys.modules
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.count("pip install 'eo-rs-embed[stac]'") == 2
    assert 'backend="sample"' in answer.stdout


def examined(make) -> tuple[int, list[dict]]:
    from rs_embed.providers.earthengine.provider import EarthEngine

    console = Console(record=True, width=200)
    with console.capture() as captured:
        code = run_doctor(console, as_json=True, earth_engine=EarthEngine, stac=make, published=None)
    return code, json.loads(captured.get())["checks"]


def test_the_doctor_asks_the_catalogue_one_thing(stac_server, no_earth_engine):
    site = stac_server.site("earth-search")
    _, checks = examined(lambda: stac(site))
    found = {check["name"]: check for check in checks}
    assert found["STAC catalogue"]["ok"] and found["STAC catalogue"]["found"] == "Loopback earth-search"
    assert site.count() == site.count("landing") == 1
    site.fail(routes=("landing",), status=503)
    code, checks = examined(lambda: stac(site, total_s=0.5))
    found = {check["name"]: check for check in checks}
    assert code == 1 and not found["STAC catalogue"]["ok"] and found["STAC catalogue"]["fix"]


@pytest.mark.network
@pytest.mark.parametrize("catalog", ["earth-search", "earth-search-c1", "planetary-computer"])
def test_the_real_catalogue_answers(catalog, request):
    """Maintainers: `pytest -m network tests/providers`; a few dozen small requests."""
    if "network" not in request.config.getoption("markexpr"):
        pytest.skip("not asked for: -m network")
    where = TemporalSpec.range("2023-06-01", "2023-06-20")
    chip = Stac(catalog, max_scenes=2, waits=QUICK).fetch(ask("toulouse", window=where))
    assert chip.values.shape == (1, 3, 64, 64) and chip.valid_fraction > 0.9
