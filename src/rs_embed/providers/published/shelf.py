"""What was read last, and what is being read: no thread requests what another one is waiting for."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

from rs_embed.core.stopping import PerProcess, Stopped, current
from rs_embed.providers.stac.waiting import awaited

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Read = Callable[[list[K]], Iterable[tuple[list[K], Future[dict[K, V]]]]]
"""Starts to read what the keys name, and returns which of them each future will bring."""


class _Kept(Generic[K, V]):
    """The state of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: OrderedDict[K, V] = OrderedDict()
        self.coming: dict[K, Future[V]] = {}
        self.held_b = 0


class Shelf(Generic[K, V]):
    """Keeps the values read last. Safe to use from several threads; a forked process starts with an empty one."""

    def __init__(self, most_b: int, size_b: Callable[[V], int]) -> None:
        """Make an empty shelf.

        Args:
            most_b: Largest size of all values together, bytes.
            size_b: Returns the size of a value.
        """
        self._most_b, self._size_b = most_b, size_b
        self._kept = PerProcess(_Kept[K, V])

    def obtain(self, keys: Iterable[K], read: Read[K, V]) -> dict[K, V]:
        """Return the values of all keys.

        Args:
            keys: What is wanted.
            read: Reads those of them that no thread has or reads.

        Raises:
            Exception: Whatever reading one of them raised.
            Stopped: The job of this thread was stopped.
        """
        found: dict[K, V] = {}
        left = set(keys)
        while left:
            waiting = self._claimed(left, read)
            for key, future in waiting.items():
                try:
                    found[key] = awaited(future)
                except Stopped:
                    current().check()  # else the job that was reading it was stopped, and this one takes over
            left -= found.keys()
        return found

    def _claimed(self, keys: set[K], read: Read[K, V]) -> dict[K, Future[V]]:
        """Return a future for each key, and start to read those that nobody has or reads."""
        kept, waiting, ours = self._kept.here, dict[K, Future[V]](), list[K]()
        with kept.lock:
            for key in keys:
                waiting[key] = kept.coming.get(key) or Future()
                if key in kept.values:
                    kept.values.move_to_end(key)
                    waiting[key].set_result(kept.values[key])
                elif key not in kept.coming:
                    kept.coming[key] = waiting[key]
                    ours.append(key)
        given: set[K] = set()
        try:
            for some, future in read(ours) if ours else ():
                given.update(some)
                future.add_done_callback(partial(self._settle, some))
        finally:
            self._settle([key for key in ours if key not in given], None)
        return waiting

    def _settle(self, keys: list[K], done: Future[dict[K, V]] | None) -> None:
        """Hand the outcome to all who wait for it. Without one, nothing was started: another thread may."""
        kept, error = self._kept.here, Stopped() if done is None else done.exception()
        for key in keys:
            with kept.lock:
                future = kept.coming.pop(key)
                if error is None and done is not None:
                    self._put(kept, key, done.result()[key])
            if error is not None:
                future.set_exception(error)
            elif done is not None:
                future.set_result(done.result()[key])

    def _put(self, kept: _Kept[K, V], key: K, value: V) -> None:
        kept.values[key] = value
        kept.held_b += self._size_b(value)
        while kept.held_b > self._most_b:
            kept.held_b -= self._size_b(kept.values.popitem(last=False)[1])
