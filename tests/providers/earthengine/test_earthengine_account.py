"""Whose credentials, which project, and never a prompt."""

import json
import logging
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
import warm
from accounts import key_file
from earth import QUICK, S2, ask, earth_engine
from gee_server import EarthEngineServer, World, default_world, no_way_out
from google.oauth2.credentials import Credentials

from rs_embed import EarthEngine, SensorSpec
from rs_embed.core.settings import describe_knobs
from rs_embed.errors import KnobError, NotConfigured
from rs_embed.providers.earthengine import client as _ee_client
from rs_embed.providers.earthengine.session import PROBE_S
from rs_embed.providers.earthengine.settings import EarthEngineSettings

SENSOR = SensorSpec(S2, ("B2",))
FIRST_ERROR = """
from rs_embed import PointBuffer, TemporalSpec, get_embedding
from rs_embed.errors import NotConfigured
try:
    get_embedding("mosaiks_rcf", PointBuffer(1.4, 43.6, 500), TemporalSpec.year(2022), backend="gee")
except NotConfigured as error:
    print(error)
"""


def in_an_empty_home(code: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG")}
    done = warm.run(code, env={**kept, "HOME": str(home), **variables})
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_without_credentials_the_first_error_says_soon_what_to_run(tmp_path):
    code = """
import time
from rs_embed import EarthEngine, SensorSpec
from rs_embed.errors import NotConfigured
sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B2",))
started = time.perf_counter()
try:
    EarthEngine(project="x").require("M", sensor)
except NotConfigured as error:
    print(error)
print(time.perf_counter() - started)
"""
    *said, seconds = in_an_empty_home(code, tmp_path).stdout.splitlines()
    assert "earthengine authenticate" in "\n".join(said)
    assert "RS_EMBED_GEE_SERVICE_ACCOUNT" in "\n".join(said)
    assert float(seconds) < 60  # under a second here; who asks a metadata server that is none waits for minutes


@pytest.mark.slow
def test_a_call_without_credentials_ends_before_weights_are_loaded(tmp_path):
    answer = in_an_empty_home(FIRST_ERROR, tmp_path, RS_EMBED_GEE_PROJECT="x")
    assert "Expected credentials for Earth Engine, got none." in answer.stdout


def test_settings_are_keyword_then_variable_then_default(monkeypatch):
    monkeypatch.setenv("RS_EMBED_GEE_CONCURRENCY", "7")
    monkeypatch.setenv("RS_EMBED_GEE_HOST", "standard")
    assert EarthEngine()._settings.concurrency == 7
    assert EarthEngine()._account.url == "https://earthengine.googleapis.com"
    assert EarthEngine(concurrency=3, host="highvolume")._account.url.startswith("https://earthengine-highvolume")
    assert EarthEngine(concurrency=3)._settings.concurrency == 3


@pytest.mark.parametrize(
    ("name", "value", "word"), [("CONCURRENCY", "none", "CONCURRENCY"), ("PROJEKT", "x", "RS_EMBED_GEE_PROJECT")]
)
def test_a_bad_or_misspelt_variable_is_refused(monkeypatch, name, value, word):
    monkeypatch.setenv(f"RS_EMBED_GEE_{name}", value)
    with pytest.raises(KnobError, match=word):
        EarthEngine()


def test_variables_of_models_do_not_disturb_a_provider_built_by_itself(tmp_path):
    code = "from rs_embed import EarthEngine; print(EarthEngine().name)"
    assert in_an_empty_home(code, tmp_path, RS_EMBED_THOR_IMG="96").stdout == "gee\n"


def test_a_host_is_a_name_or_a_url():
    with pytest.raises(NotConfigured, match="highvolume"):
        EarthEngine(host="earthengine")


@pytest.fixture
def guarded():
    """A server that wants a token."""
    with EarthEngineServer(default_world(), token=True) as server, no_way_out(server):
        yield server


def test_a_service_account_names_its_project_and_fetches(guarded, tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_GEE_SERVICE_ACCOUNT", str(key_file(tmp_path, f"{guarded.url}/token")))
    provider = EarthEngine(host=guarded.url, waits=QUICK)
    provider.require("M", SENSOR)
    assert "project of-the-key, service account robot@of-the-key" in provider.account()
    assert provider.fetch(ask(bands=("B2",))).source.scene_ids
    assert all("projects/of-the-key/" in request.path for request in guarded.data_requests)


def test_a_token_that_has_run_out_is_renewed_once(guarded, tmp_path):
    provider = EarthEngine(host=guarded.url, waits=QUICK, service_account=key_file(tmp_path, f"{guarded.url}/token"))
    provider.fetch(ask(bands=("B2",)))
    guarded.expire_tokens()
    guarded.requests.clear()
    provider.fetch(ask(bands=("B3",)))
    assert [(one.route, one.status) for one in guarded.requests] == [("pixels", 401), ("token", 200), ("pixels", 200)]


def test_a_key_that_cannot_be_read_is_said_with_where_to_get_one(tmp_path):
    (tmp_path / "key.json").write_text("{}")
    for name in ("key.json", "missing.json"):
        with pytest.raises(
            NotConfigured, match="Expected Google credentials in .* a file that cannot be read"
        ) as caught:
            EarthEngine(service_account=tmp_path / name).require("M", SENSOR)
        assert "JSON key" in caught.value.fix


def test_credentials_may_be_given_and_name_the_project_unless_one_is_given():
    given = Credentials("token", quota_project_id="of-the-token")
    assert "project of-the-token, credentials of a user" in EarthEngine(credentials=given).account()
    assert "project mine," in EarthEngine("mine", credentials=given).account()
    with pytest.raises(NotConfigured, match="Expected a Cloud project") as caught:
        EarthEngine(credentials=Credentials("token")).account()
    assert "RS_EMBED_GEE_PROJECT" in caught.value.fix


@pytest.mark.slow
def test_the_client_s_stored_token_is_found(tmp_path):
    folder = tmp_path / ".config" / "earthengine"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text(json.dumps({"refresh_token": "secret", "project": "stored"}))
    answer = in_an_empty_home("from rs_embed import EarthEngine; print(EarthEngine().account())", tmp_path)
    assert "project stored, credentials of a user" in answer.stdout


def test_application_default_credentials_are_found(tmp_path):
    path = key_file(tmp_path, "http://127.0.0.1:9/token")
    code = "from rs_embed import EarthEngine; print(EarthEngine().account())"
    answer = in_an_empty_home(code, tmp_path, GOOGLE_APPLICATION_CREDENTIALS=str(path))
    assert "project of-the-key, service account robot@of-the-key" in answer.stdout


def test_what_there_is_to_compute_is_asked_once_for_all_providers_of_all_accounts():
    _ee_client.forget()
    with EarthEngineServer(World([])) as one, EarthEngineServer(World([])) as other:
        for _ in range(2):
            earth_engine(one).check()
            earth_engine(other).check()
    assert [request.route for request in one.requests] == ["algorithms", "pixels", "pixels"]
    assert [request.route for request in other.requests] == ["pixels", "pixels"]


@pytest.mark.slow
def test_a_key_is_found_however_long_it_takes_to_read(tmp_path):
    path = tmp_path / "key.json"
    os.mkfifo(path)
    code = "from rs_embed import EarthEngine; print(EarthEngine().account())"
    told = key_file(tmp_path / "..", "http://127.0.0.1:9/token").read_bytes()

    def write_late() -> None:
        with path.open("wb") as pipe:
            time.sleep(2 * PROBE_S)
            pipe.write(told)

    threading.Thread(target=write_late, daemon=True).start()
    answer = in_an_empty_home(code, tmp_path, GOOGLE_APPLICATION_CREDENTIALS=str(path))
    assert "service account robot@of-the-key" in answer.stdout


ACCOUNT_OR_WHY = """
from rs_embed import EarthEngine
from rs_embed.errors import NotConfigured
try: print(EarthEngine(project="x").account())
except NotConfigured as error: print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is not a valid json file"),
        ("[]", "AttributeError"),
        ('{"type": "something else"}', "does not have a valid type"),
        ('{"type": "service_account"}', "missing fields"),
        (None, "was not found"),
    ],
)
def test_a_key_file_that_cannot_be_read_is_named_with_why_and_not_passed_over(tmp_path, content, why):
    key, gcloud = tmp_path / "key.json", tmp_path / ".config/gcloud/application_default_credentials.json"
    if content is not None:
        key.write_text(content)
    said = in_an_empty_home(ACCOUNT_OR_WHY, tmp_path, GOOGLE_APPLICATION_CREDENTIALS=str(key)).stdout
    assert f"Expected Google credentials in {key}, got a file that cannot be read." in said
    assert "GOOGLE_APPLICATION_CREDENTIALS" in said and why in said
    if content is not None:
        gcloud.parent.mkdir(parents=True)
        key.rename(gcloud)
        said = in_an_empty_home(ACCOUNT_OR_WHY, tmp_path).stdout
        assert f"Expected Google credentials in {gcloud}, got a file" in said
        assert "gcloud auth application-default login" in said


def test_the_login_of_gcloud_is_found_without_running_gcloud(tmp_path):
    login = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    folder, tool = tmp_path / ".config/gcloud", tmp_path / "bin/gcloud"
    for one in (folder, tool.parent):
        one.mkdir(parents=True)
    (folder / "application_default_credentials.json").write_text(json.dumps(login | {"quota_project_id": "named"}))
    tool.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nsleep 600\n")
    tool.chmod(0o755)
    code = "from rs_embed import EarthEngine; print(EarthEngine().account())"
    answer = in_an_empty_home(code, tmp_path, PATH=f"{tool.parent}:{os.environ['PATH']}")
    assert "project named, credentials of a user" in answer.stdout
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("content", ["not json", "[]", "5"])
def test_a_stored_token_that_cannot_be_read_is_said(tmp_path, content):
    folder = tmp_path / ".config" / "earthengine"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text(content)
    assert "earthengine authenticate --force" in in_an_empty_home(ACCOUNT_OR_WHY, tmp_path).stdout


def test_waits_are_logged_under_a_name_that_can_be_turned_on():
    assert logging.getLogger("rs_embed.providers").name.startswith("rs_embed")
    assert [name for name, *_ in describe_knobs(EarthEngineSettings)] == list(EarthEngineSettings.variables())
