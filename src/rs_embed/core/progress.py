"""A progress bar for long jobs, and a message before long waits. Both are silent where nobody is looking."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

Advance = Callable[[int, int], None]
"""Called with the number done since the last call, and how many of them failed."""
_WATCHED: ContextVar[bool] = ContextVar("watched", default=False)


@contextmanager
def progress_bar(total: int | None, *, shown: bool, label: str = "", unit: str = "rows") -> Iterator[Advance]:
    """Show a progress bar on a terminal or in a notebook: count, rate, time left.

    Args:
        total: How many there are; `None` if unknown: then only the elapsed time is shown.
        shown: `False` shows nothing anywhere.
        label: What is being done, in one or two words.
        unit: What is counted.
    """
    from rich.console import Console

    console = Console(stderr=True)
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None  # without it, rich only warns
    if not (shown and (in_notebook or (console.is_terminal and not console.is_jupyter))):
        yield lambda done, failed: None
        return
    with _bar(console, unit, transient=total is None) as bar:
        task = bar.add_task(label, total=total, failed=0)
        failed = 0

        def advance(done: int, of_them_failed: int) -> None:
            nonlocal failed
            failed += of_them_failed
            bar.update(task, advance=done, failed=failed)

        yield advance
    sys.stderr.flush()


def _bar(console: "Console", unit: str, *, transient: bool) -> "Progress":
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Facts(ProgressColumn):
        """Count, rate, failures and time left, as far as they are known."""

        def render(self, task: "Task") -> Text:
            return Text(facts_of(task, unit))

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), Facts())
    return Progress(*columns, console=console, transient=transient)


def facts_of(task: "Task", unit: str) -> str:
    """Return the text beside a bar."""
    elapsed = task.elapsed or 0.0
    if task.total is None:
        return f"{duration(elapsed)} so far"
    facts = [f"{task.completed:,.0f} of {task.total:,.0f} {unit}"]
    speed = task.finished_speed or task.speed
    if speed:
        facts.append(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")
    if task.fields.get("failed"):
        facts.append(f"{task.fields['failed']:,} failed")
    if task.finished:
        facts.append(f"{duration(elapsed)} in all")
    elif task.time_remaining is not None:
        facts.append(f"{duration(task.time_remaining)} left")
    return ", ".join(facts)


def duration(seconds: float) -> str:
    """Format a duration: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def watched() -> Iterator[None]:
    """Let `stage` show bars for the calls inside: somebody is watching a terminal."""
    before = _WATCHED.set(True)
    try:
        yield
    finally:
        _WATCHED.reset(before)


@contextmanager
def stage(label: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show a bar for one step of a call, if the call is watched and there is more than one thing to do."""
    if not _WATCHED.get() or total == 1:
        yield lambda done, failed: None
        return
    with progress_bar(total, shown=True, label=label, unit=unit) as advance:
        yield advance


def announce(log: logging.Logger, text: str) -> None:
    """Announce something that takes a while: in the log, or on a terminal if the log would hide it."""
    from rich.console import Console

    console = Console(stderr=True)
    if log.isEnabledFor(logging.INFO):
        log.info(text)
    elif console.is_terminal or console.is_jupyter:
        console.print(text, style="dim", highlight=False)
