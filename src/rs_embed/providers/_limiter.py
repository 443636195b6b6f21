"""How many requests a service gets at once from this process: as many as it bears, and no more than agreed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass
class Slot:
    """Leave to make one request. Its owner says how the service took it."""

    limiter: "Limiter"
    epoch: int
    """How often the limit had been halved when this request was let go."""

    def throttled(self, pause_s: float = 0.0) -> None:
        """The service said "too many": all slow down, and none starts before `pause_s` is over."""
        self.limiter.slow_down(self.epoch, pause_s)

    def succeeded(self) -> None:
        """The service took it well."""
        self.limiter.speed_up()


class Limiter:
    """Requests at the same time and per second, shared by all threads.

    Additive increase, multiplicative decrease: the limit halves when the service throttles (once for all requests
    that were under way together), and grows by one for every `limit` successes, up to the ceiling.
    """

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
        self._free = threading.Condition()
        self._clock, self._sleep = clock, sleep
        self._ceiling, self._qps = ceiling, qps
        self._limit = float(ceiling)
        self._epoch = self._in_flight = self._most_in_flight = 0
        self._next_start = clock()

    @property
    def limit(self) -> int:
        """Requests allowed at the same time just now."""
        return max(1, int(self._limit))

    @property
    def most_in_flight(self) -> int:
        """Most requests that ever were under way together."""
        return self._most_in_flight

    def configure(self, ceiling: int, qps: float | None) -> None:
        """Change what was agreed; the newest word counts for all threads."""
        with self._free:
            if (ceiling, qps) != (self._ceiling, self._qps):
                self._ceiling, self._qps, self._limit = ceiling, qps, float(ceiling)
                self._free.notify_all()

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait for leave to make a request, and give it back afterwards."""
        with self._free:
            while self._in_flight >= self.limit:
                self._free.wait()
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)
            slot, wait_s = Slot(self, self._epoch), self._book_start()
        try:
            if wait_s > 0:
                self._sleep(wait_s)
            yield slot
        finally:
            with self._free:
                self._in_flight -= 1
                self._free.notify()

    def _book_start(self) -> float:
        """Seconds until this request may start."""
        now = self._clock()
        start = max(now, self._next_start)
        self._next_start = start + (1 / self._qps if self._qps else 0.0)
        return start - now

    def slow_down(self, epoch: int, pause_s: float) -> None:
        """Halve the limit, unless a request of the same epoch already did."""
        with self._free:
            self._next_start = max(self._next_start, self._clock() + pause_s)
            if epoch == self._epoch:
                self._epoch += 1
                self._limit = max(1.0, self._limit / 2)

    def speed_up(self) -> None:
        """One success of the many that it takes to raise the limit by one."""
        with self._free:
            if self._limit < self._ceiling:
                self._limit = min(float(self._ceiling), self._limit + 1 / self._limit)
                self._free.notify()


_SHARED: dict[str, Limiter] = {}
_SHARING = threading.Lock()


def shared_limiter(account: str, ceiling: int, qps: float | None) -> Limiter:
    """The one limiter of this process for an account (a service and who pays), set to what is asked now."""
    with _SHARING:
        limiter = _SHARED.setdefault(account, Limiter(ceiling, qps))
    limiter.configure(ceiling, qps)
    return limiter
