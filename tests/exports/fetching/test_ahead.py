"""Chips brought in batches: each once, in order, never more on the way than agreed, whatever fails."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from echo import CARD, SENSOR, EchoEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed import OutputSpec, PointBuffer
from rs_embed.core.settings import ModelKnobs
from rs_embed.embedders.base import ModelRequest, NetworkCache
from rs_embed.embedders.runtime.device import pick_device
from rs_embed.errors import Failure
from rs_embed.exports.fetching.ahead import BATCH_CHIPS, Ahead
from rs_embed.exports.fetching.reader import planned_fetches
from rs_embed.pipeline.plan import Job, plan_items
from rs_embed.pipeline.run import run
from rs_embed.testing import FieldProvider

SIDE_BYTES = 96 * 96 * 2 * 4
"""Of a chip of these tests: 96 px a side, two bands, float32."""


class Depot:
    """Brings batches in threads, and counts what is out."""

    def __init__(self, provider: FieldProvider, fails=lambda query: False) -> None:
        self._provider, self._fails = provider, fails
        self.batches: list[int] = []
        self.out = self.most_out = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(4)

    def _one(self, query):
        if self._fails(query):
            return ConnectionError(f"no answer for {query.geobox.affine.c:.0f}")
        return self._provider.fetch(query)

    def __call__(self, queries):
        with self._lock:
            self.batches.append(len(queries))
            self.out += 1
            self.most_out = max(self.most_out, self.out)
        future = self._pool.submit(lambda: [self._one(query) for query in queries])
        return _Held(self, future)


class _Held:
    """A batch; it counts as out until nobody holds it any more."""

    def __init__(self, depot: Depot, future) -> None:
        self._depot, self._future = depot, future

    def __call__(self):
        return self._future.result()

    def __del__(self) -> None:
        self._depot.out -= 1


def job(provider, workers: int = 3) -> Job:
    request = ModelRequest(CARD, ModelKnobs.read({"fetch_workers": workers}), ((CARD.modalities[0], SENSOR),))
    return Job(EchoEmbedder(request, pick_device("cpu"), NetworkCache()), provider, OutputSpec.pooled(), "resize")


def places(count: int, repeat: int = 0) -> list[PointBuffer]:
    found = [PointBuffer(12 + 0.01 * i, 47, 480) for i in range(count)]
    return found + found[:repeat]


def run_ahead(spots, depot, batch_bytes, batches, workers=3):
    direct = FieldProvider()
    ahead = Ahead(direct, depot, batch_bytes, batches)
    plan = plan_items(job(ahead, workers), spots, [None] * len(spots))
    ahead.announce("u000000", planned_fetches([str(i) for i in range(len(spots))], [plan]))
    return [result for _, result in run(plan)], direct


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 40),
    repeat=st.integers(0, 5),
    chips=st.integers(1, 9),
    batches=st.integers(1, 4),
    broken=st.integers(2, 9),
)
def test_every_place_gets_its_own_chip_and_nothing_is_fetched_twice(count, repeat, chips, batches, broken):
    spots = places(count, min(repeat, count))
    depot = Depot(FieldProvider(), lambda query: int(query.geobox.affine.c) % broken == 0)
    found, direct = run_ahead(spots, depot, chips * SIDE_BYTES, batches)
    plain = [result for _, result in run(plan_items(job(FieldProvider()), spots, [None] * len(spots)))]
    assert len(found) == len(plain)
    for one, other, spot in zip(found, plain, spots, strict=True):
        if isinstance(one, Failure):
            assert str(one).startswith("fetch: ConnectionError: no answer"), spot
        else:
            np.testing.assert_array_equal(one.data, other.data)
    assert max(depot.batches) <= chips
    assert sum(depot.batches) <= len(spots)
    assert not direct.queries


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 3])
def test_no_more_batches_are_out_than_agreed_and_one_for_each_thread(batches):
    depot = Depot(FieldProvider(), lambda query: random.Random(str(query.geobox)).random() < 0.2)
    run_ahead(places(100), depot, 4 * SIDE_BYTES, batches, workers=2)
    assert len(depot.batches) == 25
    assert 1 <= depot.most_out <= batches + 2
    assert depot.out == 0


def test_a_batch_of_small_chips_is_kept_short_and_a_chip_larger_than_a_batch_travels_alone():
    depot = Depot(FieldProvider())
    run_ahead(places(BATCH_CHIPS + 1), depot, 10**9, 2)
    assert depot.batches == [BATCH_CHIPS, 1]
    depot = Depot(FieldProvider())
    run_ahead(places(3), depot, 10, 2)
    assert depot.batches == [1, 1, 1]


def test_what_was_not_expected_is_fetched_directly():
    direct, depot = FieldProvider(), Depot(FieldProvider())
    ahead = Ahead(direct, depot, 10**9, 2)
    plan = plan_items(job(ahead), places(2), [None] * 2)
    ahead.announce("u000000", planned_fetches(["0"], [plan_items(job(ahead), places(1), [None])]))
    for item in plan.items:
        chip = ahead.fetch(item.queries[0])
        assert chip.geobox == item.queries[0].geobox
        assert chip.values.flags.writeable
    assert len(direct.queries) == 1


def test_a_batch_that_never_comes_fails_its_places_and_no_others():
    class Lost(Depot):
        def __call__(self, queries):
            held = super().__call__(queries)

            def wait():
                if queries[0] == second:
                    raise ConnectionError("gone")
                return held()

            return wait

    spots = places(6)
    second = plan_items(job(FieldProvider()), spots, [None] * 6).items[2].queries[0]
    found, _ = run_ahead(spots, Lost(FieldProvider()), 2 * SIDE_BYTES, 2, workers=1)
    assert [isinstance(one, Failure) for one in found] == [False, False, True, True, False, False]
