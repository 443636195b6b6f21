"""A worker of the cluster: an actor that has the models loaded and does whole units."""

import pickle
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import ray
from pydantic import JsonValue

from rs_embed.errors import RSEmbedError
from rs_embed.exports.engines.base import Order, RunStamp, Setup
from rs_embed.exports.engines.ray.fetch import Origin, Surroundings, bring_by_tasks
from rs_embed.exports.fetching.ahead import Ahead
from rs_embed.exports.object_store import Do, do_at
from rs_embed.exports.work import Task, Work, give_up, run_unit
from rs_embed.providers.base import Provider


@dataclass(frozen=True)
class Terms:
    """How a worker works."""

    order: bytes
    """An `Order`, pickled: a process unpacks it in its new surroundings."""
    device: str
    """"cpu" or "cuda"; Ray shows a worker its own GPU only."""
    surroundings: Surroundings
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


class Worker:
    """Runs units; several at a time, so that one is fetched while another is encoded."""

    def __init__(self, terms: Terms, origin: "list[ray.ObjectRef[Origin]]") -> None:
        """Take the terms; nothing is loaded yet.

        Args:
            origin: One reference, in a list so that Ray leaves it one.
        """
        import torch

        torch.set_num_threads(terms.threads)
        terms.surroundings.enter()
        self._terms, self._origin = terms, origin[0]
        self._order: Order = pickle.loads(terms.order)  # noqa: S301  (packed by the export that asks)
        self._setup: Setup | None = None

    @ray.method
    def set_up(self) -> dict[str, JsonValue]:
        """Load the models; their facts."""
        self._setup = self._order.set_up(self._terms.device)
        return self._setup.facts()

    @ray.method
    def run(self, stamp: RunStamp, task: Task) -> Done:
        """Do what is missing of a unit."""
        return self._done(stamp, task, run_unit)

    @ray.method
    def give_up(self, stamp: RunStamp, task: Task, error: RSEmbedError) -> Done:
        """Record a unit as failed that others have died over."""
        return self._done(stamp, task, partial(give_up, error))

    def _work(self, stamp: RunStamp, folder: Path) -> Work:
        if self._setup is None:
            raise AssertionError("a worker is set up before it is given units")
        work = self._setup.work(stamp, folder)
        return replace(work, readers=(self._ahead, *work.readers))

    def _ahead(self, provider: Provider) -> Ahead:
        terms = self._terms
        return Ahead(provider, bring_by_tasks(self._origin, terms.fetch_cpus), terms.batch_bytes, terms.ahead)

    def _done(self, stamp: RunStamp, task: Task, do: Do) -> Done:
        rows = failed = 0

        def advance(done: int, of_them_failed: int) -> None:
            nonlocal rows, failed
            rows, failed = rows + done, failed + of_them_failed

        do_at(self._order.where, partial(self._work, stamp), task, advance, do)
        return Done(rows, failed)
