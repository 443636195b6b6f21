"""What a call costs: imports, the first embedding of a process, a warm call above its encoder, and bf16.

`make bench`, or alone: `python benchmarks/calls.py [--quick]`.
"""

import copy
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

from harness import (
    CASES,
    MODELS,
    MONTHS,
    QUICK_TURNS,
    Case,
    Figures,
    Row,
    child,
    in_turns,
    peak_mb,
    ratio,
    ready,
    run_script,
    save_checkpoint,
    shown,
)

SMALL = {
    "thor_tiny": Case("thor_1_0_tiny", (10, 288, 288), "THOR tiny, 288 px"),
    "terramind_tiny": Case("terramind_1_0_tiny", (12, 224, 224), "TerraMind tiny, 224 px"),
    "galileo_nano": Case(
        "galileo_1_0_nano", (1, 10, 96, 96), "Galileo nano, 96 px", ("2022-06-15",), {"modality": "s2"}
    ),
    "presto": Case("presto_1_0", (8, 10, 16, 16), "Presto, 16 px, 8 dates", MONTHS, {"modality": "s2"}, buffer_m=80),
}
"""Networks so quick that the rest of a call shows."""


def import_time() -> Figures:
    start = time.perf_counter()
    import rs_embed  # noqa: F401

    return {"seconds": time.perf_counter() - start}


def cold(case: str, cache: str) -> Figures:
    """First embedding of a process on the bundled scene, with weights from the hub's cache; CPU time of the import of
    torch, and of the rest."""
    begun_s, start = time.process_time(), time.perf_counter()
    import torch  # noqa: F401

    torch_cpu_s, torch_s = time.process_time() - begun_s, time.perf_counter() - start
    from rs_embed import PointBuffer, get_embedding
    from rs_embed.embedders.catalog import get_card

    os.environ |= {"RS_EMBED_CACHE_DIR": cache, "RS_EMBED_OFFLINE": "1"}
    place = PointBuffer(lon=12.9394, lat=47.7682, buffer_m=CASES[case].buffer_m)
    card = get_card(CASES[case].model)
    card = replace(card, weights=replace(card.weights, revision=None, sha256=None, size_bytes=None))
    get_embedding(card, place, backend="sample", input_prep="crop", device="cpu")
    return {
        "torch_s": torch_s,
        "seconds": time.perf_counter() - start - torch_s,
        "torch_cpu_s": torch_cpu_s,
        "cpu_s": time.process_time() - begun_s - torch_cpu_s,
        "peak_mb": peak_mb(),
    }


def hub_cache(model: str, checkpoint: Path) -> Path:
    """A cache of the hub's client that holds a checkpoint as the published weights of a model."""
    from rs_embed.embedders.catalog import get_card

    weights, folder, commit = get_card(model).weights, checkpoint.parent / "cache", "0" * 40
    repository = folder / f"models--{weights.hub.replace('/', '--')}"
    file = repository / "snapshots" / commit / weights.file
    file.parent.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs/main").write_text(commit)
    file.unlink(missing_ok=True)
    file.hardlink_to(checkpoint)
    return folder


def warm(name: str, checkpoint: str, turns: str) -> Figures:
    """Arrays through the public call, against the encoder alone and against the encoder inside the same call.

    CPU time, which other processes disturb less.
    """
    from rs_embed import PointBuffer, get_embedding
    from rs_embed.embedders.base import Embedder

    case = CASES.get(name) or SMALL[name]
    options: dict[str, object] = {"ckpt": checkpoint} if checkpoint else {"pretrained": False}
    if name == "presto":  # takes the location of each pixel
        options["spatial"] = PointBuffer(12.94, 47.77, case.buffer_m)
    arrays, batch, embedder = ready(case, "fp32", **options)
    inside: list[float] = []
    run, clock = Embedder.run, time.process_time

    def timed(self: Embedder, batch):
        start = clock()
        tokens = run(self, batch)
        inside.append(clock() - start)
        return tokens

    def call() -> None:
        inside.clear()
        get_embedding(case.model, **arrays)
        within.append(sum(inside))

    within: list[float] = []
    Embedder.run = timed
    times = in_turns({"call": call, "encoder": lambda: run(embedder, batch)}, int(turns), clock=clock)
    outside = [whole - part for whole, part in zip(times["call"], within[1:], strict=True)]
    own = {"outside_ms": 1000 * statistics.median(outside), "own": ratio(times["call"], within[1:])["ratio"]}
    return ratio(times["call"], times["encoder"]) | own | {"peak_mb": peak_mb()}


def bf16(case: str, checkpoint: str, turns: str) -> Figures:
    """fp32 over bf16, and the worst cosine between patch tokens, and between tokens for the whole."""
    from torch.nn.functional import cosine_similarity

    _, batch, exact = ready(CASES[case], "fp32", ckpt=checkpoint)
    _, _, fast = ready(CASES[case], "bf16", ckpt=checkpoint)
    # Weights of its own: a map keeps them prepared in one precision only.
    fast.network = replace(exact.network, module=copy.deepcopy(exact.network.module))
    tokens, rough = exact.run(batch), fast.run(batch)
    cosine = cosine_similarity(tokens.values, rough.values, dim=-1)
    prefix = tokens.layout.prefix
    vectors = (tokens.values[:, 0], rough.values[:, 0]) if prefix else (tokens.values.mean(1), rough.values.mean(1))
    times = in_turns({"fp32": lambda: exact.run(batch), "bf16": lambda: fast.run(batch)}, int(turns))
    worst = {"tokens": float(cosine[:, prefix:].min()), "pooled": float(cosine_similarity(*vectors, dim=-1).min())}
    return ratio(times["fp32"], times["bf16"]) | worst


def rows(folder: Path, quick: bool) -> list[Row]:
    own = _best("import_time", 1 if quick else 7)
    table = [("`import rs_embed`", f"{own['seconds'] * 1000:.0f} ms", "under 200 ms")]
    for name in MODELS:
        checkpoint = save_checkpoint(CASES[name].model, folder)
        table += [*_cold_rows(name, checkpoint, quick=quick), *_rows(name, checkpoint, quick=quick)]
    for name, case in SMALL.items():
        run = child(__file__, "warm", 1, name, "", QUICK_TURNS if quick else 40)
        table.append((f"{case.label}: warm public call, CPU time, 1 thread", _outside(run), ""))
    return table


def _cold_rows(name: str, checkpoint: Path, *, quick: bool) -> list[Row]:
    case, cache = CASES[name], hub_cache(CASES[name].model, checkpoint)
    time.sleep(2.1)  # the hash of a file that has just changed is not kept
    child(__file__, "cold", 2, name, cache)  # converts the weights
    first = _best("cold", 1 if quick else 7, name, cache)
    return [
        (
            f"{case.model}: first embedding of a process, weights of {checkpoint.stat().st_size / 1e6:.0f} MB in the "
            "hub's cache",
            f"torch's import + {first['seconds']:.2f} s ({first['torch_s']:.2f} s + {first['seconds']:.2f} s); "
            f"CPU {first['torch_cpu_s']:.2f} s + {first['cpu_s']:.2f} s",
            "torch's import + 0.7 s",
        ),
        ("total time of that process", f"{first['process_s']:.2f} s", "under 5 s"),
        ("peak memory of that process", f"{first['peak_mb']:.0f} MB", ""),
    ]


def _rows(name: str, checkpoint: Path, *, quick: bool) -> list[Row]:
    case = CASES[name]
    turns = QUICK_TURNS if quick else case.turns
    table = []
    for threads in (1, 2):
        run = child(__file__, "warm", threads, name, checkpoint, turns)
        figure = (
            f"{shown(run, 3)}; {run['over_s'] * 1000:.0f} ms against {run['under_s'] * 1000:.0f} ms; {_outside(run)}"
        )
        what = f"{case.label}: warm public call / bare encoder, CPU time, {threads} thread(s)"
        table.append((what, figure, "1.02"))
    table.append(("peak memory of that process", f"{run['peak_mb']:.0f} MB", ""))
    run = child(__file__, "bf16", 1, name, checkpoint, turns)
    figure = f"{shown(run)}; lowest cosine: tokens {run['tokens']:.5f}, vector {run['pooled']:.5f}"
    table.append((f"{case.label}: fp32 / bf16, 1 thread (random weights)", figure, "1.6; 0.9995; 0.9999"))
    return table


def _outside(run: Figures) -> str:
    return f"{run['outside_ms']:.1f} ms outside the encoder of the same call, {run['own']:.3f} times its time"


def _best(task: str, runs: int, *arguments: object) -> Figures:
    """The fastest of several processes: the one that neighbours disturbed least."""
    return min((child(__file__, task, 2, *arguments) for _ in range(runs)), key=lambda figures: figures["seconds"])


if __name__ == "__main__":
    run_script(
        "Calls",
        "Each ratio compares measurements of the same run.",
        rows,
        {"import_time": import_time, "cold": cold, "warm": warm, "bf16": bf16},
    )
