"""A page that asks for more, on this machine only: a small server behind a secret address."""

import secrets
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from rs_embed.errors import RSEmbedError, SpecError

Answer = Callable[[Mapping[str, str]], bytes]
"""From the fields of a request to JSON; refuses wrong fields by `SpecError`."""
_HOST = "127.0.0.1"
_IDLE_S = 60
"""After this time without a request, a connection is closed."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address is the secret
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class PageServer(ThreadingHTTPServer):
    """Serve one page and its parts at `http://127.0.0.1:PORT/TOKEN/`, and nothing else.

    Only this machine can connect. The token keeps out its other users, and web sites. The check of the host's name
    keeps out a site whose name leads to 127.0.0.1.

    Args:
        page: The file.
        part: Answers requests for a part.
        port: 0 takes a free one.

    Raises:
        SpecError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, page: str, part: Answer, port: int = 0) -> None:
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise SpecError(f"Expected a free port, got {port}: {error.strerror}.", fix="choose another") from error
        self.page = page.encode("utf-8")
        self.part = part
        self.token = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{_HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that does not wait for its answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rs_embed", ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        hosts = {f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")}
        asked = urlsplit(self.path)
        token, _, name = asked.path.removeprefix("/").partition("/")
        is_known = secrets.compare_digest(token.encode(), self.server.token.encode())
        if not is_known or self.headers.get("Host") not in hosts:
            self._send(HTTPStatus.FORBIDDEN, b"Forbidden", "text/plain")
        elif name == "":
            self._send(HTTPStatus.OK, self.server.page, "text/html")
        elif name == "part":
            fields = {key: values[0] for key, values in parse_qs(asked.query).items()}
            try:
                self._send(HTTPStatus.OK, self.server.part(fields), "application/json")
            except SpecError as error:
                self._send(HTTPStatus.BAD_REQUEST, error.headline.encode(), "text/plain")
            except RSEmbedError as error:
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, error.headline.encode(), "text/plain")
        else:
            self._send(HTTPStatus.NOT_FOUND, b"Not found", "text/plain")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for key, value in {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": len(body)}.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the address would stand in the terminal at every move of the map."""
