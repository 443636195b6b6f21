"""Earth Engine on the loopback, for the unmodified client.

with EarthEngineServer(default_world()) as server, connected(server):
    pixels = ee.data.computePixels({...})
    assert [one.route for one in server.data_requests] == ["pixels"]
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from dataclasses import dataclass
from functools import cache
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Self

from gee_server.faults import DATA, Fault, Script
from gee_server.handler import Handler
from gee_server.interpreter import algorithms_json
from gee_server.world import World


@dataclass
class Request:
    """One request, as the server saw it."""

    number: int
    """From 1, of all requests."""
    route: str
    """pixels, value, table, discovery, algorithms, config, asset, token, proxy or unknown."""
    method: str
    path: str
    headers: dict[str, str]
    body: dict | None
    """Parsed; `body["expression"]` is the graph."""
    started: float
    """Seconds on the monotonic clock."""
    ended: float = 0.0
    status: int = 0
    """0: no answer."""
    fault: Fault | None = None
    sent_bytes: int = 0


class EarthEngineServer:
    """Answers until the `with` block ends.

    Args:
        world: What there is to see.
        latency_s: Every data request takes at least this long.
        token: Ask for `Authorization: Bearer`, issued by `/token`; else nobody is asked who they are.
    """

    def __init__(self, world: World, *, latency_s: float = 0.0, token: bool = False) -> None:
        self.world = world
        self.latency_s = latency_s
        self.needs_token = token
        self.script = Script()
        self.requests: list[Request] = []
        self.strangers: list[Request] = []
        """Who took this server for a way out: threads that an earlier test has abandoned ask so too."""
        self.high_water = 0
        self.tokens: list[str] = []
        self.crashes: list[str] = []
        """Errors of its own; the `with` block ends with the first."""
        self.closing = threading.Event()
        self._open = 0
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._server = _HttpServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"engine": self}))
        self._server.engine = self

    @property
    def url(self) -> str:
        """For `ee.Initialize(url=...)`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def faults(self) -> list[Fault]:
        """Append to it; the first that fits a request is what it meets."""
        return self.script.queue

    @property
    def data_requests(self) -> list[Request]:
        """Without those of Initialize."""
        return [one for one in self.requests if one.route in DATA]

    @property
    def pixel_requests(self) -> list[Request]:
        """Only `computePixels`."""
        return [one for one in self.requests if one.route == "pixels"]

    def reset(self) -> None:
        """Forget requests and faults."""
        with self._lock:
            self.requests.clear()
            self.high_water = 0
            self.script = Script()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._server.server_close()
        self._thread.join()
        if self.crashes and error is None:
            raise RuntimeError(self.crashes[0])

    def begin(self, route: str, method: str, path: str, headers: dict[str, str], body: dict | None) -> Request:
        """A request has come in."""
        with self._lock:
            request = Request(len(self.requests) + 1, route, method, path, headers, body, time.monotonic())
            (self.strangers if route == "proxy" else self.requests).append(request)
            if route in DATA:
                self._open += 1
                self.high_water = max(self.high_water, self._open)
        return request

    def end(self, request: Request) -> None:
        """It is about to be answered, or never will be."""
        with self._lock:
            request.ended = time.monotonic()
            if request.route in DATA:
                self._open -= 1

    def issue_token(self) -> str:
        """A new bearer token; the ones before stay good until `expire_tokens`."""
        with self._lock:
            self._issued = getattr(self, "_issued", 0) + 1
            self.tokens.append(f"token-{self._issued}")
            return self.tokens[-1]

    def expire_tokens(self) -> None:
        """Every token so far is refused from now on."""
        with self._lock:
            self.tokens.clear()

    def connection(self, one: socket.socket, opened: bool) -> None:
        """A client has come or gone."""
        with self._lock:
            (self._connections.add if opened else self._connections.discard)(one)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128
    engine: EarthEngineServer

    def process_request(self, request, client_address) -> None:
        self.engine.connection(request, True)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self.engine.connection(request, False)
        super().shutdown_request(request)

    def handle_error(self, request, client_address) -> None:
        """Clients that give up are part of the tests."""


@cache
def algorithms_gzip() -> bytes:
    """The answer of `algorithms`, packed."""
    return gzip.compress(algorithms_json(), 6)


def discovery_document(url: str) -> bytes:
    """Of the few methods that there are."""
    project = {"location": "path", "pattern": "^projects/[^/]+$", "required": True, "type": "string"}

    def method(id: str, verb: str, tail: str, name: str = "project") -> dict:
        described = {
            "id": f"earthengine.projects.{id}",
            "path": f"v1/{{+{name}}}{tail}",
            "flatPath": f"v1/projects/{{projectsId}}{tail}",
            "httpMethod": verb,
            "parameterOrder": [name],
            "parameters": {name: {**project, "pattern": "^projects/.*$"}},
            "response": {"properties": {"nextPageToken": {"type": "string"}}, "type": "object"},
        }
        return {**described, "request": {"type": "any"}} if verb == "POST" else described

    resources = {
        "algorithms": {"methods": {"list": method("algorithms.list", "GET", "/algorithms", "parent")}},
        "value": {"methods": {"compute": method("value.compute", "POST", "/value:compute")}},
        "image": {"methods": {"computePixels": method("image.computePixels", "POST", "/image:computePixels")}},
        "table": {"methods": {"computeFeatures": method("table.computeFeatures", "POST", "/table:computeFeatures")}},
        "assets": {"methods": {"get": method("assets.get", "GET", "", "name")}},
    }
    document = {
        "kind": "discovery#restDescription", "discoveryVersion": "v1", "id": "earthengine:v1", "name": "earthengine",
        "version": "v1", "title": "Google Earth Engine API", "protocol": "rest", "rootUrl": f"{url}/",
        "servicePath": "", "baseUrl": f"{url}/", "batchPath": "batch", "schemas": {},
        "parameters": {name: {"type": "string", "location": "query"} for name in ("alt", "prettyPrint", "fields")},
        "resources": {"projects": {"methods": {"getConfig": method("getConfig", "GET", "", "name")},
                                   "resources": resources}},
    }  # fmt: skip
    return json.dumps(document).encode()
