"""Sign links just before they are read, and again when a token has expired."""

import json
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from rs_embed.core.stopping import PerProcess
from rs_embed.providers.rasters.declared import parse_time
from rs_embed.providers.stac.access import OpenAccess, Opened
from rs_embed.providers.stac.http import Credentials, Garbled, Http, NoToken, Refusal, Silence
from rs_embed.providers.stac.settings import planetary_computer
from rs_embed.providers.stac.waiting import awaited

AZURE = ".blob.core.windows.net"
_OPEN = "ai4edatasetspublicassets.blob.core.windows.net"
"""A public host of Azure's storage: its links need no signature."""
_FRESH_S = 60.0
"""A token that expires within this many seconds is no longer used."""
_LARGEST_B = 100_000
"""Largest answer of the token service, bytes; about 300 are usual."""


@dataclass(frozen=True)
class _Token:
    text: str
    until: float
    """Time of expiry, seconds since 1970."""


@dataclass
class _Tokens:
    """The tokens of this process, by the address that issued them."""

    by_address: dict[str, _Token] = field(default_factory=dict)
    asked: "dict[str, Future[_Token | None]]" = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_TOKENS = PerProcess(_Tokens)


class PlanetaryComputerAccess:
    """Signs links with tokens of the Planetary Computer: one per account and container, used until it expires.

    Like the package `planetary-computer`, it reads `PC_SDK_SUBSCRIPTION_KEY`, `PC_SDK_SAS_URL` and the file
    `~/.planetarycomputer/settings.env`. Unlike it, it has a time limit, and all threads that wait for a token get its
    failure.
    """

    renews = True

    def __init__(self, timeout_s: float = 30.0, service: str | None = None, storage: str = AZURE) -> None:
        """Configure it, without sending a request.

        Args:
            timeout_s: Time limit of one request for a token, seconds.
            service: Address of the token service; `None` means the address in the settings.
            storage: Endings of the hosts whose links are signed.
        """
        self._timeout_s, self._service, self._storage = timeout_s, service, storage

    def within(self, timeout_s: float) -> "PlanetaryComputerAccess":
        """Return a copy with another time limit; all copies in a process share tokens."""
        return PlanetaryComputerAccess(timeout_s, self._service, self._storage)

    def open(self, href: str, service: str | None) -> Opened:
        """See `Access`.

        Raises:
            NoToken: The token service issued none; `__cause__` is the reason.
        """
        opened = OpenAccess().open(href, service)
        return Opened(f"/vsicurl/{self.sign(opened.name.removeprefix('/vsicurl/'))}")

    def sign(self, href: str) -> str:
        """Return the link with a temporary signature; a link outside Azure's storage stays as it is.

        An existing signature is replaced, as it may have expired.

        Raises:
            NoToken: The service issued none; `__cause__` is the reason.
        """
        parts = urlsplit(href)
        if not parts.netloc.endswith(self._storage) or parts.netloc == _OPEN:
            return href
        if "sig" in parse_qs(parts.query):
            parts = parts._replace(query="")
        account, container = parts.netloc.partition(".")[0], parts.path.strip("/").partition("/")[0]
        return f"{parts.geturl()}{'&' if parts.query else '?'}{self._token(f'{account}/{container}').text}"

    def renew(self, name: str) -> None:
        """See `Access`. If several threads are refused at the same time, the first discards the token."""
        tokens = _TOKENS.here
        with tokens.lock:
            for key in [key for key, token in tokens.by_address.items() if token.text in name]:
                del tokens.by_address[key]

    def _token(self, container: str) -> _Token:
        """A token that is still valid for a while; one thread requests it, and the others wait."""
        service, key = planetary_computer()
        url, tokens = f"{self._service or service}/{container}", _TOKENS.here
        while True:
            with tokens.lock:
                kept = tokens.by_address.get(url)
                if kept is not None and kept.until - time.time() > _FRESH_S:
                    return kept
                coming = tokens.asked.get(url)
                if coming is None:
                    tokens.asked[url] = mine = Future[_Token | None]()
            if coming is None:
                return self._fetched(url, key, tokens, mine)
            found = awaited(coming)
            if found is not None:
                return found

    def _fetched(self, url: str, key: str | None, tokens: _Tokens, mine: "Future[_Token | None]") -> _Token:
        found: _Token | None = None
        try:
            found = self._ask(url, key)
        except Exception as error:
            mine.set_exception(error)  # for the threads that wait
            raise
        finally:
            with tokens.lock:
                del tokens.asked[url]
                if found is not None:
                    tokens.by_address[url] = found
            if not mine.done():
                mine.set_result(found)  # None if this thread was stopped: another one may send the request
        return found

    def _ask(self, url: str, key: str | None) -> _Token:
        headers = {} if key is None else {"Ocp-Apim-Subscription-Key": key}
        http = Http(self._timeout_s, Credentials(headers, frozenset({urlsplit(url).netloc})), count=1)
        try:
            answer = json.loads(http.ask(url, most_b=_LARGEST_B))
            return _Token(str(answer["token"]), parse_time(str(answer["msft:expiry"])).timestamp())
        except (Refusal, Silence, Garbled) as error:
            raise NoToken(str(error)) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise NoToken("an answer without a token") from Garbled(str(error))
