"""How a batch of chips scales from one core to two: `python benchmarks/cores.py [--quick]`, some four minutes.

Each figure is the best of fresh processes that are held to one core or to two, taken in turns. Beside the library as it
is ("one product": both cores work on each matrix product) stand two encoder threads on separate batches ("apart", each
with its own copy of the weights) and two processes, which show what the memory of the machine allows at most.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness import Case, Figures, Row, child, ready, run_script

CASES = {
    "thor": Case("thor_1_0_base", (10, 288, 288), "THOR base, 288 px"),
    "terramind": Case("terramind_1_0_base", (12, 224, 224), "TerraMind base, 224 px"),
    "anysat": Case("anysat_1_0_base", (8, 10, 32, 32), "AnySat base, 32 px, 8 dates", ("2022-06-15",) * 8),
}
BATCH = 4
"""As the library takes on a CPU."""
WAYS = {"one": 1, "product": 2, "apart": 1, "processes": 1}
"""Way -> threads in a matrix product."""


def _hold(cores: int) -> None:
    """Hold this process to so many of the cores that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _batches(case: Case, precision: str):
    """An adapter with a network of its own, and a batch for it."""
    import torch

    from rs_embed.embedders.base import ModelInput, NetworkCache

    _, made, embedder = ready(case, precision, pretrained=False)
    embedder = type(embedder)(embedder.request, embedder.device, NetworkCache())
    tensors = {name: torch.cat([tensor[:1]] * BATCH) for name, tensor in made.tensors.items()}
    return embedder, ModelInput(tensors, made.ground_cover_m)


def _seconds(works: list[Callable[[], object]], rounds: int) -> float:
    """Seconds until each of some threads has done its work so many times, after once to warm up."""

    def many(work: Callable[[], object]) -> None:
        for _ in range(rounds):
            work()

    for work in works:
        work()
    threads = [threading.Thread(target=many, args=(work,)) for work in works[1:]]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    many(works[0])
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def encode(way: str, name: str, precision: str, rounds: str) -> Figures:
    """Batches per second of the encoder alone."""
    cores = 1 if way in ("one", "processes") else 2
    _hold(cores)
    pairs = [_batches(CASES[name], precision) for _ in range(2 if way == "apart" else 1)]
    works = [lambda embedder=embedder, batch=batch: embedder.run(batch) for embedder, batch in pairs]
    return {"rate": len(works) * int(rounds) / _seconds(works, int(rounds))}


def run(cores: str, name: str, chips: str) -> Figures:
    """Chips per second of `get_embeddings`, with imagery in memory."""
    import warnings

    from many import _places, _provider

    from rs_embed import get_embeddings

    _hold(int(cores))
    warnings.simplefilter("ignore")
    case = CASES[name]
    options = {"buffer_m": case.chip[-1] * 5, "backend": _provider(), "device": "cpu", "pretrained": False}
    get_embeddings(case.model, _places(BATCH), **options)
    start = time.perf_counter()
    get_embeddings(case.model, _places(int(chips)), **options)
    return {"rate": int(chips) / (time.perf_counter() - start)}


def _rate(way: str, name: str, precision: str, rounds: int) -> float:
    """Batches per second, of two processes together if that is the way."""
    if way != "processes":
        return child(__file__, "encode", WAYS[way], way, name, precision, rounds)["rate"]
    found: list[float] = []
    held = sorted(os.sched_getaffinity(0))

    def one(core: int) -> None:
        os.sched_setaffinity(0, [core])  # of this thread, and of the process that it starts
        found.append(child(__file__, "encode", 1, way, name, precision, 2 * rounds)["rate"])

    threads = [threading.Thread(target=one, args=(core,)) for core in held[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


def rows(folder: Path, quick: bool) -> list[Row]:
    table: list[Row] = []
    turns, rounds = (1, 1) if quick else (3, 6)
    for name, case in CASES.items():
        for precision in ("fp32", "bf16"):
            best = dict.fromkeys(WAYS, 0.0)
            for _ in range(turns):
                for way in WAYS:
                    best[way] = max(best[way], _rate(way, name, precision, rounds))
            shares = ", ".join(f"{way} {best[way] / best['one']:.2f}" for way in WAYS if way != "one")
            what = f"{case.label}, {precision}, batches of {BATCH}: two cores / one"
            table.append((what, f"{shares}; one core {BATCH * best['one']:.2f} chips/s", "1.8"))
    for name in ("thor", "terramind"):
        rates = [
            max(child(__file__, "run", cores, cores, name, 8 if quick else 32)["rate"] for _ in range(turns))
            for cores in (1, 2)
        ]
        what = f"{CASES[name].label}, `get_embeddings`: two cores / one"
        table.append((what, f"{rates[1] / rates[0]:.2f}; {rates[1]:.2f} chips/s against {rates[0]:.2f}", "1.8"))
    return table


if __name__ == "__main__":
    run_script(
        "Two cores",
        "Random weights, imagery in memory, the best of three processes each. `product`: both cores in each matrix "
        "product, as the library does; `apart`: two encoder threads on separate batches; `processes`: two processes.",
        rows,
        {"encode": encode, "run": run},
    )
