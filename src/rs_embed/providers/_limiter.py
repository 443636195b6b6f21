"""Requests within what a service bears, and no more than agreed: for the threads of this process, or of many."""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rs_embed.providers._policy import Leave, Policy, Slot

Clock = Callable[[], float]
Sleep = Callable[[float], None]


class Limits(ABC):
    """Gives leave to make requests, by a `Policy`."""

    def __init__(self, sleep: Sleep = time.sleep) -> None:
        """Take what waits for so many seconds."""
        self._sleep = sleep

    @abstractmethod
    def configure(self, ceiling: int, qps: float | None) -> None:
        """Change what was agreed; the newest word counts."""

    @abstractmethod
    def take(self) -> Leave:
        """Wait for room."""

    @abstractmethod
    def give_back(self, slot: Slot) -> None:
        """The request is over."""

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait for leave to make a request, and give it back afterwards."""
        slot = Slot(self.take())
        try:
            if slot.leave.wait_s > 0:
                self._sleep(slot.leave.wait_s)
            yield slot
        finally:
            self.give_back(slot)


class Limiter(Limits):
    """Requests at the same time and per second, shared by all threads of this process."""

    def __init__(
        self, ceiling: int, qps: float | None = None, *, clock: Clock = time.monotonic, sleep: Sleep = time.sleep
    ) -> None:
        """Start at the ceiling.

        Args:
            ceiling: Requests at the same time, at most.
            qps: Requests started per second, at most; `None`: no such limit.
            clock: Seconds that never go back.
            sleep: Waits for so many seconds.
        """
        super().__init__(sleep)
        self._free = threading.Condition()
        self._clock, self._names = clock, itertools.count()
        self._policy = Policy(ceiling, qps, clock())

    @property
    def limit(self) -> int:
        """Requests allowed at the same time just now."""
        return self._policy.limit

    @property
    def most_in_flight(self) -> int:
        """Most requests that ever were under way together."""
        return self._policy.most_in_flight

    def configure(self, ceiling: int, qps: float | None) -> None:
        """See `Limits`."""
        with self._free:
            self._policy.configure(ceiling, qps)
            self._free.notify_all()

    def take(self) -> Leave:
        """See `Limits`."""
        with self._free:
            name = str(next(self._names))
            while (leave := self._policy.take(name, self._clock())) is None:
                self._free.wait()
            return leave

    def give_back(self, slot: Slot) -> None:
        """See `Limits`."""
        with self._free:
            self._policy.give_back(slot, self._clock())
            self._free.notify(2)  # room for one more, and for another where the limit has grown


Make = Callable[[str, int, float | None], Limits]
"""(account, ceiling, qps) -> what limits it."""
_SHARED: dict[str, Limits] = {}
_SHARING = threading.Lock()
_MAKE: list[Make] = [lambda account, ceiling, qps: Limiter(ceiling, qps)]


def limit_by(make: Make) -> None:
    """From now on, accounts are limited by what this makes: for a process that shares them with others."""
    with _SHARING:
        _MAKE[:] = [make]
        _SHARED.clear()


def shared_limiter(account: str, ceiling: int, qps: float | None) -> Limits:
    """The one limiter of this process for an account (a service and who pays), set to what is asked now."""
    with _SHARING:
        limiter = _SHARED.get(account) or _SHARED.setdefault(account, _MAKE[0](account, ceiling, qps))
    limiter.configure(ceiling, qps)
    return limiter
