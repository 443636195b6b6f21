"""Measure how fast the models of an export run here, on synthetic pixels."""

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rs_embed.core.chip import Chip
from rs_embed.errors import RSEmbedWarning, SpecError
from rs_embed.exports.estimate import Rate
from rs_embed.pipeline.plan import plan_items
from rs_embed.places import Places
from rs_embed.places.columns import Place
from rs_embed.providers.base import Provider, Query, Wrapped
from rs_embed.testing import FieldProvider

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Job, Workload

SECONDS = 5.0
"""Approximate duration of the measurement, after a first batch that does not count."""
_CHIPS = 64
"""Largest number of chips per round."""
_CHIP_BYTES = 2e8
"""Size of the chips of a round, about; the blocks of a map are large."""


class _MadeUp(Wrapped):
    """Gives synthetic pixels; each chip is made once."""

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider)
        self._field = FieldProvider()
        self._made: dict[Query, Chip] = {}

    def fetch(self, query: Query) -> Chip:
        if query not in self._made:
            self._made[query] = self._field.fetch(query)
        return self._made[query]


def measure_rate(jobs: "Mapping[str, Job]", places: Places) -> Rate:
    """Measure rows per second of all models together, without fetching. Loads the networks.

    The places are those of the table; their pixels are synthetic, and made before the clock starts.

    Raises:
        SpecError: None of the first places is valid.
    """
    from rs_embed.pipeline.run import run_together  # loads torch

    good: list[Place] = []
    size = 0
    for place in (places[index] for index in range(min(_CHIPS, len(places)))):
        laid = [_laid(job, [place]) for job in jobs.values()]
        if None not in laid and size <= _CHIP_BYTES:
            good.append(place)
            size += sum(query.nbytes for work in laid if work for query in work.items[0].queries)
    works = [work for job in jobs.values() if (work := _laid(job, good)) is not None]
    if not good:
        raise SpecError("Expected a valid place to measure the rate with, got none.", fix="check the table")
    done = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RSEmbedWarning)
        for _ in run_together(works):
            pass
        started = time.perf_counter()
        while time.perf_counter() < started + SECONDS:
            done += sum(1 for _ in run_together(works))
    return Rate(done / (time.perf_counter() - started), "measured here")


def _laid(job: "Job", places: Sequence[Place]) -> "Workload | None":
    with suppress(SpecError):
        job = replace(job, provider=_MadeUp(job.provider))
        return plan_items(job, [place.spatial for place in places], [place.window for place in places])
    return None
