"""Try again what may succeed, wait as long as the service asks, give up in good time. Knows no service."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from rs_embed.core.stopping import sleep as sleep_unless_stopped
from rs_embed.errors import ProviderError
from rs_embed.providers.common.limiter import Clock, Limits, Sleep
from rs_embed.redact import cause_of, logger

T = TypeVar("T")
LOG = logger("rs_embed.providers")

_JITTER = random.Random()  # noqa: S311  (no secret; of our own, as the user may have seeded Python's)


@dataclass(frozen=True)
class Verdict:
    """What a failure means."""

    kind: Literal["final", "transient", "throttled", "unauthorised"]
    """"final": never again. "transient": again after a back-off. "throttled": too, and all slow down.
    "unauthorised": once more, as a token may have run out."""
    error: ProviderError
    """What the caller gets if it is not tried again."""
    retry_after_s: float | None = None
    """What the service asks us to wait."""


class Judge(Protocol):
    """Tells what the failures of one service mean."""

    @property
    def judges(self) -> tuple[type[Exception], ...]:
        """The exceptions that it knows; others are bugs, and pass."""
        ...

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """What one of them means."""
        ...


@dataclass(frozen=True)
class Backoff:
    """Waiting times: exponential, with full jitter."""

    first_s: float = 1.0
    """Longest first wait."""
    longest_s: float = 60.0
    """Longest wait of all, unless the service asks for more."""
    tries: int = 8
    """At most, the first one counted."""
    total_s: float = 600.0
    """No new try is started after so long."""


@dataclass(frozen=True)
class Waits:
    """How to wait; tests put in a clock of their own."""

    backoff: Backoff = field(default_factory=Backoff)
    clock: Clock = time.monotonic
    """Seconds that never go back."""
    sleep: Sleep = sleep_unless_stopped
    """Waits for so many seconds, or until the job of this thread is stopped."""
    jitter: Callable[[], float] = _JITTER.random
    """A number from 0 to 1, new every time."""


class Retry:
    """Makes requests of one service, through its limiter. Safe to call from several threads."""

    def __init__(self, judge: Judge, limiter: Limits, waits: Waits) -> None:
        """Take what decides: who judges this service's failures, who limits all who ask it, how long to wait."""
        self._judge, self._limiter, self._waits = judge, limiter, waits

    def call(self, request: Callable[[], T], doing: str) -> T:
        """What `request` returns, tried as often as makes sense; none begins once the job of this thread is stopped.

        Args:
            request: Asks the service, once.
            doing: For messages: "reading pixels".

        Raises:
            ProviderError: What the judge made of the last failure.
            Stopped: The job was stopped.
        """
        backoff, clock = self._waits.backoff, self._waits.clock
        started, renewed = clock(), False
        for attempt in range(1, backoff.tries + 1):
            with self._limiter.slot() as slot:
                try:
                    answer = request()
                except self._judge.judges as error:
                    verdict, cause = self._judge.verdict(error, doing), error
                else:
                    slot.succeeded()
                    return answer
                if verdict.kind == "throttled":
                    # Who calls next waits no longer than anybody would be told to, and then asks again.
                    slot.throttled(min(verdict.retry_after_s or 0.0, backoff.total_s))
            wait_s = self._wait_s(verdict, attempt, renewed=renewed)
            spent_s = clock() - started
            if wait_s is None or attempt == backoff.tries or spent_s + wait_s > backoff.total_s:
                raise _final(verdict, attempt, spent_s) from cause_of(cause)
            renewed = renewed or verdict.kind == "unauthorised"
            LOG.info("%s: %s Trying again in %.1f s (try %d).", doing, verdict.error.headline, wait_s, attempt)
            self._waits.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _wait_s(self, verdict: Verdict, attempt: int, *, renewed: bool) -> float | None:
        """Seconds until the next try; `None`: there shall be none."""
        if verdict.kind == "final" or (verdict.kind == "unauthorised" and renewed):
            return None
        if verdict.kind == "unauthorised":
            return 0.0
        backoff = self._waits.backoff
        ceiling_s = min(backoff.longest_s, backoff.first_s * 2.0 ** (attempt - 1))
        return (verdict.retry_after_s or 0.0) + ceiling_s * self._waits.jitter()


def _final(verdict: Verdict, attempts: int, spent_s: float) -> ProviderError:
    """The error, with how hard it was tried."""
    if attempts > 1:
        verdict.error.facts["tried"] = f"{attempts} times in {spent_s:.0f} s"
    return verdict.error
