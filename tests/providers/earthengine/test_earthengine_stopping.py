"""Earth Engine in a process that forks, and in a job that is stopped."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from earth import ask, earth_engine, routes
from gee_server import EarthEngineServer, Fault, default_world, faults
from torch.utils.data import DataLoader, Dataset

from rs_embed.core.stopping import Stop, Stopped, Threads
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.earthengine import client as _ee_client

BANDS = ("B2", "B3", "B4", "B8")
LONG_S = 60.0
"""More than a busy machine needs."""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


@pytest.fixture
def server():
    with EarthEngineServer(default_world()) as server:
        yield server


def until(condition) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Chips(Dataset):
    """A chip of each band."""

    def __init__(self, provider) -> None:
        self.provider = provider

    def __len__(self) -> int:
        return len(BANDS)

    def __getitem__(self, i: int):
        return self.provider.fetch(ask(bands=(BANDS[i],), side_m=160)).values


@pytest.mark.alone
def test_a_provider_that_was_used_works_in_forked_workers(server):
    chips = Chips(earth_engine(server))
    here = [chips[i] for i in range(len(BANDS))]
    loader = DataLoader(chips, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=LONG_S)
    for there, wanted in zip(loader, here, strict=True):
        np.testing.assert_array_equal(there, wanted)


@pytest.mark.alone
def test_a_process_forked_while_another_thread_holds_every_lock_works(server):
    _ee_client.forget()
    server.faults.append(Fault("hang", times=1, routes=("algorithms",)))
    provider, threads = earth_engine(server, concurrency=1), Threads(1, "test")
    hanging = threads.submit(provider.fetch, ask(bands=("B2",), side_m=160))
    until(lambda: server.requests)
    with provider._kept._lock.here:
        child = multiprocessing.get_context("fork").Process(
            target=lambda: os._exit(int(provider.fetch(ask(bands=("B3",), side_m=160)).valid_fraction))
        )
        child.start()
        child.join(LONG_S)
    assert child.exitcode == 1  # all of it valid
    assert not hanging.done()


@pytest.mark.parametrize("fault", [Fault("hang"), faults.unavailable(), faults.quota(), faults.timed_out()])
def test_no_request_begins_in_a_job_that_was_stopped(server, fault):
    earth_engine(server).check()
    server.reset()
    server.latency_s = 0.2
    server.faults.append(fault)
    stop, threads = Stop(), Threads(4, "test")
    waits = Waits(Backoff(first_s=0.5, tries=1000))
    provider = earth_engine(server, provenance=False, concurrency=2, timeout_s=1.0, waits=waits)
    with stop.here():
        coming = [threads.submit(provider.fetch, ask(bands=(band,), side_m=640)) for band in BANDS]
    until(lambda: len(server.data_requests) >= 2)
    stop.set()
    begun = len(server.data_requests)
    for one in coming:
        with pytest.raises(Stopped):
            one.result(LONG_S)
    assert len(server.data_requests) <= begun + 2  # of those that had leave when it was set
    before = len(server.data_requests)
    time.sleep(1.5)
    assert len(server.data_requests) == before


SCRIPT = """
import sys
from earth import ask
from rs_embed import EarthEngine
EarthEngine(host=sys.argv[1], project="mine", credentials="none", timeout_s=600).fetch(ask())
"""


@pytest.mark.parametrize("route", ["algorithms", "pixels"])
def test_one_ctrl_c_ends_a_call_whose_request_hangs(server, route):
    server.faults.append(Fault("hang", routes=(route,)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, server.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as call:
        until(lambda: route in [one.route for one in server.requests])
        call.send_signal(signal.SIGINT)
        _, said = call.communicate(timeout=LONG_S)
    assert call.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in said
    assert [one.route for one in server.requests].count(route) == 1


def test_a_thread_that_waits_for_another_to_learn_ends_with_its_job(server):
    _ee_client.forget()
    server.faults.append(Fault("hang", times=1, routes=("algorithms",)))
    provider, threads, stop = earth_engine(server), Threads(2, "test"), Stop()
    hanging = threads.submit(provider.check)
    until(lambda: server.requests)
    with stop.here():
        waiting = threads.submit(provider.check)
    begun = threading.Event()
    begun.wait(0.3)
    stop.set()
    with pytest.raises(Stopped):
        waiting.result(LONG_S)
    assert not hanging.done()
    assert routes(server) == []
