"""A service on loopback that bears so many requests at once and says 429 to more, and a provider that asks it."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import urlopen

from rs_embed.errors import QuotaExceeded
from rs_embed.providers.common.limiter import shared_limiter
from rs_embed.providers.common.retry import Backoff, Retry, Verdict, Waits
from rs_embed.testing import FieldProvider

ACCOUNT = "metered service"


class Service(ThreadingHTTPServer):
    """Counts who asks."""

    daemon_threads = True

    def __init__(self, bears: int, takes_s: float = 0.05, pause_s: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bears, self.takes_s, self.pause_s = bears, takes_s, pause_s
        self.lock = threading.Lock()
        self.under_way = self.most = 0
        self.starts: list[float] = []
        self.refused: list[float] = []
        self.hold = threading.Event()
        """Answers are held back until this is set."""
        self.hold.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def close(self) -> None:
        self.hold.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        service = self.server
        with service.lock:
            service.under_way += 1
            service.most = max(service.most, service.under_way)
            service.starts.append(time.monotonic())
            refused = service.under_way > service.bears
            if refused:
                service.refused.append(time.monotonic())
        if not refused:
            time.sleep(service.takes_s)
            service.hold.wait()
        with service.lock:
            service.under_way -= 1
        try:
            self.send_response(429 if refused else 200)
            self.send_header("Content-Length", "0")
            self.send_header("Retry-After", str(service.pause_s))
            self.end_headers()
        except OSError:
            pass  # who asked was killed

    def log_message(self, *_: object) -> None:
        pass


class _Judge:
    judges = (HTTPError,)

    def verdict(self, error: HTTPError, doing: str) -> Verdict:
        error.close()
        return Verdict("throttled", QuotaExceeded("too many"), float(error.headers["Retry-After"]))


class Metered(FieldProvider):
    """Asks the service before it gives a chip."""

    def __init__(self, url: str, ceiling: int, qps: float | None = None) -> None:
        super().__init__()
        self.url, self.agreed = url, (ceiling, qps)

    def fetch(self, query):
        waits = Waits(Backoff(first_s=0.05, longest_s=0.2, tries=50))
        Retry(_Judge(), shared_limiter(ACCOUNT, *self.agreed), waits).call(self._ask, "asking")
        return super().fetch(query)

    def _ask(self) -> None:
        with urlopen(self.url) as answer:
            answer.read()
