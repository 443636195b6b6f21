"""Bars: what stands beside them, and that nobody sees one who does not look."""

import io
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest

from rs_embed.core.progress import duration, facts_of, progress_bar, stage, watched


def task(**facts):
    known = {"total": 400, "completed": 100, "elapsed": 10.0, "speed": 10.0, "finished_speed": None, "fields": {}}
    return SimpleNamespace(**(known | {"finished": False, "time_remaining": 30.0} | facts))


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "100 of 400 rows, 10.0/s, 30 s left"),
        ({"fields": {"failed": 7}}, "100 of 400 rows, 10.0/s, 7 failed, 30 s left"),
        ({"speed": 0.25}, "100 of 400 rows, 4.0 s each, 30 s left"),
        ({"speed": None, "time_remaining": None, "completed": 0}, "0 of 400 rows"),
        ({"finished": True, "completed": 400}, "400 of 400 rows, 10.0/s, 10 s in all"),
        ({"total": None}, "10 s so far"),
    ],
)
def test_beside_a_bar_stand_count_rate_failures_and_time_left(facts, text):
    assert facts_of(task(**facts), "rows") == text


@pytest.mark.parametrize(("seconds", "text"), [(7.6, "8 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_times_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def said(monkeypatch):
    """What a job says to a terminal, or to a log."""
    monkeypatch.setenv("TERM", "xterm")

    def listen(job, stream: io.StringIO) -> str:
        with redirect_stderr(stream):
            job()
        return stream.getvalue()

    return listen


def bar(**options):
    def job():
        with progress_bar(4, **options) as advance:
            advance(3, 1)
            advance(1, 0)

    return job


def test_a_terminal_gets_a_bar_and_a_log_does_not(said):
    text = said(bar(shown=True, label="verify", unit="units"), Terminal())
    assert "verify" in text and "4 of 4 units" in text and "1 failed" in text
    assert said(bar(shown=True), io.StringIO()) == ""
    assert said(bar(shown=False), Terminal()) == ""


def step(total):
    with stage("encode", total, "windows") as advance:
        advance(total, 0)


def test_a_step_shows_itself_only_while_somebody_watches(said):
    assert said(lambda: step(8), Terminal()) == ""
    with watched():
        assert "8 of 8 windows" in said(lambda: step(8), Terminal())
        assert said(lambda: step(1), Terminal()) == ""  # nothing to wait for
        assert said(lambda: step(8), io.StringIO()) == ""
