"""Connect to a Ray cluster: an existing one, or one that is started on this machine for a while.

Only Ray starts processes in this package. What was started here is stopped here; what was running before stays.
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
"""Size of the object store of a cluster started here: memory for fetched chips, bytes."""
_STATS = "RAY_USAGE_STATS_ENABLED"


@dataclass(frozen=True)
class ClusterResources:
    """The resources of a cluster, all nodes together."""

    cpus: float
    gpus: int
    store_bytes: float
    """Size of the object stores, through which chips travel, bytes."""

    @classmethod
    def now(cls) -> "ClusterResources":
        """Return the present resources."""
        found = ray.cluster_resources()
        return cls(
            float(found.get("CPU", 0)), int(found.get("GPU", 0)), float(found.get("object_store_memory", STORE_BYTES))
        )


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster for the length of the block.

    Args:
        address: "host:port", or "auto" for the cluster that runs on this machine. `None` uses the cluster that this
            process is connected to, or else starts one here and stops it afterwards.

    Raises:
        EngineError: The cluster cannot be reached or started, or this process is connected to another.
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
            f"Expected the cluster at {address!r}, but this process is connected to the one at {here!r}.",
            fix="leave out `address`, or call ray.shutdown() first",
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
    except Exception as error:  # Ray raises a bare Exception if a node takes over 30 s to start
        raise EngineError(
            f"Expected a Ray cluster at {address!r}, got none: {' '.join(str(error).split())[:300]}",
            fix='start one (`ray start --head`) and give its address or "auto", or leave out `address`',
        ) from error


@contextmanager
def _as_we_found_it() -> Iterator[None]:
    """Disable Ray's usage reports, and restore the SIGTERM handler that Ray replaces."""
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
