"""The local engine: this process runs one unit after the other."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from rs_embed.core.stopping import Stop, current
from rs_embed.exports.engines.base import Order, RunStamp
from rs_embed.exports.fetching.ahead import Ahead, bring_by_threads
from rs_embed.exports.fetching.shared_reads import WINDOW_BYTES
from rs_embed.exports.object_store import do_at
from rs_embed.exports.work import Advance, Task, Work, run_unit
from rs_embed.providers.base import Provider


class LocalExecutor:
    """See `Executor`."""

    def __init__(self, order: Order) -> None:
        self._order, self._setup = order, order.set_up(order.request.device)

    def facts(self) -> dict[str, JsonValue]:
        """See `Executor`."""
        return self._setup.facts()

    def run(self, stamp: RunStamp, tasks: Iterable[Task], advance: Advance) -> None:
        """See `Executor`."""
        stop = Stop(current())
        try:
            for task in tasks:
                do_at(self._order.where, partial(self._work, stamp, stop), task, advance, run_unit)
        finally:
            stop.set()

    def _work(self, stamp: RunStamp, stop: Stop, folder: Path) -> Work:
        work = self._setup.work(stamp, folder)
        if not self._order.request.share_reads:
            return work
        ahead = partial(self._ahead, stop)  # otherwise shared reads would run one after the other
        return replace(work, readers=(ahead, *work.readers))

    def _ahead(self, stop: Stop, provider: Provider) -> Ahead:
        windows = max(1, self._order.fetch_workers // 2)
        return Ahead(provider, bring_by_threads(provider, windows, stop), WINDOW_BYTES, windows)
