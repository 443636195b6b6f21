"""The process: it serves until its standard input ends."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from stac_server.flavours import Quirks
from stac_server.handler import Handler


class Place:
    """One site: its quirks, its faults, what it was asked."""

    def __init__(self, name: str, quirks: Quirks) -> None:
        self.name, self.quirks = name, quirks
        self._lock = threading.Lock()
        self._log: list[dict] = []
        self._faults: list[dict] = []
        self._tokens: set[str] = set()
        self._issued = itertools.count(1)
        self._counts: dict[str, int] = {}
        self._open = self._most = 0
        self._going_on = threading.Event()

    def asked(self, route: str, path: str, headers: dict) -> dict | None:
        """Note a request; the fault that it meets, if any."""
        with self._lock:
            told = {"route": route, "path": path, "range": headers.get("Range"), "headers": headers}
            self._log.append({**told, "at": time.monotonic()})
            self._counts[route] = number = self._counts.get(route, 0) + 1
            for fault in self._faults:
                fits = route in fault["routes"] and fault["times"] > 0 and fault.get("path", "") in path
                if fits and (number % fault["every"] == 0):
                    fault["times"] -= 1
                    return fault
        return None

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count what is asked at the same time."""
        with self._lock:
            self._open += 1
            self._most = max(self._most, self._open)
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1

    def sent(self, count: int) -> None:
        """Note the bytes of the pixels, or of the header, of a file."""
        with self._lock:
            self._log.append({"route": "bytes", "count": count})

    def hang(self, seconds: float) -> None:
        """Say nothing for so long, or until the site is told to go on."""
        self._going_on.wait(seconds)

    def token(self) -> dict:
        with self._lock:
            token = f"t{next(self._issued)}"
            self._tokens.add(token)
        return {"token": f"sig={token}", "msft:expiry": "2099-01-01T00:00:00Z"}

    def good(self, token: str) -> bool:
        with self._lock:
            return token in self._tokens

    def control(self, order: dict) -> dict:
        with self._lock:
            if order.get("fault"):
                self._faults.append({"times": 1_000_000, "every": 1, **order["fault"]})
            if order.get("go_on"):
                self._going_on.set()
            if order.get("expire"):
                self._tokens.clear()
            if order.get("reset"):
                self._log.clear()
                self._faults.clear()
                self._counts.clear()
                self._most = 0
            log = [one for one in self._log if one["route"] != "bytes"]
            sent = sum(one["count"] for one in self._log if one["route"] == "bytes")
            return {"log": log, "most": self._most, "bytes": sent}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """Clients that give up are part of the tests; anything else is a bug of the server."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main() -> None:
    places: dict[str, Place] = {}
    numbers = itertools.count(1)

    def open_place(quirks: dict) -> str:
        name = f"s{next(numbers)}"
        places[name] = Place(name, Quirks(**{**quirks, "missing": tuple(quirks.get("missing", ()))}))
        return name

    handler = type("BoundHandler", (Handler,), {"places": places, "open_place": staticmethod(open_place)})
    server = _Server(("127.0.0.1", 0), handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
