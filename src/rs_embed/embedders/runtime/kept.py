"""The cache of networks for later calls, and how to release it."""

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
"""Allows one network to load at a time, because some use torch's global random number generator."""


class _Releases(Protocol):
    def release(self) -> int: ...


_ALL: "WeakSet[_Releases]" = WeakSet()


class KeptNetworks(Generic[T]):
    """A cache of the most recently used networks of one kind. Thread-safe.

    Args:
        size: Number of networks to keep.
    """

    def __init__(self, size: int) -> None:
        self._recent: LRUCache[T] = LRUCache(size)
        _ALL.add(self)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the network with a key, built if it is not in the cache."""
        with _LOADING.here:
            return self._recent.get(key, make)

    def release(self) -> int:
        """Empty the cache; return how many networks it held."""
        with _LOADING.here:
            count = len(self._recent)
            self._recent.clear()
        return count


def release_models() -> int:
    """Free the memory of all cached networks, on the CPU and on GPUs.

    A network in use by a running call is freed when the call ends.

    Returns:
        Number of networks released.
    """
    count = sum(kept.release() for kept in tuple(_ALL))
    gc.collect()  # a module and its hooks refer to each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return count
