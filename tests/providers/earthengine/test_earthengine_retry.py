"""Retries, back-off and the shared limit, on a clock that does not tick by itself."""

import threading
from dataclasses import dataclass, field

import pytest

from rs_embed.errors import ProviderError, QuotaExceeded, ServiceUnavailable
from rs_embed.providers.common.limiter import Limiter, shared_limiter
from rs_embed.providers.common.retry import Backoff, Retry, Verdict, Waits


@dataclass
class FakeTime:
    """Sleeping is what makes it pass."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Broken(Exception):
    pass


class FakeJudge:
    """Each failure carries its own verdict."""

    judges = (Broken,)

    def verdict(self, error: Exception, doing: str) -> Verdict:
        return error.args[0]


TRANSIENT = Verdict("transient", ServiceUnavailable("down."))
FINAL = Verdict("final", ProviderError("no."))
UNAUTHORISED = Verdict("unauthorised", ProviderError("who?"))


def throttled(retry_after_s: float | None = None) -> Verdict:
    return Verdict("throttled", QuotaExceeded("too many."), retry_after_s)


class Script:
    """A request that fails as the script says, then answers."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.verdicts:
            raise Broken(self.verdicts.pop(0))
        return "answer"


def retry(time: FakeTime, limiter: Limiter | None = None, **backoff: float) -> Retry:
    limiter = limiter or Limiter(20, clock=time.clock, sleep=time.sleep)
    return Retry(FakeJudge(), limiter, Waits(Backoff(**backoff), time.clock, time.sleep, jitter=lambda: 1.0))


def test_what_is_transient_is_tried_again_after_waits_that_double_up_to_a_ceiling():
    time, request = FakeTime(), Script(*[TRANSIENT] * 5)
    assert retry(time, first_s=1, longest_s=6).call(request, "asking") == "answer"
    assert time.slept == [1, 2, 4, 6, 6]


def test_a_wait_is_drawn_from_zero_up_to_that():
    time, request = FakeTime(), Script(TRANSIENT, TRANSIENT)
    draws = iter([0.5, 0.25])
    waits = Waits(Backoff(first_s=1), time.clock, time.sleep, jitter=lambda: next(draws))
    Retry(FakeJudge(), Limiter(1, clock=time.clock), waits).call(request, "asking")
    assert time.slept == [0.5, 0.5]


def test_what_is_final_is_asked_once_and_keeps_its_cause():
    request = Script(FINAL, TRANSIENT)
    with pytest.raises(ProviderError, match="no") as caught:
        retry(FakeTime()).call(request, "asking")
    assert request.asked == 1
    assert isinstance(caught.value.__cause__, Broken)
    assert "tried" not in caught.value.facts


def test_a_refused_token_is_tried_once_more_at_once():
    time, request = FakeTime(), Script(UNAUTHORISED)
    assert retry(time).call(request, "asking") == "answer"
    assert time.slept == [0.0]
    request = Script(UNAUTHORISED, UNAUTHORISED)
    with pytest.raises(ProviderError, match="who"):
        retry(FakeTime()).call(request, "asking")
    assert request.asked == 2


def test_retry_after_is_waited_out_in_full():
    time, request = FakeTime(), Script(throttled(retry_after_s=30))
    retry(time, first_s=1).call(request, "asking")
    assert time.now >= 30


def test_a_service_that_asks_for_more_patience_than_there_is_is_not_asked_again():
    time, request = FakeTime(), Script(throttled(retry_after_s=700))
    with pytest.raises(QuotaExceeded):
        retry(time, total_s=600).call(request, "asking")
    assert request.asked == 1
    assert time.slept == []


def test_it_gives_up_after_the_last_try_or_the_total_time_and_says_how_hard_it_tried():
    time, request = FakeTime(), Script(*[TRANSIENT] * 99)
    with pytest.raises(ServiceUnavailable, match="down") as caught:
        retry(time, tries=4, first_s=1).call(request, "asking")
    assert request.asked == 4
    assert caught.value.facts["tried"] == "4 times in 7 s"
    time, request = FakeTime(), Script(*[TRANSIENT] * 99)
    with pytest.raises(ServiceUnavailable):
        retry(time, tries=99, first_s=10, longest_s=10, total_s=45).call(request, "asking")
    assert time.now <= 45
    assert request.asked == 5


def test_every_wait_is_logged(caplog):
    caplog.set_level("INFO", logger="rs_embed.providers")
    retry(FakeTime(), first_s=1).call(Script(TRANSIENT, throttled()), "reading pixels")
    assert len(caplog.records) == 2
    assert "reading pixels: down. Trying again in 1.0 s" in caplog.text


def test_an_exception_that_the_judge_does_not_know_passes_through():
    def request() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        retry(FakeTime()).call(request, "asking")


def test_requests_that_are_throttled_together_halve_the_limit_once():
    limiter = Limiter(20)
    with limiter.slot() as one, limiter.slot() as other:
        one.throttled()
        other.throttled()
    assert limiter.limit == 10
    with limiter.slot() as later:
        later.throttled()
    assert limiter.limit == 5
    for _ in range(10):
        with limiter.slot() as slot:
            slot.throttled()
    assert limiter.limit == 1


def test_the_limit_grows_by_one_for_as_many_successes_as_it_allows_and_no_higher_than_agreed():
    limiter = Limiter(4)
    with limiter.slot() as slot:
        slot.throttled()
    for needed, limit in ((3, 3), (4, 4)):
        for _ in range(needed):
            with limiter.slot() as slot:
                slot.succeeded()
        assert limiter.limit == limit
    for _ in range(50):
        with limiter.slot() as slot:
            slot.succeeded()
    assert limiter.limit == 4


def test_a_pause_that_the_service_asks_for_holds_for_all_threads():
    time = FakeTime()
    limiter = Limiter(4, clock=time.clock, sleep=time.sleep)
    with limiter.slot() as slot:
        slot.throttled(pause_s=12)
    with limiter.slot():
        assert time.now == 12


def test_requests_per_second_are_spaced():
    time = FakeTime()
    limiter = Limiter(4, qps=5, clock=time.clock, sleep=time.sleep)
    starts = []
    for _ in range(4):
        with limiter.slot():
            starts.append(time.now)
    assert starts == pytest.approx([0, 0.2, 0.4, 0.6])


def test_never_more_requests_than_the_limit_are_under_way():
    limiter, under_way, most, lock = Limiter(3), 0, 0, threading.Lock()
    gate = threading.Event()

    def work() -> None:
        nonlocal under_way, most
        with limiter.slot():
            with lock:
                under_way += 1
                most = max(most, under_way)
            gate.wait(0.01)
            with lock:
                under_way -= 1

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == limiter.most_in_flight == 3


def test_an_account_has_one_limiter_and_the_newest_word_counts():
    one = shared_limiter("test account", 20, None)
    assert shared_limiter("test account", 7, None) is one
    assert one.limit == 7
    assert shared_limiter("other account", 20, None) is not one
