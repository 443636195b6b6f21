"""The test's end of the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rs_embed.providers.stac.access import OpenAccess
from rs_embed.providers.stac.catalogs import EARTH_SEARCH, EARTH_SEARCH_C1, PLANETARY_COMPUTER, StacCatalog
from rs_embed.providers.stac.sign import PlanetaryComputerAccess

_PRESETS = {"earth-search": EARTH_SEARCH, "c1": EARTH_SEARCH_C1, "planetary-computer": PLANETARY_COMPUTER}


class Site:
    """One catalogue with its files."""

    def __init__(self, url: str, preset: StacCatalog, control: str, signed: bool) -> None:
        self.url, self._control = url, control
        host = url.split("/")[2]
        access = PlanetaryComputerAccess(service=f"{url}/sas", storage=host) if signed else OpenAccess()
        self.catalog = replace(preset, url=f"{url}/api", access=access, name="")

    def fail(self, kind: str = "status", routes: tuple[str, ...] = ("head", "range"), **more) -> None:
        """From now on requests of these routes fail.

        Kinds: "status", "hang", "slow", "reset", "truncate", "corrupt" (zeros), "redirect", "login".
        """
        _ask(self._control, {"fault": {"kind": kind, "routes": routes, **more}})

    def go_on(self) -> None:
        """Whatever hangs need hang no longer."""
        _ask(self._control, {"go_on": True})

    def expire(self) -> None:
        """No token is good any longer."""
        _ask(self._control, {"expire": True})

    def reset(self) -> None:
        """Forget requests and faults."""
        _ask(self._control, {"reset": True})

    @property
    def log(self) -> list[dict]:
        """What it was asked: route, path, range, headers."""
        return _ask(self._control, {"fault": None})["log"]

    @property
    def most_at_once(self) -> int:
        """The most requests that were under way at the same time."""
        return _ask(self._control, {"fault": None})["most"]

    @property
    def bytes_sent(self) -> int:
        """Of files: headers and pixels."""
        return _ask(self._control, {"fault": None})["bytes"]

    def count(self, *routes: str) -> int:
        """How many requests of some routes, or of all."""
        return sum(one["route"] in routes or not routes for one in self.log)


class StacServer:
    """The process, as the tests see it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def site(self, preset: str = "earth-search", **quirks) -> Site:
        """A new site, like one of the presets."""
        flavour = "earth-search" if preset == "c1" else preset
        place = _ask(f"{self._url}/_new", {"flavour": flavour, **quirks})["place"]
        url, control = f"{self._url}/{place}", f"{self._url}/_control/{place}"
        return Site(url, _PRESETS[preset], control, quirks.get("signed", False))


def _ask(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as answer:
        return json.load(answer)


@contextmanager
def serving() -> Iterator[StacServer]:
    """The server, until the block ends."""
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "stac_server"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, cwd=tests, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield StacServer(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()
            process.wait(timeout=10)
