"""What can go wrong between a client and the service."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gee_server.server import Request

INIT = ("discovery", "algorithms")
DATA = ("pixels", "value", "table")


@dataclass
class Fault:
    """What matching requests meet instead of a good answer."""

    kind: Literal["status", "hang", "reset", "cut", "short", "corrupt"]
    """`hang` never answers; `reset` closes without a word; `cut` promises more bytes than it sends; `short` and
    `corrupt` send a whole answer whose content is half of it or spoilt."""
    status: int = 503
    """Of a `status`."""
    message: str = "The service is currently unavailable."
    """Of a `status`."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of a `status`, such as Retry-After."""
    times: int = 1_000_000
    """How many requests meet it."""
    numbers: frozenset[int] | None = None
    """Only these requests of its routes, counted from 1."""
    routes: tuple[str, ...] = DATA
    """Which requests count: pixels, value, table; discovery and algorithms at Initialize; token."""
    while_evaluating: bool = False
    """Whether it comes after the work is done rather than at once."""
    when: Callable[[Request], bool] = lambda request: True
    """Whether a request of its routes counts."""


def wider_than(side_px: int) -> Callable[[Request], bool]:
    """Requests of pixels whose grid is wider or higher than that."""
    return lambda request: max(request.body["grid"]["dimensions"].values()) > side_px


def frames_of(request: Request) -> int:
    """How many frames a request of rs_embed asks for: each has a band that counts clear observations."""
    return len(set(re.findall(r"f\d+_clear", json.dumps(request.body))))


def quota(retry_after: float | str | None = None, **more) -> Fault:
    """429."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    text = "Quota exceeded for quota metric 'Concurrent requests' and limit 'Concurrent requests limit of 40'."
    return Fault("status", 429, text, headers, **more)


def too_many_aggregations(**more) -> Fault:
    """429, the other wording."""
    return Fault("status", 429, "Too many concurrent aggregations.", **more)


def internal(**more) -> Fault:
    """500."""
    return Fault("status", 500, "An internal error has occurred.", **more)


def unavailable(retry_after: float | str | None = None, **more) -> Fault:
    """503."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault("status", 503, "The service is currently unavailable.", headers, **more)


def unauthorized(**more) -> Fault:
    """401."""
    text = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    return Fault("status", 401, text, **more)


def forbidden(project: str = "x", **more) -> Fault:
    """403: may not use the project."""
    text = (
        f"Caller does not have required permission to use project {project}. Grant the caller the "
        "roles/serviceusage.serviceUsageConsumer role, or a custom role with the serviceusage.services.use permission, "
        f"by visiting https://console.developers.google.com/iam-admin/iam/project?project={project} and then retry. "
        "Propagation of the new permission may take a few minutes."
    )
    return Fault("status", 403, text, **more)


def not_registered(project: str = "x", **more) -> Fault:
    """403: the project is not registered."""
    text = (
        f"Project {project} is not registered to use Earth Engine. Visit "
        f"https://code.earthengine.google.com/register?project={project} to register your project. "
        "See https://developers.google.com/earth-engine/guides/access for more details."
    )
    return Fault("status", 403, text, **more)


def not_signed_up(**more) -> Fault:
    """403: nobody has signed up."""
    text = (
        "Not signed up for Earth Engine or project is not registered. "
        "Visit https://developers.google.com/earth-engine/guides/access"
    )
    return Fault("status", 403, text, **more)


def api_disabled(project: str = "522309567947", **more) -> Fault:
    """403: the API is not switched on in the project."""
    text = (
        f"Google Earth Engine API has not been used in project {project} before or it is disabled. Enable it by "
        "visiting https://console.developers.google.com/apis/api/earthengine.googleapis.com/overview"
        f"?project={project} then retry. If you enabled this API recently, wait a few minutes for the action to "
        "propagate to our systems and retry."
    )
    return Fault("status", 403, text, **more)


def too_large(size: int = 56623104, **more) -> Fault:
    """400: more than 48 MiB."""
    text = f"Total request size ({size} bytes) must be less than or equal to 50331648 bytes."
    return Fault("status", 400, text, **more)


def timed_out(**more) -> Fault:
    """400: the computation took too long."""
    return Fault("status", 400, "Computation timed out.", **more)


def out_of_memory(**more) -> Fault:
    """400: the computation took too much memory."""
    return Fault("status", 400, "User memory limit exceeded.", **more)


def too_long_a_list(**more) -> Fault:
    """400: more than 5,000 elements."""
    return Fault("status", 400, "Collection query aborted after accumulating over 5000 elements.", **more)


TRANSIENT = (quota(), internal(), unavailable(), Fault("reset"), Fault("short"), Fault("cut"))
"""What a client should live through."""


class Script:
    """Decides which request meets which fault."""

    def __init__(self) -> None:
        self.queue: list[Fault] = []
        self._random: random.Random | None = None
        self._rate = 0.0
        self._kinds: Sequence[Fault] = ()
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def at_random(self, rate: float, seed: int = 0, kinds: Sequence[Fault] = TRANSIENT) -> None:
        """From now on that share of all data requests meets one of `kinds`; 0 ends it."""
        self._rate, self._random, self._kinds = rate, random.Random(seed), kinds

    def next(self, request: Request) -> Fault | None:
        """What this request meets."""
        route = request.route
        with self._lock:
            self._counts[route] = self._counts.get(route, 0) + 1
            for fault in self.queue:
                number = sum(self._counts.get(one, 0) for one in fault.routes)
                due = fault.numbers is None or number in fault.numbers
                if fault.times > 0 and route in fault.routes and due and fault.when(request):
                    fault.times -= 1
                    return fault
            if self._random is not None and route in DATA and self._random.random() < self._rate:
                return self._random.choice(list(self._kinds))
        return None
