"""One limiter for a whole cluster: a named actor that gives every request of a service its leave.

The rule is that of a single process (`Policy`). A leave is a lease: whoever holds one says so every few seconds, so
that the leave of a process that was killed is free again soon.
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
from rs_embed.providers.common.policy import Leave, Policy, Slot

Call = Callable[["ActorHandle[Gate]"], object]
Agreed = tuple[int, float | None]
"""Requests at the same time, and started per second, at most."""
NAME, NAMESPACE = "limits", "rs_embed"
PATIENCE_S = 60.0
"""How long a limiter may be gone (its machine lost, say) until requests fail."""
_LOOK_S = 1.0
"""How long the actor lets one who asks wait for room before he must ask again: who has died meanwhile does not, and a
lease that has run out is seen by then."""


class _Account:
    """The policy of a service and who pays, and who waits for room."""

    def __init__(self, ceiling: int, qps: float | None) -> None:
        self.policy = Policy(ceiling, qps, time.monotonic())
        self.free = asyncio.Condition()

    async def tell(self, waiting: int) -> None:
        async with self.free:
            self.free.notify(waiting)


class Gate:
    """The actor: a policy for each account."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def _account(self, name: str, agreed: Agreed) -> _Account:
        return self._accounts.get(name) or self._accounts.setdefault(name, _Account(*agreed))

    @ray.method
    async def configure(self, account: str, agreed: Agreed) -> None:
        """Set what was agreed; the newest word counts for all."""
        one = self._account(account, agreed)
        one.policy.configure(*agreed)
        await one.tell(agreed[0])

    @ray.method
    async def take(self, account: str, agreed: Agreed, lease: str, lease_s: float) -> Leave | None:
        """Leave for one request; `None` if there was no room for a while."""
        one = self._account(account, agreed)
        async with one.free:
            leave = one.policy.take(lease, time.monotonic(), lease_s)
            if leave is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(one.free.wait(), _LOOK_S)
                leave = one.policy.take(lease, time.monotonic(), lease_s)
        return leave

    @ray.method
    async def give_back(self, account: str, slot: Slot) -> None:
        """A request is over."""
        if account in self._accounts:  # else the actor was restarted, and knows nothing of it
            one = self._accounts[account]
            one.policy.give_back(slot, time.monotonic())
            await one.tell(2)  # room for one more, and for another where the limit has grown

    @ray.method
    async def renew(self, account: str, agreed: Agreed, leases: Sequence[str], lease_s: float) -> None:
        """Requests are still under way (also if the actor was restarted and knows nothing of them)."""
        self._account(account, agreed).policy.renew(leases, time.monotonic(), lease_s)

    @ray.method
    async def state(self, account: str) -> tuple[int, int, int]:
        """Limit, requests under way, and the most that ever were."""
        policy = self._accounts[account].policy
        return policy.limit, policy.in_flight, policy.most_in_flight


def gate() -> ActorHandle[Gate]:
    """The actor of this cluster; made if it is not there, by the first who asks."""
    actor = ray.remote(Gate).options(
        name=NAME, namespace=NAMESPACE, get_if_exists=True, num_cpus=0, max_concurrency=10_000, max_restarts=-1
    )
    return cast("ActorHandle[Gate]", actor.remote())


class _Link:
    """The connection of this process to a cluster, as it was when this was made; another is another link.

    Ray starts a cluster of its own for whoever asks it something while it is shut down (`ray.get` does, and making an
    actor). A thread that outlives its cluster must not do that, so it asks here first, and waits here.
    """

    def __init__(self) -> None:
        self._context = ray.get_runtime_context()
        self._worker: str = self._context.get_worker_id()

    @property
    def holds(self) -> bool:
        """Whether this process is still connected so."""
        try:
            return bool(self._context.get_worker_id() == self._worker)
        except RuntimeError:  # it is connected to nothing
            return False

    def check(self) -> None:
        """Go on, or tell that the cluster is gone.

        Raises:
            EngineError: This process is not connected any more, or to another cluster.
        """
        if not self.holds:
            raise EngineError(
                "Expected the Ray cluster that limits requests, got a process that is no longer connected to it.",
                fix="connect to a cluster and run the same again",
            )

    def wait(self, reference: "ray.ObjectRef[object]") -> object:
        """What it refers to.

        Raises:
            EngineError: The cluster is gone.
            Stopped: The job of this thread was stopped.
            RayError: Whatever has become of it.
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
    """The leave of one account, asked of the actor; safe to use from several threads."""

    def __init__(self, account: str, ceiling: int, qps: float | None) -> None:
        """Begin with what was agreed.

        Args:
            account: A service and who pays.
            ceiling: Requests at the same time, at most.
            qps: Requests started per second, at most.
        """
        super().__init__()
        self._account, self._agreed = account, (ceiling, qps)
        self._lease_s = RaySettings.read().lease_s
        self._gate = gate()
        self._link = _Link()
        self._turn = threading.Lock()
        """One ask at a time: a process that is killed leaves but one behind, which nobody waits for."""
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
        # The actor may have been there before, with what another run agreed on: the newest word counts. Waited for,
        # since an actor of coroutines does not keep the order of calls and a leave could be given by the old word.
        self._ask(lambda gate: gate.configure.remote(self._account, self._agreed))

    def take(self) -> Leave:
        """See `Limits`."""
        lease, leave = secrets.token_hex(8), None
        while not self._turn.acquire(timeout=POLL_S):
            current().check()
        try:
            while leave is None:
                current().check()
                found = self._ask(lambda gate: gate.take.remote(self._account, self._agreed, lease, self._lease_s))
                leave = cast("Leave | None", found)
        finally:
            self._turn.release()
        self._hold(lease)
        return leave

    def _ask(self, call: Call) -> object:
        """What the actor answers; asked again where it is gone (its machine, or who made it) and comes back."""
        gone: float | None = None
        while True:
            self._link.check()
            try:
                if gone is not None:
                    self._get(self._renewal)  # a new one knows nothing of what is under way
                return self._get(call)
            except ray.exceptions.RayActorError as error:
                gone = gone or time.monotonic()
                if time.monotonic() > gone + PATIENCE_S:
                    raise EngineError(
                        f"Expected leave to make a request, got no limiter for {PATIENCE_S:g} s.",
                        fix="look at Ray's logs; run the same again to retry",
                    ) from error
                current().sleep(0.2)
                self._link.check()
                with suppress(ValueError):  # the name is still that of one that has just died
                    self._gate = gate()

    def _get(self, call: Call) -> object:
        # Ray's types take what an async method returns for the coroutine itself.
        return self._link.wait(cast("ray.ObjectRef[object]", call(self._gate)))

    def _renewal(self, gate: ActorHandle[Gate]) -> object:
        with self._lock:
            held = sorted(self._held)
        return gate.renew.remote(self._account, self._agreed, held, self._lease_s)

    def give_back(self, slot: Slot) -> None:
        """See `Limits`; a cluster that is gone needs no word."""
        with self._lock:
            self._held.discard(slot.leave.lease)
        if self._link.holds:
            self._gate.give_back.remote(self._account, slot)

    def _hold(self, lease: str) -> None:
        with self._lock:
            self._held.add(lease)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="rs-embed-leases", daemon=True).start()

    def _renew(self) -> None:
        """As long as anything is held, and the cluster is there: say so."""
        while True:
            time.sleep(self._lease_s / 3)
            with self._lock:
                self._renewing = bool(self._held) and self._link.holds
                if not self._renewing:
                    return
            try:
                self._ask(self._renewal)
            except EngineError:  # told to whoever asks for a permit
                continue
            except Exception:  # Ray raises anything while it is shut down
                if self._link.holds:
                    raise


def limit_by_cluster() -> None:
    """From now on, requests of this process count with those of all others."""
    limit_by(ClusterLimiter)
