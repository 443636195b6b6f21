"""What breaks on the loopback Earth Engine, as the unmodified client meets it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gee_server import EarthEngineServer, Fault, connected, faults
from gee_server.asking import S2, TOULOUSE, chip, compute, world_of

ee = pytest.importorskip("ee")


@pytest.fixture(scope="module")
def server() -> Iterator[EarthEngineServer]:
    with EarthEngineServer(world_of(10.0, days=2)) as server, connected(server):
        yield server


@pytest.fixture
def fresh(server) -> EarthEngineServer:
    """The server without a past."""
    server.reset()
    server.latency_s = 0.0
    return server


STATUSES = [
    (faults.quota(retry_after=3, times=1), 429, "Quota exceeded"),
    (faults.internal(times=1), 500, "internal error"),
    (faults.unavailable(times=1), 503, "unavailable"),
    (faults.unauthorized(times=1), 401, "invalid authentication"),
    (faults.not_registered("mine", times=1), 403, "Project mine is not registered"),
    (faults.timed_out(times=1), 400, "Computation timed out."),
]


@pytest.mark.parametrize(("fault", "status", "message"), STATUSES, ids=[str(status) for _, status, _ in STATUSES])
def test_a_status_comes_once_and_then_the_answer(fresh, fault, status, message):
    fault.times = 1
    fresh.faults.append(fault)
    with pytest.raises(ee.EEException, match=message) as failed:
        ee.Number(1).add(1).getInfo()
    response = failed.value.__context__.resp
    assert response.status == status and response.get("retry-after") == fault.headers.get("Retry-After")
    assert ee.Number(1).add(1).getInfo() == 2
    assert [one.status for one in fresh.requests] == [status, 200]


@pytest.mark.parametrize(
    ("kind", "error"), [("reset", ConnectionError), ("cut", ConnectionError), ("short", ValueError)]
)
def test_a_broken_answer_breaks_the_client(fresh, kind, error):
    fresh.faults.append(Fault(kind, numbers=frozenset({2})))
    box = chip(*TOULOUSE, 16)
    image = ee.ImageCollection(S2).first().select("B2")
    whole = compute(image, box)
    with pytest.raises(error):
        compute(image, box)
    assert np.array_equal(compute(image, box), whole)


def test_a_server_that_hangs_is_left_after_the_deadline(fresh):
    fresh.faults.append(Fault("hang", times=1))
    ee.data.setDeadline(200)
    with pytest.raises(TimeoutError):
        ee.Number(1).getInfo()
    ee.data.setDeadline(0)
    assert ee.Number(1).getInfo() == 1
    assert [one.route for one in fresh.data_requests] == ["value", "value"]


def test_faults_by_chance_are_the_same_for_the_same_seed(fresh):
    def statuses() -> list[int]:
        fresh.reset()
        fresh.script.at_random(0.3, seed=5, kinds=[faults.unavailable(), faults.quota()])
        for i in range(20):
            try:
                ee.Number(i).getInfo()
            except ee.EEException:
                continue
        return [one.status for one in fresh.requests]

    first = statuses()
    assert first == statuses() and {200, 429, 503} == set(first)


def test_the_server_counts_how_many_it_serves_at_once(fresh):
    fresh.latency_s = 0.15
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: ee.Number(i).getInfo(), range(8))) == list(range(8))
    assert time.monotonic() - started >= 0.3
    assert fresh.high_water == 4


def test_an_expired_token_is_refused_until_a_new_one_is_fetched():
    from google.oauth2.credentials import Credentials

    with EarthEngineServer(world_of(0.0), token=True) as server:
        credentials = Credentials(
            None, refresh_token="r", client_id="c", client_secret="s", token_uri=f"{server.url}/token"
        )
        with connected(server, credentials=credentials):
            assert ee.Number(1).getInfo() == 1
            server.expire_tokens()
            assert ee.Number(2).getInfo() == 2
    assert [one.route for one in server.requests if one.route in ("token", "value")][-4:] == [
        "value",
        "value",
        "token",
        "value",
    ]


def test_nothing_is_left_of_a_server_that_is_closed():
    before = set(threading.enumerate())
    with EarthEngineServer(world_of(10.0)) as server, connected(server):
        server.faults.append(Fault("hang", times=1))
        waiting = threading.Thread(target=lambda: pytest.raises(ConnectionError, ee.Number(1).getInfo))
        waiting.start()
        while not server.data_requests:
            time.sleep(0.01)
        server.closing.set()
        waiting.join()
    assert set(threading.enumerate()) == before
