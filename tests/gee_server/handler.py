"""The HTTP side of the loopback server."""

from __future__ import annotations

import io
import json
import re
import select
import socket
import time
import traceback
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gee_server.encode import encode, feature
from gee_server.errors import EarthEngineError, error_body
from gee_server.faults import DATA, Fault, unauthorized
from gee_server.image import Collection
from gee_server.interpreter import algorithms_json

if TYPE_CHECKING:
    from gee_server.server import EarthEngineServer, Request

_ROUTES = (
    ("discovery", "GET", r"/\$discovery/rest"),
    ("algorithms", "GET", r"/v1/projects/[^/]+/algorithms"),
    ("config", "GET", r"/v1/projects/[^/]+(/config)?"),
    ("asset", "GET", r"/v1/projects/[^/]+/assets/.+"),
    ("pixels", "POST", r"/v1/projects/[^/]+/image:computePixels"),
    ("value", "POST", r"/v1/projects/[^/]+/value:compute"),
    ("table", "POST", r"/v1/projects/[^/]+/table:computeFeatures"),
    ("token", "POST", r"/token"),
)
_JSON = "application/json; charset=UTF-8"
_HANG_AT_MOST_S = 120
_MAX_BODY = 10485760


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    engine: ClassVar[EarthEngineServer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_CONNECT(self) -> None:
        """As an HTTPS proxy it reaches nothing: there is no world outside."""
        request = self.engine.begin("proxy", "CONNECT", self.path, {}, None)
        self.engine.end(request)
        self.close_connection = True
        self._send(request, 502, b"", {})

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        matches = (name for name, verb, shape in _ROUTES if verb == self.command and re.fullmatch(shape, path))
        route = next(matches, "unknown")
        body = json.loads(raw) if len(raw) in range(1, _MAX_BODY + 1) and route in DATA else None
        request = self.engine.begin(route, self.command, self.path, dict(self.headers), body)
        try:
            self._answer(request)
        finally:
            if not request.ended:
                self.engine.end(request)

    def _answer(self, request: Request) -> None:
        engine = self.engine
        fault = request.fault = engine.script.next(request)
        if fault is None and engine.needs_token and request.route in (*DATA, "algorithms") and not self._known():
            fault = unauthorized()
        if fault is not None and fault.kind in ("hang", "reset"):
            if fault.kind == "hang":
                self._hang()
            self.close_connection = True
            return
        if fault is not None and fault.kind == "status" and not fault.while_evaluating:
            status, content, headers = fault.status, _error(fault.status, fault.message), fault.headers
        else:
            status, content, headers = self._evaluate(request)
        if fault is not None and fault.kind == "status" and fault.while_evaluating:
            status, content, headers = fault.status, _error(fault.status, fault.message), fault.headers
        if request.route in DATA and engine.latency_s:
            engine.closing.wait(max(0.0, request.started + engine.latency_s - time.monotonic()))
        engine.end(request)
        self._send(request, status, content, headers, fault)

    def _hang(self) -> None:
        """Until the client gives up, or the server closes."""
        until = time.monotonic() + _HANG_AT_MOST_S
        while time.monotonic() < until and not self.engine.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _known(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return given in self.engine.tokens

    def _evaluate(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        if request.body is None and request.route in DATA:
            return 400, _error(400, f"Request payload size exceeds the limit: {_MAX_BODY} bytes."), {}
        try:
            return 200, *getattr(self, f"_route_{request.route}")(request)
        except EarthEngineError as error:
            return error.status, json.dumps(error.body()).encode(), {}
        except Exception:  # noqa: BLE001 - kept for the test to see
            self.engine.crashes.append(traceback.format_exc())
            return 500, _error(500, "The loopback Earth Engine server has crashed: " + self.engine.crashes[-1]), {}

    def _route_discovery(self, request: Request) -> tuple[bytes, dict[str, str]]:
        from gee_server.server import discovery_document  # noqa: PLC0415 - the two need each other

        return discovery_document(self.engine.url), {}

    def _route_algorithms(self, request: Request) -> tuple[bytes, dict[str, str]]:
        from gee_server.server import algorithms_gzip  # noqa: PLC0415 - the two need each other

        if "gzip" in self.headers.get("Accept-Encoding", ""):
            return algorithms_gzip(), {"Content-Encoding": "gzip"}
        return algorithms_json(), {}

    def _route_config(self, request: Request) -> tuple[bytes, dict[str, str]]:
        return json.dumps({"name": request.path, "registrationState": "REGISTERED_NOT_COMMERCIALLY"}).encode(), {}

    def _route_asset(self, request: Request) -> tuple[bytes, dict[str, str]]:
        asset = request.path.partition("?")[0].partition("/assets/")[2]
        if asset not in self.engine.world.asset_ids:
            raise EarthEngineError(f"Asset '{asset}' not found (does not exist or caller does not have access).", 404)
        kind = "IMAGE" if asset in self.engine.world.image_ids else "IMAGE_COLLECTION"
        name = f"projects/earthengine-public/assets/{asset}"
        return json.dumps({"type": kind, "name": name, "id": asset}).encode(), {}

    def _route_pixels(self, request: Request) -> tuple[bytes, dict[str, str]]:
        if request.body.get("fileFormat") != "NPY":
            raise EarthEngineError("The loopback Earth Engine server sends NPY only.")
        stream = io.BytesIO()
        np.save(stream, self.engine.world.pixels(request.body), allow_pickle=False)
        return stream.getvalue(), {"Content-Type": "application/octet-stream"}

    def _route_value(self, request: Request) -> tuple[bytes, dict[str, str]]:
        return json.dumps({"result": encode(self.engine.world.run(request.body["expression"]))}).encode(), {}

    def _route_table(self, request: Request) -> tuple[bytes, dict[str, str]]:
        table = self.engine.world.run(request.body["expression"])
        if not isinstance(table, Collection):
            raise EarthEngineError("The result of the expression is not a FeatureCollection.")
        first, size = int(request.body.get("pageToken") or 0), int(request.body.get("pageSize") or 1000)
        features = [feature(one) for one in table.elements[first : first + size]]
        answer = {"type": "FeatureCollection", "features": features}
        if first + size < len(table.elements):
            answer["nextPageToken"] = str(first + size)
        return json.dumps(answer).encode(), {}

    def _route_token(self, request: Request) -> tuple[bytes, dict[str, str]]:
        answer = {"access_token": self.engine.issue_token(), "expires_in": 3600, "token_type": "Bearer"}
        return json.dumps(answer).encode(), {}

    def _route_unknown(self, request: Request) -> tuple[bytes, dict[str, str]]:
        raise EarthEngineError(f"The loopback Earth Engine server has no {request.method} {request.path}.", 404)

    def _send(
        self, request: Request, status: int, content: bytes, headers: dict[str, str], fault: Fault | None = None
    ) -> None:
        spoilt = fault.kind if fault is not None else None
        if spoilt == "short":
            content = content[: len(content) // 2]
        if spoilt == "corrupt":
            content = content[:1] + b"?" + content[2:]
        request.status, request.sent_bytes = status, len(content)
        self.send_response(status)
        for name, value in {"Content-Type": _JSON, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if spoilt == "cut" else content)
        self.wfile.flush()
        if spoilt == "cut":
            self.close_connection = True


def _error(status: int, message: str) -> bytes:
    return json.dumps(error_body(status, message)).encode()
