"""This process: one unit after the other."""

from collections.abc import Iterable

from pydantic import JsonValue

from rs_embed.engines.base import Order, Stamp
from rs_embed.pipeline.export import Advance, Task, run_unit


class LocalCrew:
    """See `Crew`."""

    def __init__(self, order: Order) -> None:
        self._setup = order.set_up(order.device)

    def facts(self) -> dict[str, JsonValue]:
        """See `Crew`."""
        return self._setup.facts()

    def run(self, stamp: Stamp, tasks: Iterable[Task], advance: Advance) -> set[str]:
        """See `Crew`."""
        work = self._setup.work(stamp)
        return {name for task in tasks for name in run_unit(work, task, advance)}
