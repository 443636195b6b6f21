"""Python processes that start with torch and the library loaded: forked from a server that has run nothing.

Not a test itself. `run` and `start` are what tests use; run as a script this is the server. A process of its own spends
two seconds on imports, one from here some hundredths; it ends like any other. What a test says about imports needs a
process of its own nevertheless.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NoReturn

PATIENCE_S = 300
"""For what a test starts, whatever else the machine is doing."""
MESSAGE_BYTES = 1 << 17
NUMBER = struct.Struct("q")
PRELOADED = (
    *("pytest", "faulthandler", "pdb", "numpy.testing", "pyarrow.parquet", "pystac_client", "ee"),
    *("torch.utils.data", "rasterio.features", "rasterio.warp", "google.auth", "gee_server", "stac_server"),
    *("rs_embed.cli.main", "rs_embed.api", "rs_embed.exports.call", "rs_embed.exports.engines.local"),
    *("rs_embed.pipeline.run", "rs_embed.pipeline.inputs", "rs_embed.testing", "rs_embed.providers.sample"),
    *("rs_embed.providers.stac.provider", "rs_embed.providers.earthengine.provider"),
    *("rs_embed.embedders.onthefly_mosaiks", "rs_embed.embedders.onthefly_thor"),
)


class Started:
    """A process, as `subprocess.Popen` would give it."""

    def __init__(self, pid: int, status: int, stdout: int, stderr: int) -> None:
        self.pid, self._status = pid, status
        self.stdout, self.stderr = os.fdopen(stdout), os.fdopen(stderr)

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._status)
        self.stdout.close()
        self.stderr.close()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Its exit code and all that it still says; one that hangs is killed."""
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            if not select.select([self._status], [], [], PATIENCE_S)[0]:
                self.send_signal(signal.SIGKILL)
            (code,) = NUMBER.unpack(os.read(self._status, NUMBER.size))
            return subprocess.CompletedProcess([], code, *(one.result() for one in said))


def start(
    code: str,
    *words: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = ".",
    stdin: int | None = None,
) -> Started:
    """Run Python code in a process of its own.

    Args:
        code: What `python -c` would run.
        words: What follows it: `sys.argv[1:]`.
        env: All variables of its environment; those of this process by default.
        cwd: Its folder.
        stdin: A file to read from; nothing by default.
    """
    job = {
        "code": code,
        "words": [str(word) for word in words],
        "env": dict(os.environ if env is None else env),
        "cwd": str(Path(cwd).resolve()),
    }
    nothing = os.open(os.devnull, os.O_RDONLY)
    (stdout, its_stdout), (stderr, its_stderr), (status, its_status) = os.pipe(), os.pipe(), os.pipe()
    its = [its_stdout, its_stderr, its_status]
    socket.send_fds(_server(), [json.dumps(job).encode()], [nothing if stdin is None else stdin, *its])
    for file in (nothing, *its):
        os.close(file)
    (pid,) = NUMBER.unpack(os.read(status, NUMBER.size))
    return Started(pid, status, stdout, stderr)


def run(
    code: str, *words: str | Path, env: Mapping[str, str] | None = None, cwd: str | Path = "."
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own to its end: see `start`."""
    with start(code, *words, env=env, cwd=cwd) as process:
        return process.finish()


@cache
def _server() -> socket.socket:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    no_threads = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    variables = os.environ | no_threads | {"PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen([sys.executable, __file__], stdin=there, env=variables)
    there.close()

    def close() -> None:
        here.close()
        server.wait()

    atexit.register(close)
    return here


def _next_job() -> dict:
    """Fork a process for each job that is asked for. Returns in those only, and what to run."""
    asked = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for the tests
    while True:
        message, files, _, _ = socket.recv_fds(asked, MESSAGE_BYTES, 4)
        while _ended():
            pass
        if not message:
            os._exit(0)
        if os.fork() == 0:
            asked.close()
            _watched(files)
            return json.loads(message)
        for file in files:
            os.close(file)


def _ended() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _watched(files: list[int]) -> None:
    """Fork once more: this process tells how the other ends, which has the standard files and signals of its own."""
    *standard, status = files
    child = os.fork()
    if child:
        for file in (*standard, 0):
            os.close(file)
        os.write(status, NUMBER.pack(child))
        _, found = os.waitpid(child, 0)
        os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(found)))
        os._exit(0)
    os.close(status)
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _become(job: dict) -> NoReturn:
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = ["-c", *job["words"]]
    sys.path[:0] = [path for path in job["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
    sys.exit()


if __name__ == "__main__":
    for name in PRELOADED:
        import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "forking a process with threads may hang"
    gc.freeze()  # else each process copies what it looks through
    _become(_next_job())
