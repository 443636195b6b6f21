"""One limit for all processes of a cluster: kept, lowered by a 429, and free again when a process dies."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import ray
from engines_help import processes_of, until
from export_worker import export
from metered import ACCOUNT, Metered, Service

from rs_embed.exports.engines.ray.limiter import ClusterLimiter, LimiterActor, gate
from rs_embed.providers.common.policy import Slot

pytestmark = pytest.mark.slow


@pytest.fixture
def service():
    made = []

    def make(*given, **named) -> Service:
        made.append(Service(*given, **named))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(("qps", "takes_s"), [(None, 0.2), (12, 0.02)])
def test_a_cluster_asks_no_more_than_agreed_at_once_nor_per_second(nodes, service, tmp_path, qps, takes_s):
    asked = service(bears=1000, takes_s=takes_s)
    kept = gate()  # still there from a run that had agreed on something else
    ray.get(kept.configure.remote(ACCOUNT, (16, 500.0)))
    backend = Metered(asked.url, ceiling=3, qps=qps)
    report = export(tmp_path / "run", tmp_path / "log", rows=36, unit_rows=18, backend=backend, engine="ray")
    assert report.ok == 36
    starts = np.sort(asked.starts)
    assert len(starts) == 36
    if qps is None:
        assert asked.most == 3  # of 32 threads in 4 processes
    else:
        assert asked.most <= 3
        assert (starts[2 * qps :] - starts[: -2 * qps]).min() > 1.4  # 2 s, but for threads that woke up late


def test_too_many_requests_slow_down_all_processes_and_a_pause_is_kept_by_all(nodes, service, tmp_path):
    bears_few = service(bears=8, takes_s=0.05, pause_s=4)
    backend = Metered(bears_few.url, ceiling=16)
    report = export(tmp_path / "run", tmp_path / "log", rows=24, unit_rows=12, backend=backend, engine="ray")
    assert report.ok == 24
    assert bears_few.most <= 16
    assert 1 <= len(bears_few.refused) < 20
    first = bears_few.refused[0]
    # A permit that was given before the limiter heard of the refusal may be used late, on a busy machine.
    paused = [start for start in bears_few.starts if first + 2 < start < first + 3.9]
    assert not paused


def test_the_leave_of_a_killed_process_is_free_again(nodes, service, tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_RAY_LEASE_S", "6")
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


def taken(limiter: ClusterLimiter, within_s: float = 60.0) -> Slot:
    """A permit, waited for no longer than that."""
    with ThreadPoolExecutor(1) as pool:
        return Slot(pool.submit(limiter.take).result(within_s))


def test_who_died_while_waiting_gets_no_leave(nodes, tmp_path):
    mine = ClusterLimiter("dead waiters", 1, None)
    held = taken(mine)

    @ray.remote(num_cpus=0, max_retries=0, runtime_env={"env_vars": {"RS_EMBED_RAY_LEASE_S": "600"}})
    def wait_for_leave() -> None:
        other = ClusterLimiter("dead waiters", 1, None)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(other.take) for _ in range(8)]
            (tmp_path / "asked").write_text(str(os.getpid()))
            asked[0].result()

    waiting = wait_for_leave.remote()
    until((tmp_path / "asked").exists)
    time.sleep(2)
    os.kill(int((tmp_path / "asked").read_text()), signal.SIGKILL)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(waiting)
    time.sleep(3)  # longer than the actor lets anybody wait
    mine.give_back(held)
    mine.give_back(taken(mine))


MAKER = """
import sys, ray
from rs_embed.exports.engines.ray.limiter import ClusterLimiter, LimiterActor, gate
from rs_embed.providers.common.policy import Slot
ray.init(sys.argv[1], log_to_driver=False)
made = gate()
ray.get(made.configure.remote("successor", (2, None)))
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def under_way(nodes):
    """Requests that the limiter knows of; `None` while there is none, or it knows nothing of the account."""
    kept = []  # an actor that nobody keeps ends at once, and each look would start another

    def known(account: str) -> int | None:
        with suppress(ray.exceptions.RayError, KeyError):
            kept.append(gate())
            return ray.get(kept[-1].state.remote(account), timeout=10)[1]
        return None

    return known


@pytest.mark.parametrize("how", ["its process is killed", "who made it leaves"])
def test_the_successor_of_a_limiter_learns_what_is_under_way(nodes, under_way, monkeypatch, how):
    monkeypatch.setenv("RS_EMBED_RAY_LEASE_S", "3")
    ray.kill(gate())
    command = [sys.executable, "-c", MAKER, nodes.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout.readline() == "made\n"
        limiter = ClusterLimiter("successor", 2, None)
        held = taken(limiter)
        if how == "its process is killed":
            for node in nodes.cluster.list_all_nodes():
                for pid in processes_of(nodes.raylet(node), "ray::LimiterActor"):
                    os.kill(pid, signal.SIGKILL)
        else:
            maker.stdin.close()
            maker.wait(60)
        until(lambda: under_way("successor") == 1)  # of its own accord: nobody has asked for a permit since
        second = taken(limiter)
        until(lambda: under_way("successor") == 2)
        for slot in (held, second):
            limiter.give_back(slot)
        until(lambda: not under_way("successor"))  # a limiter made just now knows of none either


def test_room_for_one_account_wakes_nobody_who_waits_for_another():
    async def told_apart() -> bool:
        actor = LimiterActor()
        leaves = {name: await actor.take(name, (1, None), f"first of {name}", 60.0) for name in ("a", "b")}
        waiting = [asyncio.create_task(actor.take("a", (1, None), f"{i} of a", 60.0)) for i in range(2)]
        mine = asyncio.create_task(actor.take("b", (1, None), "second of b", 60.0))
        await asyncio.sleep(0.01)
        await actor.give_back("b", Slot(leaves["b"]))
        for _ in range(10):
            await asyncio.sleep(0)
        told = mine.done() and not any(one.done() for one in waiting)
        await asyncio.gather(mine, *waiting)
        return told

    assert asyncio.run(told_apart())
