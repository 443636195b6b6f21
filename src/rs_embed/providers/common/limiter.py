"""Requests within what a service bears, and no more than agreed: for the threads of this process, or of many."""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rs_embed.core.stopping import POLL_S, PerProcess, current
from rs_embed.core.stopping import sleep as sleep_unless_stopped
from rs_embed.providers.common.policy import Leave, Policy, Slot

Clock = Callable[[], float]
Sleep = Callable[[float], None]


class Limits(ABC):
    """Gives leave to make requests, by a `Policy`; none to a thread whose job was stopped."""

    def __init__(self, sleep: Sleep = sleep_unless_stopped) -> None:
        """Take what waits for so many seconds."""
        self._sleep = sleep

    @abstractmethod
    def configure(self, ceiling: int, qps: float | None) -> None:
        """Change what was agreed; the newest word counts."""

    @abstractmethod
    def take(self) -> Leave:
        """Wait for room.

        Raises:
            Stopped: The job of this thread was stopped meanwhile; no leave is held then.
        """

    @abstractmethod
    def give_back(self, slot: Slot) -> None:
        """The request is over."""

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait for leave to make a request, and give it back afterwards.

        Raises:
            Stopped: The job of this thread was stopped, so the request must not begin.
        """
        stop = current()
        stop.check()
        slot = Slot(self.take())
        try:
            if slot.leave.wait_s > 0:
                self._sleep(slot.leave.wait_s)
            stop.check()
            yield slot
        finally:
            self.give_back(slot)


class _Room:
    """What the threads of one process share of a limiter."""

    def __init__(self, ceiling: int, qps: float | None, clock: Clock) -> None:
        self.free = threading.Condition()
        self.policy = Policy(ceiling, qps, clock())


class Limiter(Limits):
    """Requests at the same time and per second, shared by all threads of this process.

    A forked process begins with one of its own: what was under way in the other is not under way here.
    """

    def __init__(
        self,
        ceiling: int,
        qps: float | None = None,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = sleep_unless_stopped,
    ) -> None:
        """Start at the ceiling.

        Args:
            ceiling: Requests at the same time, at most.
            qps: Requests started per second, at most; `None`: no such limit.
            clock: Seconds that never go back.
            sleep: Waits for so many seconds.
        """
        super().__init__(sleep)
        self._clock, self._names = clock, itertools.count()
        self._agreed = ceiling, qps
        self._room = PerProcess(lambda: _Room(*self._agreed, clock))

    @property
    def limit(self) -> int:
        """Requests allowed at the same time just now."""
        return self._room.here.policy.limit

    @property
    def most_in_flight(self) -> int:
        """Most requests that ever were under way together."""
        return self._room.here.policy.most_in_flight

    def configure(self, ceiling: int, qps: float | None) -> None:
        """See `Limits`."""
        room = self._room.here
        with room.free:
            self._agreed = ceiling, qps
            room.policy.configure(ceiling, qps)
            room.free.notify_all()

    def take(self) -> Leave:
        """See `Limits`."""
        room, stop = self._room.here, current()
        with room.free:
            name = str(next(self._names))
            while (leave := room.policy.take(name, self._clock())) is None:
                room.free.wait(POLL_S)
                stop.check()
            return leave

    def give_back(self, slot: Slot) -> None:
        """See `Limits`."""
        room = self._room.here
        with room.free:
            room.policy.give_back(slot, self._clock())
            room.free.notify(2)  # room for one more, and for another where the limit has grown


Make = Callable[[str, int, float | None], Limits]
"""(account, ceiling, qps) -> what limits it."""
_SHARED: dict[str, Limits] = {}
_SHARING = PerProcess(threading.Lock)
_MAKE: list[Make] = [lambda account, ceiling, qps: Limiter(ceiling, qps)]


def limit_by(make: Make) -> None:
    """From now on, accounts are limited by what this makes: for a process that shares them with others."""
    with _SHARING.here:
        _MAKE[:] = [make]
        _SHARED.clear()


def shared_limiter(account: str, ceiling: int, qps: float | None) -> Limits:
    """The one limiter of this process for an account (a service and who pays), set to what is asked now."""
    with _SHARING.here:
        limiter = _SHARED.get(account) or _SHARED.setdefault(account, _MAKE[0](account, ceiling, qps))
    limiter.configure(ceiling, qps)
    return limiter
