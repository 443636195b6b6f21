"""A worker on the cluster: an actor that has the models loaded and runs whole units."""

import pickle
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import ray
from pydantic import JsonValue

from rs_embed.embedders.catalog import register_model
from rs_embed.errors import RSEmbedError
from rs_embed.exports.engines.base import Order, RunStamp, Setup
from rs_embed.exports.engines.ray.fetch import Origin, Surroundings, bring_by_tasks
from rs_embed.exports.fetching.ahead import Ahead
from rs_embed.exports.object_store import Do, do_at
from rs_embed.exports.work import Task, Work, give_up, run_unit
from rs_embed.providers.base import Provider


@dataclass(frozen=True)
class Terms:
    """The settings of a worker."""

    order: bytes
    """An `Order`, pickled: a process unpickles it after taking over the environment."""
    cards: bytes
    """Its models that were registered in the process that sent it, pickled."""
    device: str
    """"cpu" or "cuda"; a worker sees only its own GPU."""
    surroundings: Surroundings
    threads: int
    """Number of torch threads."""
    fetch_cpus: float
    batch_bytes: int
    ahead: int
    """Number of batches fetched ahead per unit."""


@dataclass(frozen=True)
class Done:
    """The outcome of a unit."""

    rows: int
    failed: int


class Worker:
    """Runs units, several at a time, so that one is fetched while another is encoded."""

    def __init__(self, terms: Terms, origin: "list[ray.ObjectRef[Origin]]") -> None:
        """Store the terms; nothing is loaded yet.

        Args:
            terms: The settings.
            origin: One reference, in a list so that Ray does not resolve it.
        """
        import torch

        torch.set_num_threads(terms.threads)
        terms.surroundings.enter()
        self._terms, self._origin = terms, origin[0]
        for card in pickle.loads(terms.cards):  # noqa: S301  (pickled by the export that sent it)
            register_model(card, replace=True)
        self._order: Order = pickle.loads(terms.order)  # noqa: S301  (pickled by the export that sent it)
        self._setup: Setup | None = None

    @ray.method
    def set_up(self) -> dict[str, JsonValue]:
        """Load the models and return their facts."""
        self._setup = self._order.set_up(self._terms.device)
        return self._setup.facts()

    @ray.method
    def run(self, stamp: RunStamp, task: Task) -> Done:
        """Do the part of a unit that is not finished yet."""
        return self._done(stamp, task, run_unit)

    @ray.method
    def give_up(self, stamp: RunStamp, task: Task, error: RSEmbedError) -> Done:
        """Record a unit as failed after other workers died while running it."""
        return self._done(stamp, task, partial(give_up, error))

    def _work(self, stamp: RunStamp, folder: Path) -> Work:
        if self._setup is None:
            raise AssertionError("set_up must run before units")
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
