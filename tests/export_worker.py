"""Exports in processes of their own, to be killed: a server that has made one and forks one child a job.

Not a test itself. `Exports` is what tests use.
"""

import json
import os
import random
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np
import warm

from rs_embed.providers.base import Query
from rs_embed.testing import FieldProvider

MODEL = "mosaiks_rcf"
ERROR_CODE = 3
PATIENCE_S = 300
"""For an export of a few rows, whatever else the machine is doing."""


class LoggedField(FieldProvider):
    """Writes down every chip it is asked for, in a file that outlives its process; some fail."""

    def __init__(self, log: Path, latency_s: float = 0.0, fails: Callable[[str, int], bool] = lambda key, times: False):
        super().__init__()
        self._log, self._latency_s, self._fails = log, latency_s, fails

    def identity(self) -> str:
        return "logged field"

    def fetch(self, query: Query):
        key = "{} {:.0f} {:.0f}".format(query.geobox.crs, *query.geobox.affine @ (0, 0))
        handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{key}\n".encode())
        os.close(handle)
        time.sleep(self._latency_s)
        if self._fails(key, asked(self._log).count(key)):
            raise ConnectionError(f"no answer for {key}")
        return super().fetch(query)


def asked(log: Path) -> list[str]:
    """Every chip that was asked for, in order."""
    return log.read_text().splitlines() if log.exists() else []


def pairs(rows: int) -> list[tuple[float, float]]:
    """Places in a spiral around the corner of two UTM zones."""
    angle = np.arange(rows) * 2.4
    return [
        (12 + r * np.cos(a), 47 + r * np.sin(a)) for a, r in zip(angle, 0.02 * np.sqrt(np.arange(rows)), strict=True)
    ]


def export(out: Path, log: Path, rows: int = 60, unit_rows: int = 10, latency_s: float = 0.0, **options):
    """A small export."""
    from rs_embed.exports.call import export_embeddings

    backend = options.pop("backend", None) or LoggedField(log, latency_s)
    if side_m := options.pop("map_of_m", None):
        from rs_embed import PointBuffer, TemporalSpec, embed_region

        options = {"debias": "none", "block_cells": 7, "unit_blocks": 4, "img": 64, "progress": False} | options
        region, year = PointBuffer(12.94, 47.77, side_m / 2), TemporalSpec.year(2022)
        return embed_region(MODEL, region, year, out, backend=backend, device="cpu", **options)
    places = options.pop("places", None)
    places = pairs(rows) if places is None else places
    if grid_format := options.pop("grid_format", None):
        from rs_embed import OutputSpec

        options |= {"output": OutputSpec.grid(), "format": grid_format}
    options = {"buffer_m": 120, "unit_rows": unit_rows, "progress": False, "device": "cpu"} | options
    return export_embeddings(options.pop("models", MODEL), places, out, backend=backend, **options)


def _die_at(point: str, count: int) -> None:
    """Have this process killed, for real, at its `count`th visit to a point."""
    from rs_embed.core import atomic as durable
    from rs_embed.exports import call as exporting
    from rs_embed.exports import records
    from rs_embed.exports.object_store import Remote
    from rs_embed.testing import FieldProvider as Field

    left = [count]

    def visit() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function):
        return lambda *given, **named: (visit(), function(*given, **named))[1]

    def half(path, value):
        durable.part_of(path).write_text(json.dumps(value)[:20])
        visit()
        return durable.write_json(path, value)

    put = Remote.put
    where, name, deadly = {
        "fetch": (Field, "fetch", before(Field.fetch)),
        "write": (records, "publish", before(records.publish)),
        "rename": (durable, "os", _Os(visit)),
        "record": (records, "write_json", half),
        "put": (Remote, "put", lambda self, folder, key: (put(self, folder, key), "/units/" in key and visit())[0]),
        "catalog": (exporting, "write_catalogs", before(exporting.write_catalogs)),
    }[point]
    setattr(where, name, deadly)


class _Os:
    """`os`, whose `replace` does not come back."""

    def __init__(self, visit: Callable[[], None]) -> None:
        self._visit = visit

    def __getattr__(self, name: str):
        return getattr(os, name)

    def replace(self, source, target) -> None:
        os.replace(source, target)
        if str(target).endswith(".parquet"):
            self._visit()


class Exports:
    """Starts exports, each in a process of its own."""

    def __init__(self) -> None:
        its_jobs, jobs = os.pipe()
        self._server = warm.start("import export_worker; export_worker.serve()", stdin=its_jobs)
        os.close(its_jobs)
        self._jobs = os.fdopen(jobs, "w")
        assert self._server.stdout.readline() == "ready\n"

    def start(self, out: Path, log: Path, die: tuple[str, int] | None = None, **options) -> int:
        """The process id of a new export."""
        job = {"out": str(out), "log": str(log), "die": die, "options": options}
        self._jobs.write(json.dumps(job) + "\n")
        self._jobs.flush()
        return int(self._server.stdout.readline())

    def wait(self) -> tuple[int, str]:
        """Exit code (negative: the signal) of the export that ends next, and what it said."""
        # A forked process may hang, and a test that waits for it must end in words.
        limit = threading.Timer(PATIENCE_S, self._server.send_signal, [signal.SIGKILL])
        limit.start()
        told = self._server.stdout.readline()
        limit.cancel()
        assert told, f"no export has ended within {PATIENCE_S} s"
        code, said = json.loads(told)
        return code, said

    def killed_at_random(
        self,
        chance: random.Random,
        pause_s: tuple[float, float],
        out: Path,
        log: Path,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
        **options,
    ) -> int:
        """Start an export again and again, and kill each after a random pause, until one ends; how many were killed.

        The pauses grow, so that one ends on a busy machine, too.

        Args:
            around: Entered for each of them.
        """
        for killed in range(60):
            with around():
                process = self.start(out, log, **options)
                time.sleep(chance.uniform(*pause_s) * (1 + killed / 10))
                with suppress(ProcessLookupError):  # it had ended by itself
                    os.kill(process, signal.SIGKILL)
                code, said = self.wait()
            if code == 0:
                return killed
            assert code == -signal.SIGKILL, said
        raise AssertionError(f"no export to {out} has ended")

    def close(self) -> None:
        self._jobs.close()
        with self._server:
            self._server.finish()


def serve() -> None:
    with tempfile.TemporaryDirectory() as folder:  # everything is loaded once, before the forks
        export(Path(folder) / "run", Path(folder) / "log", rows=2)
    print("ready", flush=True)
    running: dict[int, Path] = {}
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0.01)
        if ready:
            line = sys.stdin.readline()
            if not line:
                break
            job = json.loads(line)
            said = Path(f"{job['log']}.said")
            child = os.fork()
            if child == 0:
                _child(job, said)
            running[child] = said
            print(child, flush=True)
        if running:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child:
                said = running.pop(child)
                text = said.read_text() if said.exists() else ""
                print(json.dumps([os.waitstatus_to_exitcode(status), text]), flush=True)


def _child(job: dict, said: Path) -> None:
    said.unlink(missing_ok=True)
    os.dup2(2, 1)  # what others print, such as Ray, is no part of what the server answers
    code = 0
    try:
        if job["die"]:
            _die_at(*job["die"])
        variables = job["options"].pop("variables", {})
        os.environ.update({f"RS_EMBED_{name}": value for name, value in variables.items()})
        if limit := job["options"].pop("file_limit", None):
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        said_text = str(export(job["out"], Path(job["log"]), **job["options"]))
    except KeyboardInterrupt:
        code, said_text = 130, "interrupted"
    except Exception as error:  # noqa: BLE001  (told to the test)
        code, said_text = ERROR_CODE, f"{type(error).__name__}: {error}"
    said.write_text(said_text)
    sys.stdout.flush()
    os._exit(code)
