"""The thread that renews leases, in a process whose cluster goes away: a notebook that calls `ray.shutdown()`."""

import os
import subprocess
import sys
import tempfile

import pytest

pytestmark = pytest.mark.slow

USER = """
import sys, threading, time
import ray
from rs_embed.core.stopping import Stop, Stopped, Threads
from rs_embed.exports.engines.ray.limiter import NAME, NAMESPACE, ClusterLimiter, gate
from rs_embed.errors import EngineError
from rs_embed.providers.common.policy import Slot

def start():
    for tries_left in (4, 3, 2, 1, 0):  # Ray gives a node 30 s, which is little on a busy machine
        try:
            return ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
                            object_store_memory=80_000_000)
        except Exception as error:
            ray.shutdown()
            if tries_left == 0 or "timed out" not in str(error):
                raise

def renewing():
    return [one for one in threading.enumerate() if one.name == "rs-embed-leases"]

def one_held(account):
    limiter = ClusterLimiter(account, 1, None)
    held = Slot(limiter.take())
    (thread,) = renewing()
    return limiter, held, thread

def ended(thread):
    thread.join(120)
    return not thread.is_alive()
"""
SCENES = """
start()
limiter, held, thread = one_held("the limiter is killed for good")
ray.kill(gate())
while True:  # made anew by the thread, which is told nothing of the account before
    try:
        if ray.get(gate().state.remote("the limiter is killed for good"))[1] == 1:
            break
    except (ray.exceptions.RayError, KeyError, ValueError):
        time.sleep(0.1)
assert thread.is_alive()
limiter.give_back(held)
assert ended(thread)

limiter, held, thread = one_held("another cluster in place of its own")
ray.shutdown()
start()
assert ended(thread)
actors = ray.util.list_named_actors(all_namespaces=True)
assert actors == [], actors  # the old limiter makes none there

limiter, held, thread = one_held("asked before, meanwhile and after")
stop, threads = Stop(), Threads(2, "test")
with stop.here():
    stopped = threads.submit(limiter.take)
left = threads.submit(limiter.take)
time.sleep(2)
stop.set()
assert isinstance(stopped.exception(120), Stopped)
ray.shutdown()
assert isinstance(left.exception(120), EngineError)
try:
    limiter.take()
except EngineError as error:
    assert "this process has lost it" in str(error)
else:
    raise AssertionError("leave was given by nobody")
assert ended(thread)
limiter.give_back(held)
assert not ray.is_initialized(), "a cluster was started that nobody had asked for"
"""


def test_it_ends_without_a_word_when_its_cluster_is_gone_and_starts_none():
    with tempfile.TemporaryDirectory(prefix="rse", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ, "RS_EMBED_RAY_LEASE_S": "1.5", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder,
        }  # fmt: skip
        answer = subprocess.run(
            [sys.executable, "-c", USER + SCENES], env=environment, capture_output=True, text=True, timeout=400
        )
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr, answer.stderr
