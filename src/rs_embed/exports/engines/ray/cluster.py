"""A Ray cluster to work on: the one that there is, or one of this machine's own for a while.

Ray is the one package here that starts processes. Whatever was started here is stopped here; what was running stays.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from rs_embed.errors import EngineError

STORE_BYTES = 2_000_000_000
"""Object store of a cluster that is started here; memory that chips on their way may take."""
_STATS = "RAY_USAGE_STATS_ENABLED"


@dataclass(frozen=True)
class Room:
    """What a cluster has, all nodes together."""

    cpus: float
    gpus: int
    store_bytes: float
    """Of the object stores, through which chips travel."""

    @classmethod
    def now(cls) -> "Room":
        """What there is at this moment."""
        found = ray.cluster_resources()
        return cls(
            float(found.get("CPU", 0)), int(found.get("GPU", 0)), float(found.get("object_store_memory", STORE_BYTES))
        )


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to a cluster.

    Args:
        address: "host:port", or "auto" for the cluster that runs on this machine. `None`: the one that this process
            is connected to, else one is started here and stopped afterwards.

    Raises:
        EngineError: It cannot be reached or started, or this process is connected to another.
    """
    if ray.is_initialized():
        _require_same(address)
        yield
        return
    try:
        _connect(address or "local")
        yield
    finally:
        ray.shutdown()


def _require_same(address: str | None) -> None:
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here):
        raise EngineError(
            f"Expected the cluster at {address!r}, got this process connected to the one at {here!r}.",
            fix="leave out `address`, or call ray.shutdown() before",
        )


def _connect(address: str) -> None:
    own = address == "local"
    try:
        with _as_we_found_it():
            ray.init(
                address,
                include_dashboard=False if own else None,
                object_store_memory=STORE_BYTES if own else None,
                logging_level=logging.WARNING,
            )
    except Exception as error:  # Ray raises a bare one where a node takes over 30 s to start
        raise EngineError(
            f"Expected a Ray cluster at {address!r}, got none: {' '.join(str(error).split())[:300]}",
            fix='start one (`ray start --head`) and give its address or "auto", or leave out `address`',
        ) from error


@contextmanager
def _as_we_found_it() -> Iterator[None]:
    """Ray tells its makers of every cluster unless told not to, and takes over SIGTERM: neither is ours to give."""
    told, in_main = os.environ.get(_STATS), threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault(_STATS, "0")
    try:
        yield
    finally:
        if told is None:
            del os.environ[_STATS]
        if in_main:
            signal.signal(signal.SIGTERM, handler)
