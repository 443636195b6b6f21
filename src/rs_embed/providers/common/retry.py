"""Retry requests that may succeed, wait as long as the service asks, and give up in time; for any service."""

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

_JITTER = random.Random()  # noqa: S311  (not a secret; separate, as the user may have seeded Python's)


@dataclass(frozen=True)
class Verdict:
    """What to do after a failure."""

    kind: Literal["final", "transient", "throttled", "unauthorised"]
    """"final": do not retry. "transient": retry after a back-off. "throttled": the same, and all requests slow down.
    "unauthorised": retry once, as a token may have expired."""
    error: ProviderError
    """The error to raise if there is no further try."""
    retry_after_s: float | None = None
    """The waiting time that the service asks for, seconds."""


class Judge(Protocol):
    """Interprets the failures of one service."""

    @property
    def judges(self) -> tuple[type[Exception], ...]:
        """The exceptions that it interprets; others are bugs and are not caught."""
        ...

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """Interpret an exception."""
        ...


@dataclass(frozen=True)
class Backoff:
    """Waiting times: exponential, with full jitter."""

    first_s: float = 1.0
    """Upper limit of the first wait, seconds."""
    longest_s: float = 60.0
    """Upper limit of any wait, seconds, unless the service asks for more."""
    tries: int = 8
    """Largest number of tries, including the first."""
    total_s: float = 600.0
    """No try starts after this time, seconds."""


@dataclass(frozen=True)
class Waits:
    """How to wait; tests inject their own clock."""

    backoff: Backoff = field(default_factory=Backoff)
    clock: Clock = time.monotonic
    """Returns seconds that never decrease."""
    sleep: Sleep = sleep_unless_stopped
    """Waits for a number of seconds, or until the job of this thread is stopped."""
    jitter: Callable[[], float] = _JITTER.random
    """Returns a random number from 0 to 1."""


class Retry:
    """Makes requests of one service, through its limiter. Safe to call from several threads."""

    def __init__(self, judge: Judge, limiter: Limits, waits: Waits) -> None:
        """Store what interprets failures, what limits requests, and how long to wait."""
        self._judge, self._limiter, self._waits = judge, limiter, waits

    def call(self, request: Callable[[], T], doing: str) -> T:
        """Return what `request` returns, with retries; no try begins once the job of this thread is stopped.

        Args:
            request: Makes one request to the service.
            doing: What it does, for messages: "reading pixels".

        Raises:
            ProviderError: The last try failed.
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
                    # The next caller waits no longer than a retry may take, and then tries again.
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
        """Return the seconds until the next try; `None` if there is none."""
        if verdict.kind == "final" or (verdict.kind == "unauthorised" and renewed):
            return None
        if verdict.kind == "unauthorised":
            return 0.0
        backoff = self._waits.backoff
        ceiling_s = min(backoff.longest_s, backoff.first_s * 2.0 ** (attempt - 1))
        return (verdict.retry_after_s or 0.0) + ceiling_s * self._waits.jitter()


def _final(verdict: Verdict, attempts: int, spent_s: float) -> ProviderError:
    """Return the error, with the number of tries."""
    if attempts > 1:
        verdict.error.facts["tried"] = f"{attempts} times in {spent_s:.0f} s"
    return verdict.error
