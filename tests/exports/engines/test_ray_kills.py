"""Exports on a cluster that loses workers, machines and the process that drives it: every row is there, once."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from engines_help import until, vectors
from export_worker import MODEL, Exports, asked

pytestmark = pytest.mark.slow

ROWS, UNIT_ROWS = 120, 10


@pytest.fixture(scope="module")
def exports(nodes):
    """Starts drivers, each in a process of its own."""
    server = Exports()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(exports, tmp_path_factory):
    """The vectors of a run on this machine that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    exports.start(folder / "run", folder / "log", rows=ROWS, unit_rows=UNIT_ROWS)
    code, said = exports.wait()
    assert code == 0, said
    return vectors(folder / "run")


def records(run) -> int:
    return len(list(run.glob(f"{MODEL}/records/u*.json")))


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def raylets_of(driver: int) -> list[int]:
    """Of the cluster that a driver has started: Ray's processes name the one that they belong to."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"_{driver}".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def start(exports, nodes, run, log, **options) -> int:
    return exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS, engine="ray", address=nodes.address, **options)


def test_a_worker_killed_at_random_loses_no_row_and_doubles_none(exports, nodes, whole, tmp_path):
    chance, run, log = random.Random(3), tmp_path / "run", tmp_path / "log"
    start(exports, nodes, run, log, latency_s=0.1)
    until(lambda: records(run) >= 1)
    time.sleep(chance.uniform(0.0, 0.5))
    (victim,) = nodes.workers()
    kill(victim)
    code, said = exports.wait()
    assert code == 0, said
    assert vectors(run) == whole
    assert not list(run.rglob(".part-*"))


def test_a_machine_that_goes_away_takes_nothing_with_it(exports, nodes, whole, tmp_path):
    run, log, node = tmp_path / "run", tmp_path / "log", nodes.add()
    # a worker on each of three nodes, with room left for fetching
    start(exports, nodes, run, log, latency_s=0.3, variables={"RAY_WORKERS": "3", "RAY_WORKER_CPUS": "0.7"})
    until(lambda: nodes.workers(node) and records(run) >= 2)
    nodes.cluster.remove_node(node, allow_graceful=False)
    code, said = exports.wait()
    assert code == 0, said
    assert vectors(run) == whole
    assert not list(run.rglob(".part-*"))


def test_a_run_whose_driver_is_killed_at_random_goes_on_where_it_was(exports, nodes, whole, tmp_path):
    chance, run, log = random.Random(7), tmp_path / "run", tmp_path / "log"
    driver = start(exports, nodes, run, log, latency_s=0.3)
    until(lambda: records(run) >= 1)
    time.sleep(chance.uniform(0.0, 0.3))
    kill(driver)
    assert exports.wait()[0] == -signal.SIGKILL
    assert records(run) < ROWS / UNIT_ROWS, "it was killed too late to prove anything"
    until(lambda: not nodes.workers())  # they end with their driver
    finished = {path: path.stat().st_mtime_ns for path in run.glob(f"{MODEL}/units/u*.parquet")}
    exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS)  # here this time
    code, said = exports.wait()
    assert code == 0, said
    assert vectors(run) == whole
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in finished}.items()
    assert len(asked(log)) < 2 * ROWS
    assert not list(run.rglob(".part-*"))


@pytest.mark.parametrize("where", ["a cluster that runs", "one of its own"])
def test_one_ctrl_c_ends_a_run_whose_fetches_hang_and_no_fetch_begins_after_it(exports, nodes, tmp_path, where):
    run, log = tmp_path / "run", tmp_path / "log"
    if where == "a cluster that runs":
        driver = start(exports, nodes, run, log, latency_s=3600.0)
    else:
        driver = exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS, engine="ray", latency_s=3600.0)
    until(lambda: asked(log))
    os.kill(driver, signal.SIGINT)
    code, said = exports.wait()
    assert (code, said) == (130, "interrupted")
    until(lambda: not nodes.workers() and not raylets_of(driver))
    begun = len(asked(log))
    time.sleep(2)
    assert len(asked(log)) == begun < ROWS


CONNECT = """
import sys, time
from rs_embed.exports.engines.ray.cluster import ClusterResources, connected
with connected(None):
    print(ClusterResources.now().cpus, flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("ending", ["by itself", "killed"])
def test_a_cluster_that_was_started_here_ends_with_who_started_it(ending):
    seconds = "0" if ending == "by itself" else "600"
    command = [sys.executable, "-c", CONNECT, seconds]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert float(driver.stdout.readline()) >= 1
    if ending == "killed":
        assert raylets_of(driver.pid)
        driver.kill()
    assert driver.wait(60) == (0 if ending == "by itself" else -signal.SIGKILL)
    driver.stdout.close()
    until(lambda: not raylets_of(driver.pid))
