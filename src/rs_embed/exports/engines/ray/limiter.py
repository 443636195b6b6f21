"""One request limiter for a whole cluster: a named actor that grants a permit for every request to a service.

It uses the rule of a single process (`Policy`). A permit is a lease: its holder renews it every few seconds, so that
the permit of a process that was killed soon becomes free again.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import cast

import ray
from ray.actor import ActorHandle

from rs_embed.core.settings import RaySettings
from rs_embed.core.stopping import POLL_S, current
from rs_embed.errors import EngineError
from rs_embed.providers.common.limiter import Limits, limit_by
from rs_embed.providers.common.policy import Permit, Policy, Slot

Call = Callable[["ActorHandle[LimiterActor]"], object]
Agreed = tuple[int, float | None]
"""The limits of an account: requests at the same time, and requests started per second."""
NAME, NAMESPACE = "limits", "rs_embed"
PATIENCE_S = 60.0
"""How long the limiter may be unreachable (its machine lost, say) before requests fail, seconds."""
_LOOK_S = 1.0
"""How long a call to the actor waits for a permit, seconds; then the caller must ask again. So a dead caller does not
keep waiting, and leases that have expired are noticed in time."""


class _Account:
    """The policy of an account (a service and its payer), and the callers that wait for it."""

    def __init__(self, ceiling: int, qps: float | None) -> None:
        self.policy = Policy(ceiling, qps, time.monotonic())
        self.free = asyncio.Condition()

    async def tell(self, waiting: int) -> None:
        async with self.free:
            self.free.notify(waiting)


class LimiterActor:
    """The actor: holds one policy per account."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def _account(self, name: str, agreed: Agreed) -> _Account:
        return self._accounts.get(name) or self._accounts.setdefault(name, _Account(*agreed))

    @ray.method
    async def configure(self, account: str, agreed: Agreed) -> None:
        """Set the limits of an account; the latest call counts for all processes."""
        one = self._account(account, agreed)
        one.policy.configure(*agreed)
        await one.tell(agreed[0])

    @ray.method
    async def take(self, account: str, agreed: Agreed, lease: str, lease_s: float) -> Permit | None:
        """Grant a permit for one request; `None` if none became free for a while."""
        one = self._account(account, agreed)
        async with one.free:
            permit = one.policy.take(lease, time.monotonic(), lease_s)
            if permit is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(one.free.wait(), _LOOK_S)
                permit = one.policy.take(lease, time.monotonic(), lease_s)
        return permit

    @ray.method
    async def give_back(self, account: str, slot: Slot) -> None:
        """Return a permit: its request is over."""
        if account in self._accounts:  # otherwise the actor was restarted and does not know the permit
            one = self._accounts[account]
            one.policy.give_back(slot, time.monotonic())
            await one.tell(2)  # one more may start, and another one if the limit has grown

    @ray.method
    async def renew(self, account: str, agreed: Agreed, leases: Sequence[str], lease_s: float) -> None:
        """Renew the leases of requests under way (also after a restart of the actor, which has lost them)."""
        self._account(account, agreed).policy.renew(leases, time.monotonic(), lease_s)

    @ray.method
    async def state(self, account: str) -> tuple[int, int, int]:
        """Return the limit, the requests under way, and the most that were ever under way."""
        policy = self._accounts[account].policy
        return policy.limit, policy.in_flight(time.monotonic()), policy.most_in_flight


def gate() -> ActorHandle[LimiterActor]:
    """Return the actor of this cluster; the first caller creates it."""
    actor = ray.remote(LimiterActor).options(
        name=NAME, namespace=NAMESPACE, get_if_exists=True, num_cpus=0, max_concurrency=10_000, max_restarts=-1
    )
    return cast("ActorHandle[LimiterActor]", actor.remote())


class _Link:
    """This process's connection to a cluster at the time this object was made; a new connection is another link.

    While Ray is shut down, some calls (such as `ray.get`, or making an actor) start a new cluster. A thread that
    outlives its cluster must not do that, so it checks here first, and waits here.
    """

    def __init__(self) -> None:
        self._context = ray.get_runtime_context()
        self._worker: str = self._context.get_worker_id()

    @property
    def holds(self) -> bool:
        """Whether the connection still exists."""
        try:
            return bool(self._context.get_worker_id() == self._worker)
        except RuntimeError:  # not connected to any cluster
            return False

    def check(self) -> None:
        """Raise if the connection is gone.

        Raises:
            EngineError: This process is no longer connected, or to another cluster.
        """
        if not self.holds:
            raise EngineError(
                "Expected a connection to the Ray cluster that limits requests, but this process has lost it.",
                fix="connect to a cluster, then run the same command again",
            )

    def wait(self, reference: "ray.ObjectRef[object]") -> object:
        """Return the value of a reference.

        Raises:
            EngineError: The cluster is gone.
            Stopped: The job of this thread was stopped.
            RayError: The remote call failed.
        """
        coming: Future[object] = reference.future()
        while True:
            try:
                return coming.result(POLL_S)
            except TimeoutError:
                if coming.done():
                    return coming.result()
                self.check()
                current().check()


class ClusterLimiter(Limits):
    """Gets the permits of one account from the actor. Safe to use from several threads."""

    def __init__(self, account: str, ceiling: int, qps: float | None) -> None:
        """Register the limits of an account.

        Args:
            account: A service and its payer.
            ceiling: Largest number of requests at the same time.
            qps: Largest number of requests started per second.
        """
        super().__init__()
        self._account, self._agreed = account, (ceiling, qps)
        self._lease_s = RaySettings.read().lease_s
        self._gate = gate()
        self._link = _Link()
        self._turn = threading.Lock()
        """One call at a time: a process that is killed leaves at most one unanswered call behind."""
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._renewing = False
        self._agree()

    def configure(self, ceiling: int, qps: float | None) -> None:
        """See `Limits`."""
        if (ceiling, qps) != self._agreed:
            self._agreed = ceiling, qps
            self._agree()

    def _agree(self) -> None:
        # The actor may already exist, with the limits of another run: the latest call counts. We wait for the answer,
        # since an asyncio actor does not keep the order of calls: a permit could be granted under the old limits.
        self._ask(lambda gate: gate.configure.remote(self._account, self._agreed))

    def take(self) -> Permit:
        """See `Limits`."""
        lease, permit = secrets.token_hex(8), None
        while not self._turn.acquire(timeout=POLL_S):
            current().check()
        try:
            while permit is None:
                current().check()
                found = self._ask(lambda gate: gate.take.remote(self._account, self._agreed, lease, self._lease_s))
                permit = cast("Permit | None", found)
        finally:
            self._turn.release()
        self._hold(lease)
        return permit

    def _ask(self, call: Call) -> object:
        """Return the actor's answer; ask again if the actor died (with its machine or creator) and came back."""
        gone: float | None = None
        while True:
            self._link.check()
            try:
                if gone is not None:
                    self._get(self._renewal)  # a new actor does not know the requests under way
                return self._get(call)
            except ray.exceptions.RayActorError as error:
                gone = gone or time.monotonic()
                if time.monotonic() > gone + PATIENCE_S:
                    raise EngineError(
                        f"Expected a permit for a request, but the limiter did not answer for {PATIENCE_S:g} s.",
                        fix="check Ray's logs, then run the same command again to retry",
                    ) from error
                current().sleep(0.2)
                self._link.check()
                with suppress(ValueError):  # the name still belongs to the actor that just died
                    self._gate = gate()

    def _get(self, call: Call) -> object:
        # Ray's type annotations mistake the result of an async method for the coroutine itself.
        return self._link.wait(cast("ray.ObjectRef[object]", call(self._gate)))

    def _renewal(self, gate: ActorHandle[LimiterActor]) -> object:
        with self._lock:
            held = sorted(self._held)
        return gate.renew.remote(self._account, self._agreed, held, self._lease_s)

    def give_back(self, slot: Slot) -> None:
        """See `Limits`; does nothing if the cluster is gone."""
        with self._lock:
            self._held.discard(slot.permit.lease)
        if self._link.holds:
            self._gate.give_back.remote(self._account, slot)

    def _hold(self, lease: str) -> None:
        with self._lock:
            self._held.add(lease)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="rs-embed-leases", daemon=True).start()

    def _renew(self) -> None:
        """Renew the leases as long as there are any and the cluster is connected."""
        while True:
            time.sleep(self._lease_s / 3)
            with self._lock:
                self._renewing = bool(self._held) and self._link.holds
                if not self._renewing:
                    return
            try:
                self._ask(self._renewal)
            except EngineError:  # raised to the next caller that asks for a permit
                continue
            except Exception:  # Ray may raise anything during shutdown
                if self._link.holds:
                    raise


def limit_by_cluster() -> None:
    """From now on, limit the requests of this process together with those of all others."""
    limit_by(ClusterLimiter)
