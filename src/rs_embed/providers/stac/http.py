"""Asking by HTTP: in threads of our own, within a limit of time, heard of soon where there is no network."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import requests
from requests.utils import select_proxy

from rs_embed.core.stopping import POLL_S, PerProcess, Threads, current
from rs_embed.providers.stac.waiting import awaited

T = TypeVar("T")
CONNECT_S = 3.0
"""A host that is there takes a connection in a fraction of it, also from the other side of the Earth."""
LOOKED_UP_S = 6.0
"""For its name and the first connection; a name server that is silent takes half a minute to give up."""
OFFLINE_S = 3.5
"""A host that was never reached is not tried again after so long: a moment's fault has passed, there is no network."""
LARGEST_B = 64_000_000
"""Of an answer: a page of items is 6 MB at most, and a thing that never ends must not fill the memory."""
_CHUNK_B = 65_536
_SAID_B = 1_000_000
"""Of an answer that says no."""


class Refusal(Exception):
    """An answer that says no."""

    def __init__(self, status: int, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.status: int = status
        self.retry_after_s: float | None = retry_after_s


class Silence(Exception):
    """No answer."""

    def __init__(self, message: str, *, offline: bool) -> None:
        super().__init__(message)
        self.offline = offline
        """Whether nothing of that host was ever heard, for long enough to believe that there is no way to it."""


class Garbled(Exception):
    """An answer that is not what was asked for."""


class NoToken(Exception):
    """A link could not be signed. Its cause is one of those above."""


@dataclass
class _Reach:
    """What this process knows of hosts."""

    reached: set[str] = field(default_factory=set)
    silent_since: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_REACH = PerProcess(_Reach)


@dataclass(frozen=True)
class Credentials:
    """Headers that a catalogue wants to see, and who gets to see them."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hosts: frozenset[str] = frozenset()
    """Host and port, as in a URL."""

    def of(self, url: str) -> dict[str, str]:
        """The headers for a request to that address: none for other hosts."""
        return dict(self.headers) if urlsplit(url).netloc in self.hosts else {}


class _Session(requests.Session):
    """Takes our headers off where an answer leads to another host, as it does with `Authorization` by itself."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        super().rebuild_auth(prepared_request, response)
        before, after = urlsplit(response.request.url or ""), urlsplit(prepared_request.url or "")
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            for name in self._credentials.headers:
                prepared_request.headers.pop(name, None)


class Http:
    """Asks some hosts. Safe to call from several threads, and in a forked process.

    Args:
        timeout_s: For one request, from its start to the last byte.
        credentials: Headers, and who gets them.
        count: Requests at the same time, at most.
    """

    def __init__(self, timeout_s: float, credentials: Credentials = Credentials(), count: int = 8) -> None:
        self._timeout_s, self._credentials = timeout_s, credentials
        self._session = PerProcess(lambda: _Session(credentials))
        self._threads = Threads(count, "rs-embed-http")

    def ask(
        self,
        url: str,
        method: str = "GET",
        *,
        sent: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        most_b: int = LARGEST_B,
    ) -> bytes:
        """What is answered, asked once.

        Args:
            url: With `http://` or `https://`.
            method: Of HTTP.
            sent: With POST as a JSON body, else in the address.
            headers: Beside the credentials.
            most_b: Bytes that are taken; a longer answer is an error.

        Raises:
            Refusal: A status from 400 on.
            Silence: No answer, or not all of it, in time.
            Garbled: It is too long.
            Stopped: The job of this thread was stopped; a request under way is abandoned.
        """
        shown = {**self._credentials.of(url), **(headers or {})}
        if method == "POST":
            shown["Content-Type"] = "application/json"
            request = requests.Request(method, url, shown, data=json.dumps(sent or {}))
        else:
            params = {name: str(value) for name, value in (sent or {}).items()}
            request = requests.Request(method, url, shown, params=params)
        return self._bounded(url, request, partial(_body, most_b=most_b))

    def landed(self, url: str) -> str:
        """Where a file really is, after all that it redirects to; it can be read there.

        Raises:
            Refusal: A status from 400 on.
            Silence: No answer in time.
            Stopped: The job of this thread was stopped.
        """
        request = requests.Request("GET", url, {**self._credentials.of(url), "Range": "bytes=0-0"})
        return self._bounded(url, request, lambda response, late: str(response.url))

    def _bounded(self, url: str, request: requests.Request, take: Callable[[requests.Response, float], T]) -> T:
        self._reachable(url)
        late = time.monotonic() + self._timeout_s
        try:
            return awaited(self._threads.submit(self._once, request, take, late), self._timeout_s + POLL_S)
        except TimeoutError as error:
            raise Silence(f"nothing in {self._timeout_s:g} s", offline=False) from error
        except requests.RequestException as error:
            raise Silence(_innermost(error), offline=self._offline(urlsplit(url).netloc)) from error

    def _once(self, request: requests.Request, take: Callable[[requests.Response, float], T], late: float) -> T:
        session = self._session.here
        prepared = session.prepare_request(request)
        settings = session.merge_environment_settings(prepared.url or "", {}, True, None, None)
        with session.send(prepared, timeout=(min(10.0, self._timeout_s), self._timeout_s), **settings) as response:
            _reached(urlsplit(prepared.url or "").netloc)
            if response.status_code >= 400:
                text = _body(response, late, _SAID_B).decode("utf-8", "replace")
                raise Refusal(response.status_code, text, retry_after_s(response.headers.get("Retry-After")))
            return take(response, late)

    def _reachable(self, url: str) -> None:
        """Before a host is asked for the first time: whether it is there at all.

        Raises:
            Silence: It is not.
        """
        parts = urlsplit(url)
        with _REACH.here.lock:
            known = parts.netloc in _REACH.here.reached
            _REACH.here.silent_since.setdefault(parts.netloc, time.monotonic())
        if known or _by_proxy(url) or parts.hostname is None:
            return
        try:
            awaited(self._threads.submit(_connect, parts), LOOKED_UP_S)
        except TimeoutError as error:
            message = str(error) or f"its name was not found in {LOOKED_UP_S:g} s"
            raise Silence(message, offline=self._offline(parts.netloc)) from error
        except OSError as error:
            raise Silence(str(error), offline=self._offline(parts.netloc)) from error

    def _offline(self, netloc: str) -> bool:
        with _REACH.here.lock:
            since = _REACH.here.silent_since.get(netloc, time.monotonic())
            return netloc not in _REACH.here.reached and time.monotonic() - since >= OFFLINE_S


def _body(response: requests.Response, late: float, most_b: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_B):
        body += chunk
        current().check()
        if time.monotonic() > late:
            raise requests.Timeout(f"only {len(body)} bytes of the answer in time")
        if len(body) > most_b:
            raise Garbled(f"an answer of more than {most_b} bytes")
    return bytes(body)


def _connect(parts: SplitResult) -> None:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), CONNECT_S).close()


def _by_proxy(url: str) -> bool:
    return select_proxy(url, requests.utils.get_environ_proxies(url)) is not None


def _reached(netloc: str) -> None:
    with _REACH.here.lock:
        _REACH.here.reached.add(netloc)


def _innermost(error: BaseException) -> str:
    """The innermost reason: libraries wrap it four times, with the addresses of their objects."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a service asks us to wait: HTTP allows seconds or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())
