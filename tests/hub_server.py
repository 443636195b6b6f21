"""A Hugging Face hub on the loopback, for the unmodified client, with faults on demand.

    with HubServer({"org/name": {"main": {"model.pt": payload}}}) as hub:
        hub.faults.append(Fault("status", status=503, times=2))
        hf_hub_download("org/name", "model.pt", endpoint=hub.endpoint)
        assert hub.requests == [...]

Only `resolve` is served, which is all that a file download asks for.
"""

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import ClassVar, Literal, Self
from urllib.parse import unquote

Files = Mapping[str, bytes]
Repos = Mapping[str, Mapping[str, Files]]
ROUTE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Fault:
    """What the next matching requests meet instead of a good answer."""

    kind: Literal["status", "cut", "corrupt", "hang", "reset"]
    """`cut` and `corrupt` spoil the body of a GET; `hang` never answers; `reset` closes without a word."""
    times: int = 1_000_000
    """How many requests meet it."""
    method: Literal["HEAD", "GET"] | None = None
    """None spoils both."""
    status: int = 503
    """Only for `status`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Extra headers of a `status`, such as Retry-After or X-Error-Code."""


class HubServer:
    """Serves `repos` ({repository: {revision: {file: bytes}}}) until the `with` block ends."""

    def __init__(self, repos: Repos, *, lfs: bool = True) -> None:
        """Open the port.

        Args:
            repos: What there is; the commit of a revision follows from its files.
            lfs: Whether files are announced with their sha256, as LFS files are, or with a git hash.
        """
        self.repos = repos
        self.lfs = lfs
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.extra_headers: dict[str, str] = {}
        self.closing = threading.Event()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT, or the client's `endpoint=`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def log(self, line: str) -> None:
        """Keep one request: method, file and range."""
        with self._lock:
            self.requests.append(line)

    def next_fault(self, method: str) -> Fault | None:
        """Use up one of the first fault that this request meets."""
        with self._lock:
            for fault in self.faults:
                body_only = fault.kind in ("cut", "corrupt")
                wanted = "GET" if body_only else fault.method
                if fault.times > 0 and wanted in (None, method):
                    fault.times -= 1
                    return fault
        return None


def commit_of(files: Files) -> str:
    """Forty hex digits that stand for these files."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name, body in sorted(files.items()):
        digest.update(name.encode() + b"\0" + body + b"\0")
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""

    def _answer(self) -> None:
        path, asked = unquote(self.path), self.headers.get("Range")
        self.hub.log(" ".join(filter(None, [self.command, path, asked])))
        # The client may also ask for things that no test is about, which faults shall not be spent on.
        fault = self.hub.next_fault(self.command) if ROUTE.fullmatch(path) else None
        if fault is not None and fault.kind == "hang":
            self.hub.closing.wait()
        if fault is not None and fault.kind in ("hang", "reset"):
            self.close_connection = True
        elif fault is not None and fault.kind == "status":
            self._send(fault.status, fault.headers)
        else:
            self._resolve(path, fault)

    def _resolve(self, path: str, fault: Fault | None) -> None:
        route = ROUTE.fullmatch(path)
        if route is None or route["repo"] not in self.hub.repos:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        revisions = self.hub.repos[route["repo"]]
        by_commit = {commit_of(files): files for files in revisions.values()}
        files = {**by_commit, **revisions}.get(route["revision"])
        if files is None:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if route["file"] not in files:
            commit = {"X-Repo-Commit": commit_of(files)}
            return self._send(404, {"X-Error-Code": "EntryNotFound", **commit})
        self._send_file(files[route["file"]], commit_of(files), fault)

    def _send_file(self, body: bytes, commit: str, fault: Fault | None) -> None:
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", **self.hub.extra_headers}
        if self.hub.lfs:
            etag = hashlib.sha256(body).hexdigest()
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(body))}
        else:
            etag = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        headers["ETag"] = f'"{etag}"'
        if fault is not None and fault.kind == "corrupt":
            body = bytes([body[0] ^ 0xFF]) + body[1:]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        status, start = (206, int(asked[1])) if asked else (200, 0)
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send(status, headers, body[start:], cut=fault is not None and fault.kind == "cut")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"", *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True
