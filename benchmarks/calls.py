"""What a call costs: imports, the first embedding of a process, a warm call above its encoder, and bf16.

`make bench`, or alone: `python benchmarks/calls.py [--quick]`.
"""

import copy
import time
from dataclasses import replace
from pathlib import Path

from harness import (
    CASES,
    MODELS,
    QUICK_TURNS,
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


def import_time() -> Figures:
    start = time.perf_counter()
    import rs_embed  # noqa: F401

    return {"seconds": time.perf_counter() - start}


def import_torch() -> Figures:
    start = time.perf_counter()
    import torch  # noqa: F401

    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def cold(case: str, checkpoint: str) -> Figures:
    """First embedding of a process, from a local checkpoint, on the bundled scene."""
    start = time.perf_counter()
    from rs_embed import PointBuffer, get_embedding

    place = PointBuffer(lon=12.9394, lat=47.7682, buffer_m=CASES[case].buffer_m)
    get_embedding(CASES[case].model, place, backend="sample", ckpt=checkpoint, input_prep="crop")
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def warm(case: str, checkpoint: str, turns: str) -> Figures:
    """Arrays through the public call, against the encoder alone."""
    from rs_embed import get_embedding

    arrays, batch, embedder = ready(CASES[case], "fp32", ckpt=checkpoint)
    times = in_turns(
        {"call": lambda: get_embedding(CASES[case].model, **arrays), "encoder": lambda: embedder.run(batch)}, int(turns)
    )
    return ratio(times["call"], times["encoder"]) | {"peak_mb": peak_mb()}


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
    own, torch_ = _best("import_time", 1 if quick else 7), _best("import_torch", 1 if quick else 5)
    table = [
        ("`import rs_embed`", f"{own['seconds'] * 1000:.0f} ms", "under 200 ms"),
        ("`import torch` alone", f"{torch_['seconds']:.2f} s", ""),
    ]
    for name in MODELS:
        table += _rows(name, save_checkpoint(CASES[name].model, folder), torch_, quick=quick)
    return table


def _rows(name: str, checkpoint: Path, torch_: Figures, *, quick: bool) -> list[Row]:
    case = CASES[name]
    turns = QUICK_TURNS if quick else case.turns
    first = _best("cold", 1 if quick else 5, name, checkpoint)
    above_s, above_mb = first["seconds"] - torch_["seconds"], first["peak_mb"] - torch_["peak_mb"]
    table = [
        (
            f"{case.model}: first embedding, local checkpoint ({checkpoint.stat().st_size / 1e6:.0f} MB), imports "
            "included",
            f"{first['seconds']:.2f} s = torch import + {above_s:.2f} s",
            "torch import + 1.5 s",
        ),
        ("total time of that process", f"{first['process_s']:.2f} s", "under 5 s"),
        ("peak memory of that process", f"{first['peak_mb']:.0f} MB ({above_mb:.0f} MB above torch)", ""),
    ]
    for threads in (1, 2):
        run = child(__file__, "warm", threads, name, checkpoint, turns)
        figure = f"{shown(run, 3)}; {run['over_s'] * 1000:.0f} ms against {run['under_s'] * 1000:.0f} ms"
        table.append((f"{case.label}: warm public call / bare encoder, {threads} thread(s)", figure, "1.02"))
    table.append(("peak memory of that process", f"{run['peak_mb']:.0f} MB", ""))
    run = child(__file__, "bf16", 1, name, checkpoint, turns)
    figure = f"{shown(run)}; lowest cosine: tokens {run['tokens']:.5f}, vector {run['pooled']:.5f}"
    table.append((f"{case.label}: fp32 / bf16, 1 thread (random weights)", figure, "1.6; 0.9995; 0.9999"))
    return table


def _best(task: str, runs: int, *arguments: object) -> Figures:
    """The fastest of several processes: the one that neighbours disturbed least."""
    return min((child(__file__, task, 2, *arguments) for _ in range(runs)), key=lambda figures: figures["seconds"])


if __name__ == "__main__":
    run_script(
        "Calls",
        "Each ratio compares measurements of the same run.",
        rows,
        {"import_time": import_time, "import_torch": import_torch, "cold": cold, "warm": warm, "bf16": bf16},
    )
