"""Clusters of several nodes on this machine, what is needed to look at them and to hurt them, and what is compared."""

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from export_worker import MODEL

STORE_BYTES = 80_000_000
"""Of each node; little, so that what is not bounded spills at once."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_num_workers_soft_limit": "4",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",
}
"""Of all its processes. Those that fetched wait for the next run, up to four a node, rather than end after a second;
and none is behind all other work of the machine.
"""

STARTS = 5
"""How often a cluster is started: Ray gives a node 30 s, which is little on a busy machine."""


def processes_of(raylet: int, name: str) -> list[int]:
    """Process ids of what a node runs under this name, such as `ray::Worker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet and (entry / "cmdline").read_bytes().startswith(name.encode()):
                found.append(int(entry.name))
    return found


class Nodes:
    """A cluster of two nodes with a core each, in a folder of its own: another cluster of this machine is not met."""

    def __init__(self) -> None:
        import ray

        self._before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_TMPDIR", *ENVIRONMENT)}
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        os.environ.update(ENVIRONMENT)
        for tries_left in reversed(range(STARTS)):
            self._folder = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="rse")  # short: sockets lie in it
            try:
                self._start()
                break
            except Exception as error:
                ray.shutdown()
                for pid in self.processes():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if tries_left == 0 or "timed out" not in str(error):
                    raise

    def _start(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False,
                "include_log_monitor": False, "no_monitor": True}  # fmt: skip
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.add()
        self.address: str = self.cluster.address
        ray.init(self.address, log_to_driver=False)

    def add(self):
        """One node more."""
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)

    @staticmethod
    def raylet(node) -> int:
        return node.all_processes["raylet"][0].process.pid

    def workers(self, node=None) -> list[int]:
        """Process ids of the workers that have models, of one node or all."""
        nodes = self.cluster.list_all_nodes() if node is None else [node]
        return [pid for one in nodes for pid in processes_of(self.raylet(one), "ray::Worker")]

    def spilled(self) -> list[Path]:
        """Objects that the nodes had to put on disk."""
        session = Path(self.cluster.head_node.get_session_dir_path())
        return [path for path in session.glob("ray_spilled_objects*/*") if path.is_file()]

    def processes(self) -> list[int]:
        """Process ids of all that runs for this cluster, but for this process: they name its folder, or are called
        after what they do and belong to one that does.
        """
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and self._folder.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found + [pid for parent in found for pid in processes_of(parent, "ray::")]

    def close(self) -> None:
        """End it, and wait until nothing is left of it."""
        import ray

        running = set(self.processes())
        ray.shutdown()
        assert not ray.is_initialized()
        self.cluster.shutdown()
        until(lambda: not running & set(self.processes()), seconds=60)
        shutil.rmtree(self._folder, ignore_errors=True)
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def until(condition, seconds: float = 240.0) -> None:
    """Wait for something to become true; long, as Ray gives its workers a low priority on a busy machine."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def vectors(run: Path, model: str = MODEL) -> dict[int, bytes]:
    """The bytes of every vector, by row; fails if a row is there twice."""
    found: dict[int, bytes] = {}
    for path in sorted(run.glob(f"{model}/units/*.parquet")):
        table = pq.read_table(path)
        for row, vector in zip(table["row"].to_pylist(), table["embedding"].combine_chunks(), strict=True):
            assert row not in found
            found[row] = np.asarray(vector.values).tobytes() if vector.is_valid else b""
    return found


def table_without_times(path: Path) -> dict[str, list[object]]:
    """All columns but the one that holds when each row was made."""
    table = pq.read_table(path)
    return {name: table[name].to_pylist() for name in table.column_names if name not in ("meta", "embedding")}
