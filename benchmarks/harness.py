"""What all benchmarks share: cases, timing in turns, processes of their own, and the sections of `RESULTS.md`.

Each figure comes from fresh processes. What is compared is measured in turns in one process, so that a noisy machine
disturbs all sides alike; ratios are medians over the turns, with their quartiles.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
QUICK_TURNS = 2
Row = tuple[str, str, str]
"""What was measured, the figure, and the goal."""
Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """What a model is measured on."""

    model: str
    chip: tuple[int, ...]
    """Shape of the arrays of the call."""
    label: str
    dates: tuple[str, ...] | None = None
    knobs: Mapping[str, object] = field(default_factory=dict)
    turns: int = 9
    buffer_m: float = 1000
    """Of the place of the cold start, on the sample scene."""


MONTHS = tuple(f"2022-{month:02}-15" for month in range(3, 11))
CASES = {
    "thor": Case("thor_1_0_base", (10, 410, 410), "THOR, patches of 16 px, 410 px chip"),
    "thor_p8": Case("thor_1_0_base", (10, 410, 410), "THOR, patches of 8 px", knobs={"patch_size": 8}, turns=5),
    "terramind": Case("terramind_1_0_base", (12, 410, 410), "TerraMind, 410 px chip"),
    "anysat": Case("anysat_1_0_base", (8, 10, 64, 64), "AnySat, 64 px chip, 8 dates", MONTHS, turns=7, buffer_m=160),
}
MODELS = ("thor", "terramind", "anysat")
"""One case a model."""


def save_checkpoint(model: str, folder: Path) -> Path:
    """Seeded weights in the layout of the published file."""
    import torch

    from rs_embed import plan_embedding

    path = folder / f"{model}.pt"
    if not path.exists():
        plan = plan_embedding(model, backend="sample", pretrained=False)
        state = plan.job.embedder.network.module.state_dict()
        prefix = "encoder." if model.startswith("thor") else ""
        torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, path)
    return path


def ready(case: Case, precision: str, **knobs: object):
    """Arrays for the public call, the network inputs made of them, and the adapter that runs these."""
    import warnings

    import numpy as np

    from rs_embed import plan_embedding
    from rs_embed.embedders.base import ModelInput
    from rs_embed.embedders.prepare.framing import frame_chip

    warnings.simplefilter("ignore")
    chip = np.random.default_rng(0).integers(200, 4000, case.chip).astype(np.float32)
    arrays = {"input_chw": chip, "dates": case.dates, "device": "cpu", **case.knobs, **knobs}
    plan = plan_embedding(case.model, **arrays, precision=precision)
    job, queries = plan.job, plan.items[0].queries
    chips = {query.modality: job.provider.fetch(query) for query in queries}
    inputs = job.embedder.prepare(chips, frame_chip(case.chip[-2:], job.prep, job.embedder.geometry()))
    return arrays, ModelInput.stack(inputs), job.embedder


def in_turns(
    tasks: Mapping[str, Callable[[], object]],
    turns: int,
    *,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each task, turn by turn; the first one goes last in every other turn. Before, each runs once."""
    for task in tasks.values() if warm else ():
        task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(turns):
        for name in list(tasks)[:: -1 if turn % 2 else 1]:
            start = clock()
            tasks[name]()
            times[name].append(clock() - start)
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> Figures:
    """Median and quartiles of the ratio turn by turn, and both medians."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return {
        "ratio": middle,
        "low": low,
        "high": high,
        "over_s": statistics.median(over),
        "under_s": statistics.median(under),
    }


def shown(figures: Figures, digits: int = 2) -> str:
    """A ratio with its quartiles."""
    low, high = figures["low"], figures["high"]
    return f"{figures['ratio']:.{digits}f} (quartiles {low:.{digits}f} to {high:.{digits}f})"


def peak_mb() -> float:
    """Peak memory of this process."""
    # Not `ru_maxrss`: a child starts with that of the process that began it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def child(script: str, task: str, threads: int, *arguments: object) -> Figures:
    """What a task of a script gives in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, script, task, *map(str, arguments)]
    start = time.perf_counter()
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    whole = time.perf_counter() - start
    figures = json.loads(result.stdout.splitlines()[-1]) | {"process_s": whole}
    print(task, *arguments, figures, file=sys.stderr)  # a section is long: show that it goes on
    return figures


def run_script(
    heading: str,
    about: str,
    rows: Callable[[Path, bool], list[Row]],
    tasks: Mapping[str, Callable[..., Figures]],
) -> None:
    """The command line of a benchmark: a task in this process, or the whole section.

    Args:
        heading: Of its section.
        about: What stands below it.
        rows: Measures everything; takes a folder for checkpoints, and whether it should be quick.
        tasks: What a process of its own may be asked for.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("task", nargs="?", choices=list(tasks))
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--quick", action="store_true", help="few turns, print only: to see that it works")
    given = parser.parse_args()
    if given.task is not None:
        print(json.dumps(tasks[given.task](*given.arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = ["| Measurement | Result | Goal |", "| --- | --- | --- |"]
        table += [f"| {what} | {figure} | {goal} |" for what, figure, goal in rows(Path(folder), given.quick)]
    text = f"## {heading}\n\n{date.today()}, {chip()}, {versions()}. {about}\n\n" + "\n".join(table) + "\n"
    print(text)
    if not given.quick:
        replace_section(heading, text)


def replace_section(heading: str, text: str) -> None:
    """Put a section into the results in place of its forerunner, or behind all others."""
    parts = RESULTS.read_text(encoding="utf-8").split("\n## ")
    for i, part in enumerate(parts):
        if part.partition("\n")[0] == heading:
            parts[i] = text.removeprefix("## ").strip()
            break
    else:
        parts.append(text.removeprefix("## ").strip())
    RESULTS.write_text("\n\n## ".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def chip() -> str:
    """Name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def versions() -> str:
    """Of what the figures depend on."""
    from importlib.metadata import version

    return f"Python {platform.python_version()}, torch {version('torch')}, numpy {version('numpy')}"
