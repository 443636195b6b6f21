"""The user's own `ee` and ours: neither sees what is done to the other."""

import os
import subprocess
import sys
import threading

import ee
import pytest
from earth import QUICK, ask, earth_engine
from ee import _state
from gee_server import EarthEngineServer, connected, default_world, faults, no_way_out
from google.oauth2.credentials import Credentials

from rs_embed import EarthEngine

QUERY = ask(bands=("B2",))


@pytest.fixture
def servers():
    """His, and ours; his client is initialised, in his way."""
    with EarthEngineServer(default_world()) as his, EarthEngineServer(default_world()) as ours:
        with connected(his, project="his-project", retries=3):
            ee.data.setDeadline(45_000)
            ee.data.setDefaultWorkloadTag("his-tag")
            ee.data.setUserAgent("his-agent")
            his.reset()
            yield his, ours
        assert his.crashes == ours.crashes == []


def asked_for(server: EarthEngineServer) -> set[tuple[str, str | None, str | None]]:
    """Project in the path, project that is billed, and workload tag, of all that was computed."""
    return {
        (one.path.split("/")[3], one.headers.get("X-Goog-User-Project"), one.body.get("workloadTag"))
        for one in server.data_requests
    }


def as_it_is() -> dict[str, object]:
    """All that the user's client keeps."""
    kept = dict(vars(_state.get_state()))
    kept["functions"], kept["state"] = ee.ApiFunction._api, _state.get_state()
    kept["tag"], kept["old assets"] = ee.data.getWorkloadTag(), ee.deprecation.deprecated_assets
    return {name: (id(value), str(value)) for name, value in kept.items()}


OURS = {("mine", "mine", None)}
HIS = {("his-project", "his-project", "his-tag")}


@pytest.mark.slow
def test_our_calls_change_nothing_of_the_users_client(servers):
    his, ours = servers
    before = as_it_is()
    assert earth_engine(ours, project="mine").fetch(QUERY).valid_fraction > 0
    assert as_it_is() == before
    assert ee.data.getWorkloadTag() == "his-tag" and ee.data.getUserAgent() == "his-agent"
    his.faults.append(faults.unavailable(times=1))
    assert ee.Number(1).add(1).getInfo() == 2  # his retries are there
    assert [one.status for one in his.data_requests] == [503, 200]
    assert asked_for(his) == HIS and asked_for(ours) == OURS


def test_what_the_user_initialises_or_resets_does_not_change_who_we_ask_and_who_is_billed(servers):
    his, ours = servers
    provider = earth_engine(ours, project="mine")
    provider.fetch(QUERY)
    with no_way_out(his):
        ee.Initialize(credentials=None, url=his.url, project="other")
    provider.fetch(ask(bands=("B3",)))
    ee.Reset()
    provider.fetch(ask(bands=("B4",)))
    earth_engine(ours, project="mine").fetch(ask(bands=("B8",)))
    assert len(ours.pixel_requests) == 4
    assert asked_for(ours) == OURS
    with pytest.raises(ee.EEException, match="not initialized"):
        ee.Number(1).getInfo()  # as he left it


def test_both_may_ask_at_the_same_time(servers):
    his, ours = servers
    over, asked, provider = threading.Event(), [], earth_engine(ours, project="mine")

    def user() -> None:
        while not over.is_set():
            asked.append(ee.Number(len(asked)).add(1).getInfo())
            assert asked[-1] == len(asked)

    thread = threading.Thread(target=user)
    thread.start()
    for band in ("B2", "B3", "B4", "B8", "B11", "B12"):
        provider.fetch(ask(bands=(band,)))
    over.set()
    thread.join()
    assert len(his.data_requests) == len(asked) > 0
    assert asked_for(his) == HIS and asked_for(ours) == OURS


def test_what_the_user_has_initialised_it_with_is_taken_where_nothing_is_said(servers):
    state = _state.get_state()
    state.credentials = Credentials("token")
    assert "project his-project, credentials of a user" in EarthEngine(waits=QUICK).account()
    assert "project mine, credentials of a user" in EarthEngine("mine").account()


SCRIPT = """
import sys
from earth import QUICK, S2
from rs_embed import EarthEngine, PointBuffer, SensorSpec, TemporalSpec
from rs_embed.core.geo import geobox_for
from rs_embed.providers.base import Query
sys.modules.pop("ee", None)  # the server's, which comes with `earth`
his, ours = sys.argv[1:]
place = geobox_for(PointBuffer(1.44, 43.60, 160))
def fetch(band):
    query = Query("M", SensorSpec(S2, (band,)), place, TemporalSpec.range("2022-06-01", "2022-07-01"))
    return provider.fetch(query)
provider = EarthEngine(host=ours, project="mine", credentials="none", waits=QUICK)
fetch("B2")
print("ee" in sys.modules)
import ee
from ee import _state
print(_state._state, ee.ApiFunction._api, _state.get_state().max_retries)
ee.Initialize(credentials=None, url=his, project="his-project")
fetch("B3")
print(ee.Number(1).add(1).getInfo())
"""


@pytest.mark.slow
def test_a_client_that_the_user_imports_after_our_call_is_as_new():
    with EarthEngineServer(default_world()) as his, EarthEngineServer(default_world()) as ours, no_way_out(his):
        answer = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, his.url, ours.url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == ["False", "None {} 5", "2"]
    assert [one.route for one in his.requests] == [
        "discovery", "discovery", "algorithms", "value",
    ]  # fmt: skip
    assert [one.route for one in ours.requests] == ["algorithms", "value", "pixels", "pixels"]
    assert asked_for(ours) == OURS
