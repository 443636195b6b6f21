"""One limit for all processes of a cluster: kept, lowered by a 429, and free again when a process dies."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import ray
from engines_help import processes_of, until
from export_worker import export
from metered import ACCOUNT, Metered, Service

from rs_embed.engines.ray_limiter import gate


@pytest.fixture
def service():
    made = []

    def make(*given, **named) -> Service:
        made.append(Service(*given, **named))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(("qps", "takes_s"), [(None, 0.1), (12, 0.02)])
def test_a_cluster_asks_no_more_than_agreed_at_once_nor_per_second(nodes, service, tmp_path, qps, takes_s):
    asked = service(bears=1000, takes_s=takes_s)
    kept = gate()  # still there from a run that had agreed on something else
    ray.get(kept.configure.remote(ACCOUNT, 16, 500.0))
    backend = Metered(asked.url, ceiling=3, qps=qps)
    report = export(tmp_path / "run", tmp_path / "log", rows=36, unit_rows=18, backend=backend, engine="ray")
    assert report.ok == 36
    starts = np.sort(asked.starts)
    assert len(starts) == 36
    if qps is None:
        assert asked.most == 3  # of 32 threads in 4 processes
    else:
        assert asked.most <= 3
        assert (starts[qps:] - starts[:-qps]).min() > 0.8


def test_too_many_requests_slow_down_all_processes_and_a_pause_is_kept_by_all(nodes, service, tmp_path):
    bears_few = service(bears=4, takes_s=0.05, pause_s=1)
    backend = Metered(bears_few.url, ceiling=16)
    report = export(tmp_path / "run", tmp_path / "log", rows=60, unit_rows=30, backend=backend, engine="ray")
    assert report.ok == 60
    assert bears_few.most <= 16
    assert 1 <= len(bears_few.refused) < 30
    first = bears_few.refused[0]
    paused = [start for start in bears_few.starts if first + 0.3 < start < first + 0.95]
    assert not paused


def test_the_leave_of_a_killed_process_is_free_again(nodes, service, tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_RAY_LEASE_S", "2")
    slow = service(bears=1000, takes_s=0.0)
    slow.hold.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            export, tmp_path / "run", tmp_path / "log", rows=12, backend=Metered(slow.url, 1), engine="ray"
        )
        try:
            until(lambda: slow.starts)
            (limit, under_way, _) = ray.get(gate().state.remote(ACCOUNT))
            for node in nodes.cluster.list_all_nodes():
                for pid in processes_of(nodes.raylet(node), "ray::rs_embed fetch"):
                    os.kill(pid, signal.SIGKILL)
        finally:
            slow.hold.set()
        assert (limit, under_way) == (1, 1)
        assert running.result(120).ok == 12
