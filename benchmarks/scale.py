"""Simulate an export on a cluster in virtual time, and measure a small real one; draw `docs/images/scale.png`.

`python benchmarks/scale.py` simulates and draws (seconds); `--measure` also runs a real cluster of two nodes on this
machine, on chips that take a while to come, with one worker and with two (some minutes). The figures go into
`docs/scale.md` by hand. The simulated service has a latency, errors and a quota; the limiter is the real `Policy`.
"""

import argparse
import heapq
import itertools
import math
import random
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

from rs_embed.providers.common.policy import Policy, Slot
from rs_embed.testing import FieldProvider

PICTURE = Path(__file__).parents[1] / "docs/images/scale.png"
WORKERS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Service:
    """A made-up archive."""

    quota: int = 40
    """Requests at the same time; more are refused. Source: Earth Engine, per project."""
    latency_s: float = 2.0
    """Median; log-normal."""
    spread: float = 0.4
    errors: float = 0.01
    """Share of requests that fail and are made again."""
    refusal_s: float = 0.1
    pause_s: float = 1.0
    """What it asks to wait when it refuses."""
    chips: int = 1
    """That one request brings."""


@dataclass(frozen=True)
class Crew:
    """Who works."""

    workers: int = 8
    chips_per_s: float = 75.0
    """Of one worker: an assumption, between the 50 and 100 of one GPU."""
    ahead: int = 64
    """Requests of a worker on their way or waiting to be encoded: two units of four batches of eight threads."""
    ceiling: int = 40
    """Of the limiter."""
    qps: float | None = 100.0
    limited: bool = True
    """Whether a refusal slows down anybody but who was refused."""


@dataclass
class Outcome:
    """What came of it."""

    seconds: float = 0.0
    chips: int = 0
    requests: int = 0
    """Made, refused ones included."""
    refused: int = 0
    most: int = 0
    """Under way at the service at the same time, refused ones left out."""
    waiting_most: int = 0
    """Chips fetched and not encoded yet, of all workers."""
    track: list[tuple[float, int, int]] = field(default_factory=list)
    """(time, under way, refused so far)."""

    @property
    def chips_per_s(self) -> float:
        return self.chips / self.seconds


class Simulation:
    """Requests, leaves, answers and encoding as events in virtual time."""

    def __init__(self, service: Service, crew: Crew, requests: int, seed: int = 0) -> None:
        self.service, self.crew, self.chance = service, crew, random.Random(seed)
        self.policy = Policy(crew.ceiling, crew.qps, 0.0)
        self.events: list[tuple[float, int, str, int, Slot | None]] = []
        self.number = itertools.count()
        self.todo = requests
        self.queue: deque[int] = deque()
        """Workers, one entry for each request that waits for leave."""
        self.out = [0] * crew.workers
        self.free_at = [0.0] * crew.workers
        self.under_way = self.waiting = 0
        self.found = Outcome()

    def at(self, when: float, what: str, worker: int, slot: Slot | None = None) -> None:
        heapq.heappush(self.events, (when, next(self.number), what, worker, slot))

    def run(self) -> Outcome:
        for worker in range(self.crew.workers):
            self.more(worker)
        self.give_leave(0.0)
        while self.events:
            now, _, what, worker, slot = heapq.heappop(self.events)
            getattr(self, what)(now, worker, slot)
            self.give_leave(now)
            self.found.seconds = now
        return self.found

    def more(self, worker: int) -> None:
        """As many requests as back-pressure allows."""
        while self.todo and self.out[worker] < self.crew.ahead:
            self.todo -= 1
            self.out[worker] += 1
            self.queue.append(worker)

    def give_leave(self, now: float) -> None:
        while self.queue and (leave := self.policy.take(str(next(self.number)), now)) is not None:
            self.at(now + leave.wait_s, "start", self.queue.popleft(), Slot(leave))

    def start(self, now: float, worker: int, slot: Slot) -> None:
        self.found.requests += 1
        if self.under_way >= self.service.quota:
            self.found.refused += 1
            self.at(now + self.service.refusal_s, "refuse", worker, slot)
            return
        self.under_way += 1
        self.found.most = max(self.found.most, self.under_way)
        self.found.track.append((now, self.under_way, self.found.refused))
        took = self.service.latency_s * math.exp(self.chance.gauss(0, self.service.spread))
        self.at(now + took, "fail" if self.chance.random() < self.service.errors else "answer", worker, slot)

    def refuse(self, now: float, worker: int, slot: Slot) -> None:
        if self.crew.limited:
            slot.throttled(self.service.pause_s)
        self.policy.give_back(slot, now)
        self.at(now + self.service.pause_s * (1 + self.chance.random()), "again", worker)

    def fail(self, now: float, worker: int, slot: Slot) -> None:
        self.under_way -= 1
        self.policy.give_back(slot, now)
        self.at(now + self.chance.random(), "again", worker)

    def again(self, now: float, worker: int, slot: None) -> None:
        self.queue.append(worker)

    def answer(self, now: float, worker: int, slot: Slot) -> None:
        self.under_way -= 1
        slot.succeeded()
        self.policy.give_back(slot, now)
        self.waiting += self.service.chips
        self.found.waiting_most = max(self.found.waiting_most, self.waiting)
        self.free_at[worker] = max(self.free_at[worker], now) + self.service.chips / self.crew.chips_per_s
        self.at(self.free_at[worker], "encode", worker)

    def encode(self, now: float, worker: int, slot: None) -> None:
        self.waiting -= self.service.chips
        self.found.chips += self.service.chips
        self.out[worker] -= 1
        self.more(worker)


SINGLE = Service()
SHARED = replace(SINGLE, latency_s=4.0, chips=30)
"""A window of 48 MiB: 30 chips of 224 px, twice as long."""
SHARED_AHEAD = 16
"""Two units of eight windows, as by `RS_EMBED_RAY_AHEAD=8`; of four, a GPU would be idle a third of the time."""


def throughput(service: Service, requests: int) -> list[Outcome]:
    ahead = SHARED_AHEAD if service.chips > 1 else Crew.ahead
    return [Simulation(service, Crew(workers, ahead=ahead), requests).run() for workers in WORKERS]


def draw(single: list[Outcome], shared: list[Outcome], tuned: Outcome, unlimited: Outcome) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot(WORKERS, [75 * n for n in WORKERS], color="0.7", linestyle="--", label="encoding alone, 75/s a worker")
    left.plot(WORKERS, [one.chips_per_s for one in shared], marker="o", label="shared reads, 30 chips a request")
    left.plot(WORKERS, [one.chips_per_s for one in single], marker="o", label="single reads")
    left.set(
        xscale="log", yscale="log", xlabel="workers", ylabel="chips a second", title="A quota of 40 requests at a time"
    )
    left.set_xticks(WORKERS, map(str, WORKERS), minor=False)
    left.minorticks_off()
    left.legend(fontsize=8)
    for outcome, label in ((unlimited, "without a limiter"), (tuned, "with it, agreed to 200")):
        times, refused = [t for t, _, _ in outcome.track], [r for _, _, r in outcome.track]
        right.plot(times, refused, label=label)
    right.set(
        xlabel="seconds", ylabel="requests refused so far", yscale="symlog", title="64 workers, one request a chip"
    )
    right.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=110)


class Slow(FieldProvider):
    """Chips that take a while, each noted with when it was asked for."""

    def __init__(self, log: str, latency_s: float) -> None:
        super().__init__()
        self.log, self.latency_s = log, latency_s

    def identity(self) -> str:
        return "slow field"

    def fetch(self, query):
        time.sleep(self.latency_s)
        with open(self.log, "a") as file:
            file.write(f"{time.time()}\n")
        return super().fetch(query)


def measured(workers: int, rows: int = 640, latency_s: float = 0.4) -> float:
    """Rows a second of a real cluster while all of its workers work: the middle of the run."""
    import os

    from rs_embed import export_embeddings

    os.environ |= {"RS_EMBED_RAY_WORKERS": str(workers), "RS_EMBED_RAY_FETCH_CPUS": "0.05"}
    places = [(12 + 0.01 * (i % 32), 47 + 0.01 * (i // 32)) for i in range(rows)]
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        options = {"unit_rows": 32, "fetch_workers": 4, "device": "cpu", "engine": "ray", "progress": False}
        backend = Slow(log, latency_s)
        report = export_embeddings("mosaiks_rcf", places, f"{folder}/run", buffer_m=80, backend=backend, **options)
        assert report.ok == rows
        times = sorted(float(line) for line in Path(log).read_text().split())
    first, last = rows // 4, rows * 17 // 20
    return (last - first) / (times[last] - times[first])


def measure() -> None:
    import os

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "object_store_memory": 200_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2, object_store_memory=200_000_000)
    ray.init(cluster.address, log_to_driver=False)
    try:
        pairs = [(measured(1), measured(2)) for _ in range(3)]
    finally:
        ray.shutdown()
        cluster.shutdown()
    for one, two in pairs:
        print(f"one worker {one:.1f} rows/s, two {two:.1f} rows/s: efficiency {two / one / 2:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="also run a real cluster of two nodes")
    arguments = parser.parse_args()
    single, shared = throughput(SINGLE, 20_000), throughput(SHARED, 20_000)
    for name, outcomes in (("one request a chip", single), ("shared reads", shared)):
        for workers, one in zip(WORKERS, outcomes, strict=True):
            print(f"{name}, {workers} workers: {one.chips_per_s:,.0f} chips/s, at most {one.most} requests at a time, "
                  f"{one.refused} refused, {one.waiting_most} chips waiting")  # fmt: skip
    tuned = Simulation(SINGLE, Crew(64, ceiling=200, qps=None), 8_000).run()
    unlimited = Simulation(SINGLE, Crew(64, ceiling=1_000_000, qps=None, limited=False), 8_000).run()
    for name, one in (("agreed to 200", tuned), ("no limiter", unlimited)):
        share = one.refused / one.requests
        print(f"{name}: {share:.1%} of {one.requests} requests refused, {one.chips_per_s:.1f} chips/s")
    draw(single, shared, tuned, unlimited)
    if arguments.measure:
        measure()


if __name__ == "__main__":
    main()
