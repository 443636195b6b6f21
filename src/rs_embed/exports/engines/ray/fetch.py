"""Fetch on a cluster: tasks that fetch batches of chips. Their processes never load torch."""

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import ray
from ray import cloudpickle

from rs_embed.core.bands import register_collection, registered_collections
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
"""How often a batch is fetched again, elsewhere, after the process or machine that fetched it died."""


@dataclass(frozen=True)
class Surroundings:
    """The environment that a remote process takes over from the one that sent the work."""

    variables: dict[str, str]
    """`RS_EMBED_*`."""
    folder: str
    """The folder that paths are relative to."""
    collections: bytes
    """The collections that the user registered, pickled."""

    @classmethod
    def here(cls) -> "Surroundings":
        """Return the environment of this process."""
        return cls(set_variables(), os.getcwd(), cloudpickle.dumps(registered_collections()))

    def enter(self) -> None:
        """Apply it to this process, and let the cluster's limiter grant its requests."""
        take_over(self.variables)
        for collection in pickle.loads(self.collections):  # noqa: S301  (pickled by the export that sent it)
            register_collection(collection, replace=True)
        with suppress(OSError):  # on a machine without that folder, only absolute paths work
            os.chdir(self.folder)
        limit_by_cluster()


@dataclass(frozen=True)
class Origin:
    """The source of chips, for processes on other machines."""

    run: str
    """Unique id of the call: a process opens its provider once per call."""
    backend: bytes
    """Pickled: a process unpickles it after taking over the environment."""
    surroundings: Surroundings
    threads: int
    """Number of chips that one task fetches at the same time."""


def unpack(backend: bytes) -> Backend:
    """Unpickle a backend: a name, a path or a provider."""
    found: Backend = pickle.loads(backend)  # noqa: S301  (pickled by the export that sent it)
    return found


class _Opened:
    """The open providers of this process."""

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
    """Fetch a batch: for each query, the chip or the error."""
    provider = _OPENED.provider(origin)
    threads = Threads(min(origin.threads, len(queries)), "rs-embed-fetch")
    try:
        coming = [threads.submit(_fetch, provider, query) for query in queries]
        return [outcome(one) for one in coming]
    finally:
        threads.close()  # a cancelled task, or a process that ends, does not wait


def _fetch(provider: Provider, query: Query) -> Chip | Exception:
    try:
        return provider.fetch(query)
    except Exception as error:  # noqa: BLE001  (raised where the chip is needed)
        return _that_travels(error)


def _that_travels(error: Exception) -> Exception:
    """Return the error if it can be pickled; otherwise a `ProviderError` with its message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (our own, of this moment)
    except Exception:  # noqa: BLE001  (whatever its own code raises)
        return ProviderError(f"{type(error).__name__}: {error}")
    return error


class _Coming:
    """A batch that is being fetched; its result is shared by all threads."""

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
                f"Expected a batch of chips, but the fetching process died: {' '.join(str(error).split())[:300]}",
                tried=f"{RETRIES + 1} times",
                fix="check the memory of the nodes, then run the same command again to retry",
            ) from error


def bring_by_tasks(origin: "ray.ObjectRef[Origin]", cpus: float) -> Bring:
    """Return a fetcher that runs tasks on the cluster.

    Args:
        origin: Reference to the origin in the object store, so that it is sent only once.
        cpus: Cores that a task reserves; tasks mostly wait.
    """
    task = ray.remote(fetch_batch).options(num_cpus=cpus, max_retries=RETRIES, name="rs_embed fetch")

    def bring(queries: Sequence[Query]) -> Callable[[], Brought]:
        return _Coming(task.remote(origin, list(queries)))

    return bring
