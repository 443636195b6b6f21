"""Wait for other threads, but no longer than the job of this thread lasts."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from rs_embed.core.stopping import POLL_S, current

T = TypeVar("T")


def awaited(future: "Future[T]", most_s: float = float("inf")) -> T:
    """Wait for a future and return its result.

    Raises:
        Stopped: The job of this thread was stopped; the work is abandoned.
        TimeoutError: It took longer.
    """
    stop, late = current(), time.monotonic() + most_s
    while True:
        stop.check()
        left_s = late - time.monotonic()
        try:
            return future.result(max(0.0, min(POLL_S, left_s)))
        except TimeoutError:
            if future.done():  # it finished meanwhile, or the work itself timed out
                return future.result()
            if left_s <= 0:
                raise


@contextmanager
def taken(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock that another thread may keep while it waits for a server.

    Raises:
        Stopped: The job of this thread was stopped before it had the lock.
    """
    stop = current()
    while not lock.acquire(timeout=POLL_S):
        stop.check()
    try:
        stop.check()
        yield
    finally:
        lock.release()
