"""The rule that decides how many requests a service gets at once, without threads and without a clock.

`Limiter` applies it to the threads of a process, the Ray engine to all processes of a cluster.
"""

from collections.abc import Iterable
from dataclasses import dataclass

FOREVER = float("inf")


@dataclass(frozen=True)
class Permit:
    """Permission to make one request."""

    lease: str
    """Whose."""
    epoch: int
    """How often the limit had been halved when the permit was granted."""
    wait_s: float
    """Seconds until the request may start."""


@dataclass
class Slot:
    """A permit in use. Its holder reports the outcome of the request."""

    permit: Permit
    pause_s: float | None = None
    """Set if the service answered "too many requests": no request starts for this many seconds."""
    well: bool = False

    def throttled(self, pause_s: float = 0.0) -> None:
        """Report "too many requests": all slow down, and no request starts for `pause_s` seconds."""
        self.pause_s = pause_s

    def succeeded(self) -> None:
        """Report a success."""
        self.well = True


class Policy:
    """Limits requests at the same time and per second.

    Additive increase, multiplicative decrease: the limit halves when the service throttles (once for all requests
    that were under way together), and grows by one for every `limit` successes, up to the ceiling.

    Args:
        ceiling: Largest number of requests at the same time.
        qps: Largest number of requests started per second; `None` means no limit.
        now: The time in seconds, from a clock that never goes back; the same in all methods.
    """

    def __init__(self, ceiling: int, qps: float | None, now: float) -> None:
        self._ceiling, self._qps = ceiling, qps
        self._limit, self._epoch, self._next_start = float(ceiling), 0, now
        self._until: dict[str, float] = {}
        self.most_in_flight: int = 0
        """The most requests that were ever under way together."""

    @property
    def limit(self) -> int:
        """Number of requests currently allowed at the same time."""
        return max(1, int(self._limit))

    def in_flight(self, now: float) -> int:
        """Number of requests under way: permits that are neither returned nor expired."""
        self._until = {name: until for name, until in self._until.items() if until > now}
        return len(self._until)

    def configure(self, ceiling: int, qps: float | None) -> None:
        """Change the limits."""
        if (ceiling, qps) != (self._ceiling, self._qps):
            self._ceiling, self._qps, self._limit = ceiling, qps, float(ceiling)

    def take(self, lease: str, now: float, lease_s: float = FOREVER) -> Permit | None:
        """Grant a permit for one request; `None` if none is free.

        Args:
            lease: A unique name.
            now: The time.
            lease_s: Seconds until the permit expires unless its holder renews it.
        """
        if self.in_flight(now) >= self.limit:
            return None
        start = max(now, self._next_start)
        self._next_start = start + (1 / self._qps if self._qps else 0.0)
        self.renew([lease], now, lease_s)
        return Permit(lease, self._epoch, start - now)

    def renew(self, leases: Iterable[str], now: float, lease_s: float) -> None:
        """Renew leases: their requests are still under way."""
        self._until |= dict.fromkeys(leases, now + lease_s)
        self.most_in_flight = max(self.most_in_flight, len(self._until))

    def give_back(self, slot: Slot, now: float) -> None:
        """Return a permit: its request is over."""
        self._until.pop(slot.permit.lease, None)
        if slot.pause_s is not None:
            self._next_start = max(self._next_start, now + slot.pause_s)
            if slot.permit.epoch == self._epoch:
                self._epoch += 1
                self._limit = max(1.0, self._limit / 2)
        elif slot.well and self._limit < self._ceiling:
            self._limit = min(float(self._ceiling), self._limit + 1 / self._limit)
