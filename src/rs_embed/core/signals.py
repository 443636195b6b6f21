"""Signals that stop: SIGTERM taken as Ctrl-C, and neither of them lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from rs_embed.core.stopping import INTERRUPTS


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a stop by hand, as Ctrl-C."""


@dataclass
class Heard:
    """Which signals came."""

    sigterm: bool = False


@contextmanager
def sigterm_as_interrupt() -> Iterator[Heard]:
    """A scheduler's SIGTERM stops like Ctrl-C: files are closed, and what is finished stays.

    Only in the main thread, where Python hears signals, and only where nobody else has a use for it. Ctrl-C raises what
    it always does; beside that it is remembered, for `outcome` to raise where Python has lost it.
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
