"""How many requests a service gets at once: the rule alone, without threads and without a clock.

`Limiter` applies it to the threads of a process, the Ray engine to all processes of a cluster.
"""

from collections.abc import Iterable
from dataclasses import dataclass

FOREVER = float("inf")


@dataclass(frozen=True)
class Leave:
    """Leave to make one request."""

    lease: str
    """Whose."""
    epoch: int
    """How often the limit had been halved when it was given."""
    wait_s: float
    """Seconds until the request may start."""


@dataclass
class Slot:
    """A leave in use. Its owner says how the service took the request."""

    leave: Leave
    pause_s: float | None = None
    """Set where the service said "too many": none starts before so many seconds are over."""
    well: bool = False

    def throttled(self, pause_s: float = 0.0) -> None:
        """The service said "too many": all slow down, and none starts before `pause_s` is over."""
        self.pause_s = pause_s

    def succeeded(self) -> None:
        """The service took it well."""
        self.well = True


class Policy:
    """Requests at the same time and per second.

    Additive increase, multiplicative decrease: the limit halves when the service throttles (once for all requests
    that were under way together), and grows by one for every `limit` successes, up to the ceiling.

    Args:
        ceiling: Requests at the same time, at most.
        qps: Requests started per second, at most; `None`: no such limit.
        now: Seconds that never go back; so everywhere.
    """

    def __init__(self, ceiling: int, qps: float | None, now: float) -> None:
        self._ceiling, self._qps = ceiling, qps
        self._limit, self._epoch, self._next_start = float(ceiling), 0, now
        self._until: dict[str, float] = {}
        self.most_in_flight: int = 0
        """Most requests that ever were under way together."""

    @property
    def limit(self) -> int:
        """Requests allowed at the same time just now."""
        return max(1, int(self._limit))

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._until)

    def configure(self, ceiling: int, qps: float | None) -> None:
        """Change what was agreed."""
        if (ceiling, qps) != (self._ceiling, self._qps):
            self._ceiling, self._qps, self._limit = ceiling, qps, float(ceiling)

    def take(self, lease: str, now: float, lease_s: float = FOREVER) -> Leave | None:
        """Leave for one request; `None` while there is no room.

        Args:
            lease: A name that nobody else has.
            now: The time.
            lease_s: Seconds after which its owner counts as dead, if he has not renewed it.
        """
        self._until = {name: until for name, until in self._until.items() if until > now}
        if len(self._until) >= self.limit:
            return None
        start = max(now, self._next_start)
        self._next_start = start + (1 / self._qps if self._qps else 0.0)
        self.renew([lease], now, lease_s)
        return Leave(lease, self._epoch, start - now)

    def renew(self, leases: Iterable[str], now: float, lease_s: float) -> None:
        """Their owners live, and the requests are under way."""
        self._until |= dict.fromkeys(leases, now + lease_s)
        self.most_in_flight = max(self.most_in_flight, len(self._until))

    def give_back(self, slot: Slot, now: float) -> None:
        """The request is over."""
        self._until.pop(slot.leave.lease, None)
        if slot.pause_s is not None:
            self._next_start = max(self._next_start, now + slot.pause_s)
            if slot.leave.epoch == self._epoch:
                self._epoch += 1
                self._limit = max(1.0, self._limit / 2)
        elif slot.well and self._limit < self._ceiling:
            self._limit = min(float(self._ceiling), self._limit + 1 / self._limit)
