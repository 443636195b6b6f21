"""Treat SIGTERM like Ctrl-C, and make sure that neither is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from rs_embed.core.stopping import INTERRUPTS


class Terminated(KeyboardInterrupt):
    """Raised when SIGTERM arrives; like Ctrl-C, it stops the job."""


@dataclass
class Heard:
    """Which signals have arrived."""

    sigterm: bool = False


@contextmanager
def sigterm_as_interrupt() -> Iterator[Heard]:
    """Stop on SIGTERM as on Ctrl-C: files are closed, and finished work is kept.

    This works only in the main thread, where Python handles signals, and only if SIGTERM has no other handler. Ctrl-C
    raises KeyboardInterrupt as always; it is also recorded, so that `outcome` can raise it if Python has lost it.
    """
    heard = Heard()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield heard
        return

    def stop(number: int, frame: FrameType | None) -> None:
        heard.sigterm = heard.sigterm or number == signal.SIGTERM
        INTERRUPTS.came = Terminated if heard.sigterm else KeyboardInterrupt
        raise INTERRUPTS.came

    before: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], object]]
    before = {signal.SIGTERM: signal.SIG_DFL}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.default_int_handler
    for number in before:
        signal.signal(number, stop)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        INTERRUPTS.came = None
