"""Jobs that can be stopped, and threads that nobody waits for."""

import gc
import os
import signal
import threading
import time
import weakref
from functools import partial

import pytest

from rs_embed.core.signals import sigterm_as_interrupt
from rs_embed.core.stopping import PerProcess, Stop, Stopped, Threads, apart, current, outcome, sleep
from rs_embed.errors import PixelWarning, warn


def test_a_job_inside_of_another_ends_with_it_but_not_the_other_way_round():
    outer = Stop()
    inner, other = Stop(outer), Stop(outer)
    inner.set()
    assert inner.is_set and not outer.is_set and not other.is_set
    outer.set()
    assert other.is_set and Stop(outer).is_set


def test_work_is_done_for_the_job_of_the_thread_that_submits_it():
    threads, stop = Threads(1, "test"), Stop()
    with stop.here():
        asked = threads.submit(current)
    assert asked.result(timeout=60) is stop
    assert threads.submit(current).result(timeout=60) is current() is not stop


def test_a_warning_from_a_thread_points_at_the_line_that_its_work_was_submitted_from():
    threads, inner = Threads(1, "test"), Threads(1, "test-inner")
    quiet = partial(warn, "of a thread", PixelWarning)
    with pytest.warns(PixelWarning) as caught:
        threads.submit(quiet).result(timeout=60)
    assert caught[0].filename == __file__
    # And through a second pool, which no line of the user's submits to.
    with pytest.warns(PixelWarning) as caught:
        outcome(threads.submit(inner.submit, quiet)).result(timeout=60)
    assert caught[0].filename == __file__


def test_stopping_ends_a_wait_at_once_and_what_has_not_begun_never_begins():
    threads, stop, begun = Threads(1, "test"), Stop(), threading.Event()

    def wait():
        begun.set()
        sleep(3600)

    with stop.here():
        waiting, later = threads.submit(wait), threads.submit(int)
    begun.wait(300)
    stop.set()
    for future in (waiting, later):
        with pytest.raises(Stopped):
            future.result(timeout=60)


def test_no_more_threads_are_started_than_there_is_work():
    threads = Threads(8, "test-few")
    for _ in range(20):
        threads.submit(int).result(timeout=60)
    named = [one for one in threading.enumerate() if one.name.startswith("test-few")]
    assert len(named) <= 2  # one may not have come back for more yet


@pytest.mark.slow
def test_threads_end_when_nobody_holds_the_pool():
    threads = Threads(2, "test-end")
    threads.submit(int).result(timeout=60)
    gone = weakref.ref(threads)
    del threads
    gc.collect()
    assert gone() is None
    deadline = time.monotonic() + 60
    while any(one.name.startswith("test-end") for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.alone
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_pool_works_in_a_forked_process():
    threads = Threads(2, "test-fork")
    assert threads.submit(os.getpid).result() == os.getpid()
    child = os.fork()
    if child == 0:
        os._exit(0 if threads.submit(os.getpid).result(timeout=60) == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.alone
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_its_own_of_what_the_parent_holds_locked():
    lock = PerProcess(threading.Lock)
    mine = lock.here
    with mine:
        child = os.fork()
        if child == 0:
            os._exit(0 if lock.here is not mine and lock.here.acquire(timeout=60) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lock.here is mine


def test_what_the_main_thread_leaves_to_another_brings_its_answer_and_its_error():
    assert apart(threading.current_thread) is not threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)
    other = Threads(1, "test-other")
    assert other.submit(lambda: apart(threading.current_thread) is threading.current_thread()).result(timeout=60)


def test_an_interrupt_ends_what_hangs_outside_of_python_and_the_job_of_who_hangs():
    hanging, seen = threading.Event(), []
    go_on = threading.Event()

    def hang():
        threading.Timer(0.01, lambda: (hanging.wait(300), os.kill(os.getpid(), signal.SIGINT))).start()
        seen.append(current())
        hanging.set()
        go_on.wait(300)  # as GDAL would: hears nothing

    with pytest.raises(KeyboardInterrupt):
        apart(hang)
    go_on.set()
    assert seen[0].is_set and not current().is_set


def test_who_waits_for_a_pool_that_is_closed_hears_of_it():
    threads, begun, go_on = Threads(1, "test-close"), threading.Event(), threading.Event()
    busy = threads.submit(lambda: begun.set() or go_on.wait(300))
    waiting = threads.submit(int)
    begun.wait(300)
    threads.close()
    with pytest.raises(Stopped):
        waiting.result(timeout=60)
    go_on.set()
    assert busy.result(timeout=60)
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit(int)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that Python loses it is the point
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_python_loses_ends_the_next_wait(number):
    threads, never, went_on = Threads(1, "test-lost"), threading.Event(), []

    def lose_one_and_wait():
        weakref.finalize(Threads(1, "test-gone"), signal.raise_signal, number)  # raised where nobody listens
        went_on.append(True)
        outcome(threads.submit(never.wait))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us without
    try:
        with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt() as heard:
            lose_one_and_wait()
    finally:
        signal.signal(signal.SIGINT, before)
    assert went_on
    assert heard.sigterm == (number == signal.SIGTERM)
    never.set()
    assert outcome(threads.submit(int)) == 0  # it ends that wait, and no later one
