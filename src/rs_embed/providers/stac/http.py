"""HTTP requests: in threads of our own, with a time limit, and with an early failure if there is no network."""

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
"""Time limit of a connection, seconds; a reachable host needs a fraction of it, even across the Earth."""
LOOKED_UP_S = 6.0
"""Time limit of name lookup and first connection, seconds; a silent name server gives up after half a minute."""
OFFLINE_S = 3.5
"""A host not reached within this many seconds is not tried again: the fault is not momentary."""
LARGEST_B = 64_000_000
"""Largest answer, bytes: a page of items is 6 MB at most, and an endless answer must not fill the memory."""
_CHUNK_B = 65_536
_SAID_B = 1_000_000
"""Bytes read of the body of a refusal."""


class Refusal(Exception):
    """An answer with an HTTP status of 400 or more."""

    def __init__(self, status: int, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.status: int = status
        self.retry_after_s: float | None = retry_after_s


class Silence(Exception):
    """No answer."""

    def __init__(self, message: str, *, offline: bool) -> None:
        super().__init__(message)
        self.offline = offline
        """Whether the host never answered, for long enough to count as unreachable."""


class Garbled(Exception):
    """An answer that is not what was requested."""


class NoToken(Exception):
    """A link could not be signed. Its cause is one of the errors above."""


@dataclass
class _Reach:
    """What this process knows about hosts."""

    reached: set[str] = field(default_factory=set)
    silent_since: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_REACH = PerProcess(_Reach)


@dataclass(frozen=True)
class Credentials:
    """Headers that a catalogue requires, and the hosts that get them."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hosts: frozenset[str] = frozenset()
    """Host and port, as in a URL."""

    def of(self, url: str) -> dict[str, str]:
        """The headers for a request to this address; none for other hosts."""
        return dict(self.headers) if urlsplit(url).netloc in self.hosts else {}


class _Session(requests.Session):
    """Removes our headers on a redirect to another host, as requests already does with `Authorization`."""

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
    """Sends requests. Safe to call from several threads, and in a forked process.

    Args:
        timeout_s: Time limit of one request, from its start to the last byte, seconds.
        credentials: Headers, and the hosts that get them.
        count: Largest number of requests at the same time.
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
        """Send one request, without a retry, and return the answer.

        Args:
            url: Begins with `http://` or `https://`.
            method: The HTTP method.
            sent: Sent as a JSON body with POST, otherwise in the query string.
            headers: Headers in addition to the credentials.
            most_b: Largest answer, bytes; a longer one is an error.

        Raises:
            Refusal: A status from 400 on.
            Silence: The answer did not come, or not completely, in time.
            Garbled: The answer is too long.
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
        """Follow redirects and return the final address of a file.

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
        """Check that a host exists before the first request to it.

        Raises:
            Silence: It does not.
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
    """The innermost cause of an error; libraries wrap it in up to four others."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)


def retry_after_s(value: str | None) -> float | None:
    """Seconds to wait, from a `Retry-After` header: HTTP allows seconds or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())
