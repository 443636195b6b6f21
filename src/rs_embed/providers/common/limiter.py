"""Limit requests to what a service accepts and what was agreed, for the threads of one process or of many."""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rs_embed.core.stopping import POLL_S, PerProcess, current
from rs_embed.core.stopping import sleep as sleep_unless_stopped
from rs_embed.providers.common.policy import Permit, Policy, Slot

Clock = Callable[[], float]
Sleep = Callable[[float], None]


class Limits(ABC):
    """Grants permits for requests by a `Policy`, but not to threads whose job was stopped."""

    def __init__(self, sleep: Sleep = sleep_unless_stopped) -> None:
        """Store the function that waits for a number of seconds."""
        self._sleep = sleep

    @abstractmethod
    def configure(self, ceiling: int, qps: float | None) -> None:
        """Change the limits; the latest call counts."""

    @abstractmethod
    def take(self) -> Permit:
        """Wait for a permit.

        Raises:
            Stopped: The job of this thread was stopped meanwhile; then no permit is held.
        """

    @abstractmethod
    def give_back(self, slot: Slot) -> None:
        """Return the permit: the request is over."""

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Hold a permit for one request: wait for it, and return it after the block.

        Raises:
            Stopped: The job of this thread was stopped, so the request must not begin.
        """
        stop = current()
        stop.check()
        slot = Slot(self.take())
        try:
            if slot.permit.wait_s > 0:
                self._sleep(slot.permit.wait_s)
            stop.check()
            yield slot
        finally:
            self.give_back(slot)


class _Room:
    """The state of a limiter that the threads of one process share."""

    def __init__(self, ceiling: int, qps: float | None, clock: Clock) -> None:
        self.free = threading.Condition()
        self.policy = Policy(ceiling, qps, clock())


class Limiter(Limits):
    """Limits requests at the same time and per second, for all threads of this process.

    A forked process starts with its own state: requests of the parent are not under way in the child.
    """

    def __init__(
        self,
        ceiling: int,
        qps: float | None = None,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = sleep_unless_stopped,
    ) -> None:
        """Start with the limit at the ceiling.

        Args:
            ceiling: Largest number of requests at the same time.
            qps: Largest number of requests started per second; `None` means no limit.
            clock: Returns seconds that never decrease.
            sleep: Waits for a number of seconds.
        """
        super().__init__(sleep)
        self._clock, self._names = clock, itertools.count()
        self._agreed = ceiling, qps
        self._room = PerProcess(lambda: _Room(*self._agreed, clock))

    @property
    def limit(self) -> int:
        """Number of requests currently allowed at the same time."""
        return self._room.here.policy.limit

    @property
    def most_in_flight(self) -> int:
        """The most requests that were ever under way together."""
        return self._room.here.policy.most_in_flight

    def configure(self, ceiling: int, qps: float | None) -> None:
        """See `Limits`."""
        room = self._room.here
        with room.free:
            self._agreed = ceiling, qps
            room.policy.configure(ceiling, qps)
            room.free.notify_all()

    def take(self) -> Permit:
        """See `Limits`."""
        room, stop = self._room.here, current()
        with room.free:
            name = str(next(self._names))
            while (permit := room.policy.take(name, self._clock())) is None:
                room.free.wait(POLL_S)
                stop.check()
            return permit

    def give_back(self, slot: Slot) -> None:
        """See `Limits`."""
        room = self._room.here
        with room.free:
            room.policy.give_back(slot, self._clock())
            room.free.notify(2)  # one more may start, and another one if the limit has grown


Make = Callable[[str, int, float | None], Limits]
"""(account, ceiling, qps) -> its limiter."""
_SHARED: dict[str, Limits] = {}
_SHARING = PerProcess(threading.Lock)
_MAKE: list[Make] = [lambda account, ceiling, qps: Limiter(ceiling, qps)]


def limit_by(make: Make) -> None:
    """From now on, make limiters with `make`: for a process that shares accounts with others."""
    with _SHARING.here:
        _MAKE[:] = [make]
        _SHARED.clear()


def shared_limiter(account: str, ceiling: int, qps: float | None) -> Limits:
    """Return this process's limiter for an account (a service and its payer), with the given limits."""
    with _SHARING.here:
        limiter = _SHARED.get(account) or _SHARED.setdefault(account, _MAKE[0](account, ceiling, qps))
    limiter.configure(ceiling, qps)
    return limiter
