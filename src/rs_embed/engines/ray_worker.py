"""A worker of the cluster: an actor that has the models loaded and does whole units."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import ray
from pydantic import JsonValue

from rs_embed.engines.base import Order, Setup, Stamp
from rs_embed.engines.ray_fetch import Origin, bring_by_tasks
from rs_embed.engines.ray_limiter import limit_by_cluster
from rs_embed.errors import RSEmbedError
from rs_embed.pipeline.ahead import Ahead
from rs_embed.pipeline.export import Advance, Task, Work, give_up, run_unit
from rs_embed.providers.base import Provider
from rs_embed.settings import take_over


@dataclass(frozen=True)
class Terms:
    """How a worker works."""

    order: Order
    device: str
    """"cpu" or "cuda"; Ray shows a worker its own GPU only."""
    variables: dict[str, str]
    """`RS_EMBED_*` of the process that asks."""
    threads: int
    """Of torch."""
    fetch_cpus: float
    batch_bytes: int
    ahead: int
    """Batches on their way to a unit."""


@dataclass(frozen=True)
class Done:
    """A unit that is through."""

    rows: int
    failed: int
    changed: list[str]
    """Models of which a file was written."""


class Worker:
    """Runs units; several at a time, so that one is fetched while another is encoded."""

    def __init__(self, terms: Terms, origin: "list[ray.ObjectRef[Origin]]") -> None:
        """Take the terms; nothing is loaded yet.

        Args:
            origin: One reference, in a list so that Ray leaves it one.
        """
        import torch

        torch.set_num_threads(terms.threads)
        take_over(terms.variables)
        limit_by_cluster()
        self._terms, self._origin = terms, origin[0]
        self._setup: Setup | None = None

    @ray.method
    def set_up(self) -> dict[str, JsonValue]:
        """Load the models; their facts."""
        self._setup = self._terms.order.set_up(self._terms.device)
        return self._setup.facts()

    @ray.method
    def run(self, stamp: Stamp, task: Task) -> Done:
        """Do what is missing of a unit."""
        return self._counted(partial(run_unit, self._work(stamp), task))

    @ray.method
    def give_up(self, stamp: Stamp, task: Task, error: RSEmbedError) -> Done:
        """Record a unit as failed that others have died over."""
        return self._counted(partial(give_up, self._work(stamp), task, error))

    def _work(self, stamp: Stamp) -> Work:
        if self._setup is None:
            raise AssertionError("a worker is set up before it is given units")
        work = self._setup.work(stamp)
        return Work(work.folder, work.models, work.grid_format, work.on_error, (self._ahead, *work.readers))

    def _ahead(self, provider: Provider) -> Ahead:
        terms = self._terms
        return Ahead(provider, bring_by_tasks(self._origin, terms.fetch_cpus), terms.batch_bytes, terms.ahead)

    @staticmethod
    def _counted(do: Callable[[Advance], list[str]]) -> Done:
        rows = failed = 0

        def advance(done: int, of_them_failed: int) -> None:
            nonlocal rows, failed
            rows, failed = rows + done, failed + of_them_failed

        changed = do(advance)
        return Done(rows, failed, changed)
