"""The one path that every call takes: order, sharing, failures, memory, stopping."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from echo import EchoEmbedder, echo

from rs_embed import OutputSpec, PointBuffer, TemporalSpec
from rs_embed.core.stopping import Stop, Stopped, Threads, current
from rs_embed.embedding.batch import Embeddings
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import Failure, NoImagery, OutOfMemory
from rs_embed.pipeline.plan import Job, Workload, plan_items
from rs_embed.pipeline.run import run, run_together
from rs_embed.providers.common.checked import Checked
from rs_embed.testing import FieldProvider

YEAR = TemporalSpec.year(2022)


class Slow(FieldProvider):
    """Takes its time, and knows how many are with it at once."""

    def __init__(self, seconds: float = 0.0, fails=lambda query: False):
        super().__init__()
        self.seconds, self.fails = seconds, fails
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def fetch(self, query):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            time.sleep(self.seconds)
            if self.fails(query):
                raise NoImagery("Expected imagery, got none.", fix="ask again")
            return super().fetch(query)
        finally:
            with self.lock:
                self.inside -= 1


def places(count: int) -> list[PointBuffer]:
    return [PointBuffer(lon=12.0 + i / 100, lat=47.0, buffer_m=480) for i in range(count)]


def plan_of(provider, count: int, output: OutputSpec = OutputSpec.pooled()) -> Workload:
    return plan_items(Job(echo(), provider, output, "crop"), places(count), [YEAR] * count)


def test_results_come_in_the_order_of_the_items_whichever_is_fetched_first():
    class Backwards(FieldProvider):
        def fetch(self, query):
            time.sleep(0.03 * (7 - len(self.queries) % 8))
            return super().fetch(query)

    results = list(run(plan_of(Backwards(), 20)))
    assert [index for index, _ in results] == list(range(20))
    assert [one.meta.spatial for _, one in results] == [repr(place) for place in places(20)]


def test_two_models_on_the_same_imagery_fetch_it_once():
    provider = FieldProvider()
    both = list(run_together([plan_of(provider, 6), plan_of(provider, 6, OutputSpec.grid())]))
    assert len(provider.queries) == 6
    for index, (vector, grid) in both:
        np.testing.assert_allclose(vector.data, grid.data.mean(axis=(1, 2)), rtol=1e-6)
        assert vector.meta.spatial == repr(places(6)[index])


def test_imagery_that_cannot_be_had_is_asked_for_once_and_fails_for_every_model():
    provider = Slow(fails=lambda query: True)
    ((_, results),) = run_together([plan_of(provider, 1), plan_of(provider, 1, OutputSpec.grid())])
    assert all(isinstance(one, Failure) and one.stage == "fetch" for one in results)
    assert provider.queries == []


def test_a_failed_item_stands_among_the_others():
    provider = Slow(fails=lambda query: query.geobox == plan_of(FieldProvider(), 5).items[3].queries[0].geobox)
    results = [result for _, result in run(plan_of(provider, 5))]
    assert [isinstance(one, Failure) for one in results] == [False, False, False, True, False]
    assert str(results[3]) == "fetch: NoImagery: Expected imagery, got none.\n  fix: ask again"


def test_fetches_run_at_the_same_time():
    provider = Slow(0.05)
    assert len(list(run(plan_of(provider, 32)))) == 32
    assert provider.most == 8


def test_little_memory_means_few_on_their_way_but_always_one(monkeypatch):
    chip_bytes = plan_of(FieldProvider(), 1).items[0].queries[0].nbytes
    assert chip_bytes == 4 * 2 * 96 * 96
    for budget, most in ((1, 1), (9.5 * chip_bytes, 3)):
        monkeypatch.setenv("RS_EMBED_MEMORY_GB", str(budget / 1e9))
        provider = Slow(0.02)
        assert len(list(run(plan_of(provider, 10)))) == 10
        assert provider.most == most


def test_a_place_larger_than_the_memory_of_the_machine_fails_before_it_is_fetched(monkeypatch):
    provider = FieldProvider()
    plan = plan_of(provider, 2)
    chip = sum(query.nbytes for query in plan.items[0].queries)
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 3 * chip}.__getitem__)
    assert all(isinstance(result, Embedding) for _, result in run(plan))
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 3 * chip - 1}.__getitem__)
    provider.queries.clear()
    failures = [result for _, result in run(plan)]
    assert [type(failure.error) for failure in failures] == [OutOfMemory] * 2
    assert "smaller buffer_m" in str(failures[0].error)
    assert provider.queries == []


class Hung(FieldProvider):
    """Answers a few, then hangs as a service that never answers, until it is let go."""

    def __init__(self, answers: int = 0) -> None:
        super().__init__()
        self.answers, self.go_on = answers, threading.Event()
        self.lock, self.begun, self.hanging, self.jobs = threading.Lock(), 0, threading.Event(), []

    def fetch(self, query):
        with self.lock:
            self.begun += 1
            hangs = self.begun > self.answers
        if hangs:
            self.jobs.append(current())
            self.hanging.set()
            self.go_on.wait(300)  # as C code: hears of nothing
        return super().fetch(query)


@pytest.fixture
def threads_end():
    """Waits until the threads of this test have ended; an earlier one may have abandoned some of its own."""
    before = set(threading.enumerate())

    def wait() -> None:
        deadline = time.monotonic() + 300
        while any(one.name.startswith("rs-embed") for one in set(threading.enumerate()) - before):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


def interrupt_when(hanging: threading.Event) -> None:
    threading.Thread(target=lambda: (hanging.wait(300), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()


def test_closing_waits_for_no_fetch_begins_no_more_and_leaves_no_thread(threads_end):
    provider = Hung(answers=20)
    results = run(plan_of(provider, 200))
    next(results)
    assert provider.hanging.wait(300)
    results.close()
    begun = provider.begun
    assert all(job.is_set for job in provider.jobs)
    provider.go_on.set()
    threads_end()
    assert provider.begun <= begun + 8  # a thread may have been about to ask


@pytest.mark.parametrize("count", [1, 40])
def test_ctrl_c_ends_a_call_whose_provider_hangs_and_what_hangs_is_told(count, threads_end):
    provider = Hung()
    plan = plan_of(Checked(provider), count)
    interrupt_when(provider.hanging)
    with pytest.raises(KeyboardInterrupt):
        list(run(plan))
    assert provider.begun <= 8 and all(job.is_set for job in provider.jobs)
    begun = provider.begun
    provider.go_on.set()
    threads_end()
    assert provider.begun <= begun + 8
    assert not current().is_set  # the next call is another job
    assert len(list(run(plan))) == count


def test_an_error_while_encoding_ends_the_fetches_while_it_is_being_handled(monkeypatch, threads_end):
    provider = Hung(answers=20)
    plan = plan_of(provider, 200)
    monkeypatch.setattr(EchoEmbedder, "encode", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as caught:
        list(run(plan))
    provider.go_on.set()
    threads_end()
    assert provider.begun < 60 and caught.tb is not None  # though the traceback keeps every frame


def test_a_job_that_is_stopped_ends_as_a_whole_and_is_no_failed_row(threads_end):
    stop, provider = Stop(), Hung(answers=4)
    threads = Threads(1, "test", stop)
    asked = threads.submit(lambda: list(run(plan_of(provider, 40))))
    assert provider.hanging.wait(300)
    stop.set()
    provider.go_on.set()
    with pytest.raises(Stopped):
        asked.result(timeout=60)
    threads_end()


def test_results_stack_and_make_a_table_with_holes_where_items_failed():
    done = [result for _, result in run(plan_of(FieldProvider(), 2))]
    results = Embeddings([done[0], Failure(1, "fetch", NoImagery("none")), done[1]], ids=["a", "b", "ü/../c"])
    stacked = results.stack()
    assert stacked.shape == (3, *done[0].data.shape)
    assert np.isnan(stacked[1]).all()
    frame = results.to_frame()
    assert list(frame.index) == ["a", "b", "ü/../c"]
    assert list(frame["status"]) == ["ok", "failed", "ok"]
    assert frame.loc["b", "error"] == "fetch: NoImagery: none"
    np.testing.assert_array_equal(frame.loc["a", "embedding"], done[0].data)
    assert [failure.index for failure in results.failures] == [1]


def test_thousands_of_results_are_printed_in_one_line():
    done = [result for _, result in run(plan_of(FieldProvider(), 1))]
    text = repr(
        Embeddings([*done * 1000, Failure(1000, "fetch", NoImagery("none"))], ids=[str(i) for i in range(1001)])
    )
    assert text == f"Embeddings(1,001 places, 1 failed, first: {done[0]!r})"


def test_what_has_no_common_shape_is_not_stacked():
    done = [result for _, result in run(plan_of(FieldProvider(), 1))]
    grid = [result for _, result in run(plan_of(FieldProvider(), 1, OutputSpec.grid()))]
    assert isinstance(done[0], Embedding)
    with pytest.raises(Exception, match="one shape"):
        Embeddings(done + grid, ids=["a", "b"]).stack()
