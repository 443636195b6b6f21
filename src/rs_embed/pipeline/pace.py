"""How far ahead of the encoder large places are fetched: as far as it needs, so that few are in memory."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FEWEST = 2
"""Places at once: one is fetched while another is encoded."""
_WEIGHT = 0.3
"""Of the latest place in the mean duration."""


class Pace:
    """Measures how long places take to fetch and prepare, and to encode.

    Args:
        most: Largest number of places at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._prepare_s = self._encode_s = math.nan
        self._since = 0.0

    @property
    def ahead(self) -> int:
        """Places to fetch at the same time: as many as arrive while one is encoded, and one more."""
        wanted = math.ceil(self._prepare_s / max(self._encode_s, 1e-9)) if self._encode_s > 0 else 1
        return max(1, min(self._most, max(FEWEST, 1 + wanted)))

    def prepare(self, work: Callable[[], T]) -> T:
        """Prepare a place, in any thread."""
        started = time.perf_counter()
        done = work()
        self._prepare_s = _mean(self._prepare_s, time.perf_counter() - started)
        return done

    def begin(self, place: T) -> T:
        """Note that the encoder gets a place, and return the place."""
        self._since = time.perf_counter()
        return place

    def end(self) -> None:
        """Note that the encoder is done with it."""
        self._encode_s = _mean(self._encode_s, time.perf_counter() - self._since)


def _mean(before_s: float, latest_s: float) -> float:
    return latest_s if math.isnan(before_s) else (1 - _WEIGHT) * before_s + _WEIGHT * latest_s
