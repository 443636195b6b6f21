"""A progress bar for long jobs, and a message before long waits. Both are silent where nobody is looking."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

Advance = Callable[[int, int], None]
"""Called with the number of rows done since the last call, and how many of them failed."""


@contextmanager
def progress_bar(total: int, *, shown: bool) -> Iterator[Advance]:
    """Show a progress bar on a terminal or in a notebook."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None  # without it, rich only issues a warning
    visible = shown and (in_notebook or (console.is_terminal and not console.is_jupyter))
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}, {task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not visible, transient=False) as bar:
        task = bar.add_task("rows", total=total, rate="", failed=0)
        failed = 0

        def advance(done: int, of_them_failed: int) -> None:
            nonlocal failed
            failed += of_them_failed
            speed = bar.tasks[0].speed
            bar.update(task, advance=done, failed=failed, rate=f"{speed:.1f} rows/s" if speed else "")

        yield advance
    sys.stderr.flush()


def announce(log: logging.Logger, text: str) -> None:
    """Announce something that takes a while: in the log, or on a terminal if the log would hide it."""
    from rich.console import Console

    console = Console(stderr=True)
    if log.isEnabledFor(logging.INFO):
        log.info(text)
    elif console.is_terminal or console.is_jupyter:
        console.print(text, style="dim", highlight=False)
