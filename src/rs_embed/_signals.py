"""Signals that stop: SIGTERM taken as Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a stop by hand, as Ctrl-C."""


@dataclass
class Heard:
    """Which signals came."""

    sigterm: bool = False


@contextmanager
def sigterm_as_interrupt() -> Iterator[Heard]:
    """A scheduler's SIGTERM stops like Ctrl-C: files are closed, and what is finished stays.

    Only in the main thread, where Python hears signals, and only where nobody else has a use for it.
    """
    heard = Heard()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield heard
        return

    def stop(number: int, frame: FrameType | None) -> None:
        heard.sigterm = True
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
