"""Measure what a call costs, and write `benchmarks/RESULTS.md`. Run by hand: `make bench`.

Each figure comes from fresh processes. What is compared is measured in turns in one process, so that a noisy machine
disturbs both sides alike; ratios are medians over the turns, with their quartiles. `--quick` takes as few turns as can
be, of the models named, and prints only: to see that it works.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

QUICK_TURNS = 2


@dataclass(frozen=True)
class Case:
    """What a model is measured on."""

    chip: tuple[int, ...]
    """Shape of the arrays of the warm call."""
    label: str
    dates: tuple[str, ...] | None = None
    turns: int = 15
    buffer_m: float = 1000
    """Of the place of the cold start, on the sample scene."""
    cold_goal: str = "torch import + 1.5 s"


MONTHS = tuple(f"2022-{month:02}-15" for month in range(3, 11))
CASES = {
    "thor_1_0_base": Case((10, 410, 410), "410 px chip"),
    "terramind_1_0_base": Case((12, 410, 410), "410 px chip"),
    "anysat_1_0_base": Case((8, 10, 128, 128), "128 px chip, 8 dates", MONTHS, turns=5, buffer_m=160, cold_goal=""),
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def import_time() -> dict[str, float]:
    start = time.perf_counter()
    import rs_embed  # noqa: F401

    return {"seconds": time.perf_counter() - start}


def import_torch() -> dict[str, float]:
    start = time.perf_counter()
    import torch  # noqa: F401

    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def cold(model: str, checkpoint: str) -> dict[str, float]:
    """First embedding of a process, from a local checkpoint, on the bundled scene."""
    start = time.perf_counter()
    from rs_embed import PointBuffer, get_embedding

    place = PointBuffer(lon=12.9394, lat=47.7682, buffer_m=CASES[model].buffer_m)
    get_embedding(model, place, backend="sample", ckpt=checkpoint, input_prep="crop")
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def warm(model: str, checkpoint: str, turns: str) -> dict[str, float]:
    """Arrays (the 4 km chip of the docs; a smaller series) through the public call, against the encoder alone."""
    from rs_embed import get_embedding

    arrays, batch, embedder = _ready(model, checkpoint, "fp32")
    figures = in_turns(
        lambda: get_embedding(model, **arrays, ckpt=checkpoint, device="cpu"), lambda: embedder.run(batch), int(turns)
    )
    return figures | {"peak_mb": peak_mb()}


def bf16(model: str, checkpoint: str, turns: str) -> dict[str, float]:
    """bf16 against fp32: time, and the worst cosine between patch tokens, and between tokens for the whole."""
    from torch.nn.functional import cosine_similarity

    _, batch, exact = _ready(model, checkpoint, "fp32")
    _, _, fast = _ready(model, checkpoint, "bf16")
    tokens = exact.run(batch)
    cosine = cosine_similarity(tokens.values, fast.run(batch).values, dim=-1)
    whole, patches = cosine[:, : tokens.layout.prefix], cosine[:, tokens.layout.prefix :]
    figures = {"cosine": float(patches.min())} | ({"cosine_whole": float(whole.min())} if whole.numel() else {})
    return in_turns(lambda: fast.run(batch), lambda: exact.run(batch), int(turns)) | figures


def _ready(model: str, checkpoint: str, precision: str):
    """Arrays for the public call, the network inputs made of them, and the adapter that runs these."""
    import warnings

    import numpy as np

    from rs_embed import plan_embedding
    from rs_embed.embedders._framing import frame_chip
    from rs_embed.embedders.base import ModelInput

    warnings.simplefilter("ignore")
    case = CASES[model]
    chip = np.random.default_rng(0).integers(200, 4000, case.chip).astype(np.float32)
    arrays = {"input_chw": chip, "dates": case.dates}
    plan = plan_embedding(model, **arrays, ckpt=checkpoint, device="cpu", precision=precision)
    job, queries = plan.job, plan.items[0].queries
    chips = {query.modality: job.provider.fetch(query) for query in queries}
    inputs = job.embedder.prepare(chips, frame_chip(case.chip[-2:], job.prep, job.embedder.geometry()))
    return arrays, ModelInput.stack(inputs), job.embedder


def in_turns(one: Callable[[], None], other: Callable[[], None], turns: int) -> dict[str, float]:
    one(), other()
    pairs = []
    for turn in range(turns):
        times = {}
        for task in (one, other) if turn % 2 else (other, one):
            start = time.perf_counter()
            task()
            times[task] = time.perf_counter() - start
        pairs.append((times[one], times[other]))
    ratios = [a / b for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "one_s": statistics.median(a for a, _ in pairs),
        "other_s": statistics.median(b for _, b in pairs),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
    }


def peak_mb() -> float:
    # Not `ru_maxrss`: a child starts with that of the process that began it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def child(task: str, threads: int, *arguments: str, script: str = __file__) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, script, task, *arguments]
    start = time.perf_counter()
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    whole = time.perf_counter() - start
    return json.loads(result.stdout.splitlines()[-1]) | {"process_s": whole}


def _best(task: str, runs: int, *arguments: str, threads: int = 2) -> dict[str, float]:
    """The fastest of several processes: the one that neighbours disturbed least."""
    return min((child(task, threads, *arguments) for _ in range(runs)), key=lambda figures: figures["seconds"])


def _save_checkpoint(model: str, path: Path) -> None:
    """Seeded weights in the layout of the published file."""
    import torch

    from rs_embed import plan_embedding

    plan = plan_embedding(model, backend="sample", pretrained=False)
    state = plan.job.embedder.network.module.state_dict()
    prefix = "encoder." if model.startswith("thor") else ""
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, path)


def main(models: list[str], *, quick: bool) -> None:
    import many  # takes what it measures with from here

    lines = [f"# Results\n\n{date.today()}, {_chip()}, {_versions()}. Made by `make bench`; ratios are of one run.\n"]
    row = "| {} | {} | {} |".format
    own, torch_ = _best("import_time", 1 if quick else 7), _best("import_torch", 1 if quick else 5)
    lines += [row("what", "figure", "goal"), row("---", "---", "---")]
    lines.append(row("`import rs_embed`", f"{own['seconds'] * 1000:.0f} ms", "under 200 ms"))
    lines.append(row("`import torch` alone", f"{torch_['seconds']:.2f} s", ""))
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            checkpoint = Path(folder) / f"{model}.pt"
            _save_checkpoint(model, checkpoint)
            lines += [row(*cells) for cells in _rows(model, str(checkpoint), torch_, quick=quick)]
    text = "\n".join(lines) + "\n" + many.section(quick=quick)
    if not quick:
        RESULTS.write_text(text)
    print(text)


def _rows(model: str, checkpoint: str, torch_: dict[str, float], *, quick: bool) -> list[tuple[str, str, str]]:
    case = CASES[model]
    turns = str(QUICK_TURNS if quick else case.turns)
    first = _best("cold", 1 if quick else 5, model, checkpoint)
    above_s, above_mb = first["seconds"] - torch_["seconds"], first["peak_mb"] - torch_["peak_mb"]
    size_mb = Path(checkpoint).stat().st_size / 1e6
    rows = [
        (
            f"{model}: first embedding, local checkpoint ({size_mb:.0f} MB), imports included",
            f"{first['seconds']:.2f} s = torch import + {above_s:.2f} s",
            case.cold_goal,
        ),
        ("that whole process", f"{first['process_s']:.2f} s", "under 5 s"),
        ("its peak memory", f"{first['peak_mb']:.0f} MB ({above_mb:.0f} MB above torch)", ""),
    ]
    for threads in (1, 2):
        run = child("warm", threads, model, checkpoint, turns)
        rows.append(
            (
                f"{model}: warm public call / bare encoder, {case.label}, {threads} thread(s)",
                f"{run['ratio']:.3f} (quartiles {run['ratio_low']:.3f} to {run['ratio_high']:.3f}); "
                f"{run['one_s'] * 1000:.0f} ms against {run['other_s'] * 1000:.0f} ms",
                "under 1.03",
            )
        )
    rows.append(("peak memory of that process", f"{run['peak_mb']:.0f} MB", ""))
    run = child("bf16", 1, model, checkpoint, turns)
    whole = f"; {run['cosine_whole']:.5f} of the token for the whole" if "cosine_whole" in run else ""
    rows.append(
        (
            f"{model}: bf16 / fp32, {case.label}, 1 thread, and worst token cosine (random weights)",
            f"{run['ratio']:.2f} (quartiles {run['ratio_low']:.2f} to {run['ratio_high']:.2f}); "
            f"{run['cosine']:.5f}{whole}",
            "",
        )
    )
    return rows


def _chip() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def _versions() -> str:
    from importlib.metadata import version

    return f"Python {platform.python_version()}, torch {version('torch')}, numpy {version('numpy')}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", choices=["import_time", "import_torch", "cold", "warm", "bf16"])
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--quick", nargs="*", choices=list(CASES), metavar="MODEL", help="print only; default: all")
    given = parser.parse_args()
    if given.task is None:
        main(given.quick or list(CASES), quick=given.quick is not None)
    else:
        print(json.dumps(globals()[given.task](*given.arguments)))
