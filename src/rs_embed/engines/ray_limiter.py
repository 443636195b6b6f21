"""One limiter for a whole cluster: a named actor that gives every request of a service its leave.

The rule is that of a single process (`Policy`). A leave is a lease: whoever holds one says so every few seconds, so
that the leave of a process that was killed is free again soon.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

import ray
from ray.actor import ActorHandle

from rs_embed.errors import EngineError
from rs_embed.providers._limiter import Limits, limit_by
from rs_embed.providers._policy import Leave, Policy, Slot
from rs_embed.settings import RaySettings

NAME, NAMESPACE = "limits", "rs_embed"
PATIENCE_S = 60.0
"""How long a limiter may be gone (its machine lost, say) until requests fail."""
_LOOK_S = 1.0
"""How often those who wait look for leases that have run out."""


class Gate:
    """The actor: a policy for each account (a service and who pays)."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._free = asyncio.Condition()

    @ray.method
    async def configure(self, account: str, ceiling: int, qps: float | None) -> None:
        """Set what was agreed; the newest word counts for all."""
        self._policies.setdefault(account, Policy(ceiling, qps, time.monotonic())).configure(ceiling, qps)
        async with self._free:
            self._free.notify_all()

    @ray.method
    async def take(self, account: str, agreed: tuple[int, float | None], lease: str, lease_s: float) -> Leave:
        """Leave for one request, when there is room."""
        policy = self._policies.setdefault(account, Policy(*agreed, time.monotonic()))
        async with self._free:
            while (leave := policy.take(lease, time.monotonic(), lease_s)) is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._free.wait(), _LOOK_S)
        return leave

    @ray.method
    async def give_back(self, account: str, slot: Slot) -> None:
        """A request is over."""
        self._policies[account].give_back(slot, time.monotonic())
        async with self._free:
            self._free.notify(2)  # room for one more, and for another where the limit has grown

    @ray.method
    async def renew(self, account: str, leases: Sequence[str], lease_s: float) -> None:
        """Requests are still under way (also if the actor has started anew and knows nothing of them)."""
        if account in self._policies:
            self._policies[account].renew(leases, time.monotonic(), lease_s)

    @ray.method
    async def state(self, account: str) -> tuple[int, int, int]:
        """Limit, requests under way, and the most that ever were."""
        policy = self._policies[account]
        return policy.limit, policy.in_flight, policy.most_in_flight


def gate() -> ActorHandle[Gate]:
    """The actor of this cluster; made if it is not there, on behalf of who asks first."""
    actor = ray.remote(Gate).options(
        name=NAME, namespace=NAMESPACE, get_if_exists=True, num_cpus=0, max_concurrency=10_000, max_restarts=-1
    )
    return cast("ActorHandle[Gate]", actor.remote())


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
        self._ask(lambda gate: gate.configure.remote(self._account, *self._agreed))

    def take(self) -> Leave:
        """See `Limits`."""
        lease = secrets.token_hex(8)
        leave = self._ask(lambda gate: gate.take.remote(self._account, self._agreed, lease, self._lease_s))
        self._hold(lease)
        return cast("Leave", leave)

    def _ask(self, call: Callable[[ActorHandle[Gate]], object]) -> object:
        """What the actor answers; asked again where it is gone (its machine, or who made it) and comes back."""
        gone: float | None = None
        while True:
            try:
                # Ray's types take what an async method returns for the coroutine itself.
                return ray.get(cast("ray.ObjectRef[object]", call(self._gate)))
            except ray.exceptions.RayActorError as error:
                gone = gone or time.monotonic()
                if time.monotonic() > gone + PATIENCE_S:
                    raise EngineError(
                        f"Wanted leave to make a request, found the limiter gone for {PATIENCE_S:g} s.",
                        fix="look at Ray's logs; run the same again to retry",
                    ) from error
                time.sleep(0.2)
                self._gate = gate()

    def give_back(self, slot: Slot) -> None:
        """See `Limits`."""
        with self._lock:
            self._held.discard(slot.leave.lease)
        self._gate.give_back.remote(self._account, slot)

    def _hold(self, lease: str) -> None:
        with self._lock:
            self._held.add(lease)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="rs-embed-leases", daemon=True).start()

    def _renew(self) -> None:
        """As long as anything is held: say so."""
        while True:
            time.sleep(self._lease_s / 3)
            with self._lock:
                if not self._held:
                    self._renewing = False
                    return
                held = sorted(self._held)
            self._gate.renew.remote(self._account, held, self._lease_s)


def limit_by_cluster() -> None:
    """From now on, requests of this process count with those of all others."""
    limit_by(ClusterLimiter)
