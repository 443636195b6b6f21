"""A stop is heard wherever a fetch waits; what hangs is abandoned; one Ctrl-C ends the process; forks work."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from gee_server import PLACES, default_world
from stac_asking import SUMMER, ask, equal, expected, stac
from torch.utils.data import DataLoader, Dataset

from rs_embed.core.specs import TemporalSpec
from rs_embed.core.stopping import Stop, Stopped
from rs_embed.providers.common.retry import Backoff, Waits

pytestmark = pytest.mark.slow

WORLD = default_world()
LONG_S = 60
MONTH = ask("toulouse", ("B2", "B4", "B11"), SUMMER)
DAY = ask("toulouse", ("B4",), TemporalSpec.range("2022-06-12", "2022-06-13"))


def until(true):
    """Wait for something that must come."""
    late = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < late, "it never came"
        time.sleep(0.02)


def quiet(site):
    """How many requests there were when no more came."""
    before = -1
    while (now := site.count()) != before:
        before = now
        time.sleep(0.5)
    return now


def fetching(provider, query, stop):
    """A thread that fetches for a job; how it ended is in the list."""
    ended = []

    def work():
        with stop.here():
            try:
                ended.append(provider.fetch(query))
            except BaseException as error:  # noqa: BLE001
                ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, ended


@pytest.mark.parametrize("route", ["landing", "search", "token", "head", "range"])
def test_a_stop_ends_a_fetch_whose_server_is_silent_and_no_request_follows(stac_server, route):
    site = stac_server.site("planetary-computer", signed=True)
    site.fail("hang", routes=(route,), seconds=600)
    stop = Stop()
    thread, ended = fetching(stac(site, timeout_s=300, concurrency=4), MONTH, stop)
    until(lambda: site.count(route) > 0)
    stop.set()
    thread.join(LONG_S)
    assert not thread.is_alive() and isinstance(ended[0], Stopped)
    begun, opened = quiet(site), site.count("head")
    site.go_on()  # what hung has no answer, and would be tried again
    after = quiet(site)
    assert site.count("head") == opened  # no further file
    assert after <= begun + (2 * 4 if route in ("head", "range") else 0)  # GDAL ends the call that it is in


def test_a_stop_ends_the_waits_of_a_server_that_is_too_busy(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail(status=503)
    stop = Stop()
    waits = Waits(Backoff(first_s=600, longest_s=600), jitter=lambda: 1.0)
    thread, ended = fetching(stac(site, waits=waits, total_s=6000, concurrency=4), MONTH, stop)
    until(lambda: site.count("head") >= 3)
    stop.set()
    thread.join(LONG_S)
    assert isinstance(ended[0], Stopped)
    begun = site.count()
    assert quiet(site) <= begun + 4  # each thread of the reader ends the call that it is in


def test_a_fetch_that_fails_takes_its_other_requests_along(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail(status=403)
    with pytest.raises(Exception, match="refusal"):
        stac(site, concurrency=1).fetch(MONTH)
    time.sleep(0.5)
    assert site.count("head") <= 3  # of some 20 files


@pytest.mark.slow
def test_one_interrupt_ends_the_process_though_all_its_threads_wait_for_a_silent_server(stac_server):
    site = stac_server.site("earth-search", applied=True)
    site.fail("hang", routes=("range",), seconds=600)
    lon, lat = PLACES["toulouse"]
    code = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from dataclasses import replace
from rs_embed import OutputSpec, PointBuffer, Stac, TemporalSpec, get_embedding
from rs_embed.providers.stac.catalogs import EARTH_SEARCH
backend = Stac(replace(EARTH_SEARCH, url="{site.url}/api", name=""), timeout_s=300)
days = TemporalSpec.range("2022-06-01", "2022-06-14")
get_embedding("mosaiks_rcf", PointBuffer({lon}, {lat}, 320), days, OutputSpec.grid(), backend)
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        until(lambda: site.count("range") > 0)
        begun = quiet(site)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONG_S)
    assert "KeyboardInterrupt" in said and process.returncode in (-signal.SIGINT, 1, 130)
    assert site.count() == begun
    site.go_on()


class Chips(Dataset):
    """What a training loop reads from."""

    def __init__(self, provider, queries):
        self.provider, self.queries = provider, queries

    def __len__(self):
        return len(self.queries)

    def __getitem__(self, i):
        return self.provider.fetch(self.queries[i]).values


@pytest.mark.alone
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_provider_used_by_its_parent_works_in_forked_workers(stac_server):
    site = stac_server.site("planetary-computer", signed=True)
    provider = stac(site)
    equal(provider.fetch(MONTH), expected(WORLD, MONTH))
    july = ask("toulouse", ("B2", "B4"), TemporalSpec.range("2022-07-01", "2022-07-20"))
    queries = [MONTH, DAY, july, DAY]  # files that the parent has open, and others
    chips = DataLoader(
        Chips(provider, queries), batch_size=None, num_workers=2, timeout=LONG_S, multiprocessing_context="fork"
    )
    for query, values in zip(queries, chips, strict=True):
        np.testing.assert_array_equal(values[0], expected(WORLD, query))


@pytest.mark.alone
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_the_parent_reads_waits_for_no_lock_of_it(stac_server):
    site = stac_server.site("earth-search", applied=True)
    provider = stac(site, timeout_s=300)
    equal(provider.fetch(DAY), expected(WORLD, DAY))
    site.fail("hang", routes=("search",), times=1, seconds=600)
    stop = Stop()
    july = ask("toulouse", ("B4",), TemporalSpec.range("2022-07-01", "2022-07-20"))
    thread, _ = fetching(provider, july, stop)
    until(lambda: site.count("search") == 2)
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = bool(np.isfinite(provider.fetch(july).values).any())
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set()
    site.go_on()
    thread.join(LONG_S)
