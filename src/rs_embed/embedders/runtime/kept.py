"""Networks that a process keeps for its next call, and how they are let go."""

import gc
import threading
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

import torch

from rs_embed.core.stopping import PerProcess
from rs_embed.encoders.layers import LRUCache

T = TypeVar("T")
_LOADING = PerProcess(threading.RLock)
"""One network is loaded at a time: some are built with torch's own random numbers, which all threads share."""


class _Releases(Protocol):
    def release(self) -> int: ...


_ALL: "WeakSet[_Releases]" = WeakSet()


class KeptNetworks(Generic[T]):
    """The most recently used networks of one kind. Thread-safe.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._recent: LRUCache[T] = LRUCache(size)
        _ALL.add(self)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one of that key, made at most once while it is kept."""
        with _LOADING.here:
            return self._recent.get(key, make)

    def release(self) -> int:
        """Let go of all; how many there were."""
        with _LOADING.here:
            count = len(self._recent)
            self._recent.clear()
        return count


def release_models() -> int:
    """Free the memory of every network that is kept for the next call, that of a GPU too.

    A network that a call still runs with goes when the call ends.

    Returns:
        How many were let go.
    """
    count = sum(kept.release() for kept in tuple(_ALL))
    gc.collect()  # a module and its hooks refer to each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return count
