"""The Ray executor: hands units to workers, and to other workers if one dies.

It uses plain tasks and actors, not Ray Data: `run_unit` runs as it does locally, so files and numbers are the same. The
records say what is finished, so Ray stores nothing about a run. A unit, not a row, is what is tried again.
"""

import math
import pickle
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import ray
from pydantic import JsonValue
from ray import cloudpickle
from ray.actor import ActorHandle

from rs_embed.core.settings import RaySettings
from rs_embed.embedders.catalog import registered_among
from rs_embed.errors import EngineError, SpecError
from rs_embed.exports.engines.base import Order, RunStamp
from rs_embed.exports.engines.ray.cluster import ClusterResources, connected
from rs_embed.exports.engines.ray.fetch import Origin, Surroundings
from rs_embed.exports.engines.ray.limiter import gate
from rs_embed.exports.engines.ray.worker import Done, Terms, Worker
from rs_embed.exports.journal import differences
from rs_embed.exports.work import Advance, Task
from rs_embed.redact import logger

_LOG = logger(__name__)
UNITS_EACH = 2
"""Units that a worker has at a time: one is fetched while the other is encoded."""
STORE_SHARE = 0.5
"""Share of the object stores that fetched chips may take; the rest is for Ray and for other users of the cluster."""


@dataclass(frozen=True)
class _Try:
    """A unit that a worker is running."""

    task: Task
    died: int = 0
    """Number of workers that died while running it."""
    last: str = ""
    """Ray's message about the last of them."""


@dataclass(eq=False)
class _Member:
    """A worker, ready or still starting."""

    handle: ActorHandle[Worker]
    starting: "ray.ObjectRef[dict[str, JsonValue]]"
    ready: bool = False
    hands: "dict[ray.ObjectRef[Done], _Try]" = field(default_factory=dict)

    def takes(self, one: _Try) -> bool:
        """Whether it may get the unit. A unit that killed a worker runs alone, so that it cannot harm another."""
        if not self.ready or any(other.died for other in self.hands.values()):
            return False
        return len(self.hands) < (1 if one.died else UNITS_EACH)


@contextmanager
def ray_executor(address: str | None, order: Order) -> Iterator["RayExecutor"]:
    """Open an executor with workers on a cluster; they end with the block.

    Args:
        address: See `connected`.
        order: What to do.

    Raises:
        SpecError: A backend or model given as an object cannot be pickled.
        EngineError: The cluster cannot be reached.
    """
    settings = RaySettings.read()
    packed = _packed(order)
    with connected(address):
        executor = RayExecutor(order, packed, settings, ClusterResources.now())
        try:
            yield executor
        finally:
            executor.stop_workers()


def share_out(settings: RaySettings, cpus: float, gpus: int) -> tuple[int, float]:
    """Return the number of workers, and the cores that each one reserves.

    If all workers fit, cores remain for one fetching task per worker; otherwise they would wait for chips forever.

    Args:
        settings: The user's settings.
        cpus: Cores of the cluster.
        gpus: GPUs for workers.
    """
    each = min(settings.worker_cpus, max(cpus / 2, 0.01))
    count = settings.workers or gpus or max(1, int(cpus / (2 * each)))
    if count * each > cpus:  # an autoscaler may add what is missing
        return count, each
    return count, min(each, max(cpus / count - settings.fetch_cpus, 0.01))


def _packed(order: Order) -> tuple[bytes, bytes, bytes]:
    """Pickle the order, the models that it names and this process registered, and its backend.

    Raises:
        SpecError: The backend is an object that cannot be pickled, or such a model.
    """
    cards = registered_among(request.model_id for request in order.request.requests())
    try:
        packed_cards = cloudpickle.dumps(cards)
    except (TypeError, ValueError, pickle.PicklingError, AttributeError) as error:
        raise SpecError(
            f"Expected models that can be sent to other machines, got {', '.join(card.id for card in cards)}: {error}.",
            fix="define the model in a module that is installed on all nodes",
        ) from error
    try:
        return cloudpickle.dumps(order), packed_cards, cloudpickle.dumps(order.request.source)
    except (TypeError, ValueError, pickle.PicklingError, AttributeError) as error:
        raise SpecError(
            f"Expected a backend that can be sent to other machines, got {order.request.backend!r}: {error}.",
            fix='use a name (backend="gee", "stac", a path), and configure it by its RS_EMBED_* variables',
        ) from error


class RayExecutor:
    """See `Executor`."""

    def __init__(
        self, order: Order, packed: tuple[bytes, bytes, bytes], settings: RaySettings, room: ClusterResources
    ) -> None:
        self._settings = settings
        gpus = room.gpus if order.request.device.startswith(("cuda", "auto")) else 0
        self._gpus = 1 if gpus else 0
        count, cpus = share_out(settings, room.cpus, gpus)
        slots = count * UNITS_EACH * (settings.ahead + order.fetch_workers)
        batch_bytes = max(1, int(min(settings.batch_mb * 1e6, STORE_SHARE * room.store_bytes / slots)))
        surroundings = Surroundings.here()
        self._terms = Terms(
            packed[0],
            packed[1],
            "cuda" if self._gpus or order.request.device.startswith("cuda") else "cpu",
            surroundings,
            max(1, math.floor(cpus)),
            settings.fetch_cpus,
            batch_bytes,
            settings.ahead,
        )
        self._cpus = cpus
        origin = Origin(secrets.token_hex(8), packed[2], surroundings, order.fetch_workers)
        self._origin = [ray.put(origin)]
        self._gate = gate()  # a reference: the actor lives as long as the process that made it
        self._facts: dict[str, JsonValue] | None = None
        self._members = [self._start_worker() for _ in range(count)]
        self._again: list[_Try] = []
        self._never_started, self._last = 0, ""

    def facts(self) -> dict[str, JsonValue]:
        """See `Executor`; waits for the first worker."""
        while self._facts is None:
            self._require_somebody()
            self._wait()
        return self._facts

    def run(self, stamp: RunStamp, tasks: Iterable[Task], advance: Advance) -> None:
        """See `Executor`."""
        upcoming = (_Try(task) for task in tasks)
        following = next(upcoming, None)
        while following is not None or self._again or any(member.hands for member in self._members):
            while self._again and self._give(self._again[0], stamp):
                self._again.pop(0)
            while not self._again and following is not None and self._give(following, stamp):
                following = next(upcoming, None)
            self._require_somebody()
            for done in self._wait():
                advance(done.rows, done.failed)

    def stop_workers(self) -> None:
        """Stop all workers."""
        for member in self._members:
            ray.kill(member.handle)
        self._members = []

    def _start_worker(self) -> _Member:
        actor = ray.remote(Worker).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_concurrency=UNITS_EACH, max_restarts=0
        )
        handle = cast("ActorHandle[Worker]", actor.remote(self._terms, self._origin))
        return _Member(handle, handle.set_up.remote())

    def _give(self, one: _Try, stamp: RunStamp) -> bool:
        """Assign a unit to the least busy worker that can take it; return whether there is one."""
        able = [member for member in self._members if member.takes(one)]
        if not able:
            return False
        member = min(able, key=lambda each: len(each.hands))
        if one.died < self._settings.tries:
            member.hands[member.handle.run.remote(stamp, one.task)] = one
        else:
            member.hands[member.handle.give_up.remote(stamp, one.task, self._lost(one))] = one
        return True

    def _lost(self, one: _Try) -> EngineError:
        return EngineError(
            f"Expected unit {one.task.unit.name} to finish, but {one.died} workers died while running it.",
            last=one.last,
            fix="check the memory of the nodes and Ray's logs, then run the same command again to retry",
        )

    def _wait(self) -> list[Done]:
        """Wait until something happens, and return the units that finished."""
        starting = {member.starting: member for member in self._members if not member.ready}
        working = {reference: member for member in self._members for reference in member.hands}
        happened, _ = ray.wait([*working, *starting], num_returns=1, timeout=self._settings.start_s)
        found = []
        for reference in happened:
            if reference in starting:
                self._take_in(starting[reference])
            elif reference in working[reference].hands:  # still assigned: its worker has not died meanwhile
                done = self._take(reference, working[reference])
                found += [] if done is None else [done]
        if not happened and working and starting:
            _LOG.warning(
                "No unit finished for %g s, and %d of %d workers have no room to start (%g CPU each): perhaps no CPU "
                "is left for fetching; set RS_EMBED_RAY_WORKERS lower, or give the cluster more nodes",
                *(self._settings.start_s, len(starting), len(self._members), self._cpus),
            )
        if not happened and not working:
            raise EngineError(
                f"Expected a worker to start within {self._settings.start_s:g} s, got none.",
                wanted=f"{self._cpus:g} CPU, {self._gpus} GPU each",
                cluster=str(ray.cluster_resources()),
                fix="give the cluster more nodes, or set RS_EMBED_RAY_WORKER_CPUS lower",
            )
        return found

    def _take_in(self, member: _Member) -> None:
        """Take in a worker that has started; its models and packages must match those of the others."""
        try:
            facts: dict[str, JsonValue] = ray.get(member.starting)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            self._replace_dead(member, error)
            return
        self._facts = self._facts or facts
        if facts != self._facts:
            raise EngineError(
                "Expected the same models and packages on all nodes, got different ones on one node.",
                differs="\n".join(differences(self._facts, facts)),
                fix="install the same versions on all nodes",
            )
        member.ready, self._never_started = True, 0

    def _take(self, reference: "ray.ObjectRef[Done]", member: _Member) -> Done | None:
        try:
            done: Done = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            self._replace_dead(member, error)
            return None
        del member.hands[reference]
        return done

    def _replace_dead(self, member: _Member, error: ray.exceptions.RayError) -> None:
        """Replace a worker that died, and queue its units again."""
        self._last = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        tried = [replace(one, died=one.died + 1, last=self._last) for one in member.hands.values()]
        self._again += tried
        ray.kill(member.handle)
        self._members.remove(member)
        self._never_started += int(not member.ready)
        if any(one.died > 2 * self._settings.tries for one in tried):  # even recording the failure kills workers
            self.stop_workers()
        elif self._never_started < self._settings.tries:
            self._members.append(self._start_worker())

    def _require_somebody(self) -> None:
        if not self._members:
            raise EngineError(
                "Expected a living worker, but all of them died.",
                last=self._last,
                fix="check the memory of the nodes and Ray's logs, then run the same command again to resume",
            )
