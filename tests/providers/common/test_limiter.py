"""Who waits for leave, or between two tries, ends with the job; no request begins after it."""

import os
import threading

import pytest

from rs_embed.core.stopping import Stop, Stopped, Threads
from rs_embed.errors import ServiceUnavailable
from rs_embed.providers.common.limiter import Limiter
from rs_embed.providers.common.retry import Backoff, Retry, Verdict, Waits

LONG_S = 3600.0


class Down:
    """Judges every failure worth another try, much later."""

    judges = (OSError,)

    def verdict(self, error, doing):
        return Verdict("transient", ServiceUnavailable("down"), retry_after_s=LONG_S)


def ask(limiter, request):
    waits = Waits(Backoff(total_s=10 * LONG_S))
    return Retry(Down(), limiter, waits).call(request, "asking")


def test_who_waits_for_room_ends_with_the_job_and_takes_no_room():
    limiter, stop, threads = Limiter(1), Stop(), Threads(2, "test")
    begun, go_on = threading.Event(), threading.Event()
    first = threads.submit(ask, limiter, lambda: begun.set() or go_on.wait(300))
    begun.wait(300)
    with stop.here():
        second = threads.submit(ask, limiter, lambda: "asked")
    stop.set()
    with pytest.raises(Stopped):
        second.result(timeout=60)
    go_on.set()
    assert first.result(timeout=60) is True
    assert ask(limiter, lambda: "asked") == "asked"


def test_who_waits_for_his_turn_by_the_second_ends_with_the_job_and_gives_the_room_back():
    limiter, stop = Limiter(1, qps=1 / LONG_S), Stop()
    ask(limiter, int)
    with stop.here():
        second = Threads(1, "test").submit(ask, limiter, lambda: "asked")
    stop.set()
    with pytest.raises(Stopped):
        second.result(timeout=60)
    limiter.configure(1, None)
    assert limiter.take().wait_s > 0  # there is room, if not yet time


def test_who_waits_between_two_tries_ends_with_the_job_and_asks_no_more():
    stop, asked, failed = Stop(), [], threading.Event()

    def request():
        asked.append(1)
        failed.set()
        raise OSError

    with stop.here():
        trying = Threads(1, "test").submit(ask, Limiter(1), request)
    failed.wait(300)
    stop.set()
    with pytest.raises(Stopped):
        trying.result(timeout=60)
    assert len(asked) == 1


def test_no_request_begins_for_a_job_that_was_stopped():
    stop, asked = Stop(), []
    stop.set()
    with stop.here(), pytest.raises(Stopped):
        ask(Limiter(1), lambda: asked.append(1))
    assert not asked


@pytest.mark.alone
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_all_the_room_though_the_parent_is_asking():
    limiter, go_on, begun = Limiter(1), threading.Event(), threading.Event()
    asking = Threads(1, "test").submit(ask, limiter, lambda: begun.set() or go_on.wait(300))
    begun.wait(300)
    child = os.fork()
    if child == 0:
        os._exit(0 if ask(limiter, lambda: 7) == 7 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    assert asking.result(timeout=60)
