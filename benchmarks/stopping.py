"""How long a process lives after Ctrl-C, and what it still asks: both services on loopback, hanging, failing or slow.

    python benchmarks/stopping.py                 # all; about five minutes
    python benchmarks/stopping.py --only stac --signal term

A row is one process that embeds places and is stopped in the middle. "requests after" are those that began at the
service after the signal.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from gee_server import PLACES, EarthEngineServer, default_world  # noqa: E402
from gee_server.faults import Fault, unavailable  # noqa: E402
from stac_server import serving  # noqa: E402

SLOW_S = 5
"""What each request takes in the rows called slow."""
PATIENCE_S = 120.0
"""After which a process that goes on is killed."""
CHILD = """
import sys
from dataclasses import replace
import rs_embed
from rs_embed import PointBuffer, TemporalSpec, get_embedding, get_embeddings
service, url, kind, out, lon, lat = sys.argv[1:]
if service == "gee":
    backend = rs_embed.EarthEngine(host=url, project="test-project", credentials="none")
else:
    from rs_embed.providers.stac.catalogs import EARTH_SEARCH
    backend = rs_embed.Stac(replace(EARTH_SEARCH, url=url, name=""))
where = [(float(lon) + 0.0002 * (i % 8), float(lat) + 0.0002 * (i // 8)) for i in range(500)]
when = TemporalSpec.range("2022-06-01", "2022-07-01")
if kind == "one place":
    get_embedding("mosaiks_rcf", PointBuffer(*where[0], 320), when, backend=backend)
elif kind == "batch":
    get_embeddings("mosaiks_rcf", [PointBuffer(*one, 320) for one in where], when, backend=backend)
else:
    from pathlib import Path
    from rs_embed.cli.main import main as cli
    from rs_embed.providers import _BACKENDS
    _BACKENDS["gee"] = lambda: backend
    table = Path(out) / "places.csv"
    table.write_text("id,lon,lat\\n" + "".join(f"{i},{x},{y}\\n" for i, (x, y) in enumerate(where)))
    sys.argv = ["rs-embed", "export", "mosaiks_rcf", str(table), f"{out}/run", "--buffer=320", "--start=2022-06-01",
                "--end=2022-07-01", "--backend=gee"]
    cli.main()
"""


@dataclass
class Service:
    """One service that misbehaves."""

    url: str
    asked: Callable[[], list[float]]
    """When each request began, seconds of the monotonic clock, which all processes share."""


@contextmanager
def earth_engine(fault: str) -> Iterator[Service]:
    """The loopback Earth Engine."""
    with EarthEngineServer(default_world(), latency_s=SLOW_S if fault == "slow" else 0.0) as server:
        if fault != "slow":
            server.faults.append(Fault("hang") if fault == "hang" else unavailable())
        yield Service(server.url, lambda: [one.started for one in server.data_requests])


@contextmanager
def stac(fault: str) -> Iterator[Service]:
    """The loopback STAC."""
    with serving() as server:
        site = server.site("earth-search", applied=True)
        told = {"kind": "status", "status": 503} if fault == "503" else {"kind": fault, "seconds": 600}
        site.fail(**(told | ({"seconds": SLOW_S} if fault == "slow" else {})))
        routes = ("head", "range")
        yield Service(site.catalog.url, lambda: [one["at"] for one in site.log if one["route"] in routes])


def stopped(service: Service, name: str, kind: str, number: int, out: str) -> tuple[float, int, int, str]:
    """Seconds from the signal to the end, requests that began after it, the exit code, and the last words."""
    lon, lat = PLACES["toulouse"]
    command = [sys.executable, "-c", CHILD, name, service.url, kind, out, str(lon), str(lat)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while not service.asked():
            if process.poll() is not None:
                raise SystemExit(process.stderr.read())
            time.sleep(0.05)
        time.sleep(2)  # it is in the middle of it: waiting, trying again
        at = time.monotonic()
        process.send_signal(number)
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
        seconds = time.monotonic() - at
    time.sleep(1)
    lines = said.strip().splitlines() or [""]
    return seconds, sum(when > at for when in service.asked()), process.returncode, lines[-1][:60]


def main() -> None:
    """Print one line for each way to hang."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("gee", "stac"))
    parser.add_argument("--signal", choices=("int", "term"), help="both if left out")
    parser.add_argument("--fault", choices=("hang", "503", "slow"), help="all if left out")
    parser.add_argument("--kind", choices=("one place", "batch", "export"), help="all if left out")
    asked = parser.parse_args()
    print("| service | fault | call | signal | seconds to exit | requests after | exit code | last words |")
    print("| --- | --- | --- | --- | --: | --: | --: | --- |")
    for name, opened in (("gee", earth_engine), ("stac", stac)):
        for fault in ("hang", "503", "slow"):
            for kind in ("one place", "batch", "export"):
                for number in (signal.SIGINT, signal.SIGTERM):
                    wanted = (asked.only, asked.fault, asked.kind, asked.signal)
                    told = (name, fault, kind, number.name[3:].lower())
                    if any(one not in (None, other) for one, other in zip(wanted, told, strict=True)):
                        continue
                    if number is signal.SIGTERM and kind != "export":
                        continue  # a library leaves SIGTERM to the script that uses it
                    with opened(fault) as service, TemporaryDirectory() as out:
                        seconds, after, code, words = stopped(service, name, kind, number, out)
                    print(f"| {name} | {fault} | {kind} | {number.name} | {seconds:.2f} | {after} | {code} | {words} |")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
