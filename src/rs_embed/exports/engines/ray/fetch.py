"""Fetching on a cluster: tasks that bring a batch of chips. The processes that run them never load torch."""

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import ray

from rs_embed.core.chip import Chip
from rs_embed.core.settings import set_variables, take_over
from rs_embed.core.stopping import Threads, outcome
from rs_embed.errors import EngineError, ProviderError
from rs_embed.exports.engines.ray.limiter import limit_by_cluster
from rs_embed.exports.fetching.ahead import Bring, Brought
from rs_embed.pipeline.request import Backend
from rs_embed.plan import opened
from rs_embed.providers.base import Provider, Query

RETRIES = 3
"""How often a batch is fetched again, elsewhere, when the process or machine that had it is gone."""


@dataclass(frozen=True)
class Surroundings:
    """What a process elsewhere takes over from the one that asks."""

    variables: dict[str, str]
    """`RS_EMBED_*`."""
    folder: str
    """The one that paths are relative to."""

    @classmethod
    def here(cls) -> "Surroundings":
        """Those of this process."""
        return cls(set_variables(), os.getcwd())

    def enter(self) -> None:
        """Make them those of this process, which asks for nothing without the leave of the cluster's limiter."""
        take_over(self.variables)
        with suppress(OSError):  # a machine without that folder has use for whole paths only
            os.chdir(self.folder)
        limit_by_cluster()


@dataclass(frozen=True)
class Origin:
    """Where chips come from, for processes on other machines."""

    run: str
    """Unlike that of any other call: a process opens its provider once a call."""
    backend: bytes
    """Pickled: a process unpacks it in its new surroundings."""
    surroundings: Surroundings
    threads: int
    """Chips fetched at the same time by one task."""


def unpack(backend: bytes) -> Backend:
    """A name, a path or a provider."""
    found: Backend = pickle.loads(backend)  # noqa: S301  (packed by the export that asks)
    return found


class _Opened:
    """The provider of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_run: dict[str, Provider] = {}

    def provider(self, origin: Origin) -> Provider:
        with self._lock:
            if origin.run not in self._by_run:
                origin.surroundings.enter()
                self._by_run = {origin.run: opened(unpack(origin.backend))}
            return self._by_run[origin.run]


_OPENED = _Opened()


def fetch_batch(origin: Origin, queries: Sequence[Query]) -> list[Chip | Exception]:
    """The chips, or why one could not be had."""
    provider = _OPENED.provider(origin)
    threads = Threads(min(origin.threads, len(queries)), "rs-embed-fetch")
    try:
        coming = [threads.submit(_fetch, provider, query) for query in queries]
        return [outcome(one) for one in coming]
    finally:
        threads.close()  # a task that is cancelled, or a process that ends, waits for nobody


def _fetch(provider: Provider, query: Query) -> Chip | Exception:
    try:
        return provider.fetch(query)
    except Exception as error:  # noqa: BLE001  (kept whole, and raised where the chip was asked for)
        return _that_travels(error)


def _that_travels(error: Exception) -> Exception:
    """The error, if it comes through pickle; else its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (our own, of this moment)
    except Exception:  # noqa: BLE001  (whatever its own code raises)
        return ProviderError(f"{type(error).__name__}: {error}")
    return error


class _Coming:
    """A batch on its way; once it has come, all threads share it."""

    def __init__(self, reference: "ray.ObjectRef[list[Chip | Exception]]") -> None:
        self._reference, self._lock = reference, threading.Lock()
        self._brought: Brought | None = None

    def __call__(self) -> Brought:
        with self._lock:
            if self._brought is None:
                self._brought = self._wait()
            return self._brought

    def _wait(self) -> Brought:
        try:
            return ray.get(self._reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise EngineError(
                f"Expected a batch of chips, got none, as who fetched it is gone: {' '.join(str(error).split())[:300]}",
                tried=f"{RETRIES + 1} times",
                fix="look at the memory of the nodes; run the same again to retry",
            ) from error


def bring_by_tasks(origin: "ray.ObjectRef[Origin]", cpus: float) -> Bring:
    """Fetch batches in tasks of the cluster.

    Args:
        origin: In the object store, so that it travels once.
        cpus: Cores that a task counts as; they wait more than they work.
    """
    task = ray.remote(fetch_batch).options(num_cpus=cpus, max_retries=RETRIES, name="rs_embed fetch")

    def bring(queries: Sequence[Query]) -> Callable[[], Brought]:
        return _Coming(task.remote(origin, list(queries)))

    return bring
