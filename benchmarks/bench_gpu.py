"""Everything that is to be measured on a GPU, in one command of about ten minutes: `python benchmarks/bench_gpu.py`.

It needs nothing but the installed package and a CUDA device. Parts run one after another, each in a process of its own
with a time limit, so that one that fails leaves the others: tests marked `gpu`; the encoders batch by batch
(`gpu_encoders.py`); from a folder of COGs to vectors (`gpu_parts.py`), which it writes first; memory; several processes
on one card, and one on each card; `torch.compile`. The report goes to the screen and into the section of the device in
`RESULTS.md`. `--cpu` runs every part on small networks in two minutes, to see that it works, and writes nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from harness import Figures, replace_section, versions

HERE = Path(__file__).parent
GPU = {
    "device": "cuda", "precision": "bf16", "tiny": False, "side_px": 4096, "warm": 64, "chips": 1024, "batch": 64,
    "patience": 1.0, "compiler": "inductor", "fetch_workers": 16, "lead_s": 40, "models": ("thor", "terramind"),
    "encoders": ("terramind", "thor", "thor_p8", "anysat"), "processes": (1, 2, 4),
}  # fmt: skip
CPU = GPU | {
    "device": "cpu", "precision": "fp32", "tiny": True, "side_px": 512, "warm": 4, "chips": 8, "batch": 2,
    "patience": 0.05, "compiler": "eager", "fetch_workers": 4, "lead_s": 8, "models": ("thor",),
    "encoders": ("terramind",), "processes": (2,),
}  # fmt: skip
Row = tuple[str, str, str]
"""What was measured, the figure, and the goal."""


class Failed(Exception):
    """A part did not give figures; the message says why, in a line."""


def output_of(command: list[str], limit_s: float, *, may_fail: bool = False) -> str:
    """Run a command in the root of the repository, and return what it printed."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit_s, cwd=HERE.parent)
    except subprocess.TimeoutExpired:
        raise Failed(f"not finished after {limit_s:.0f} s") from None
    if done.returncode and not may_fail:
        raise Failed((done.stderr.strip().splitlines() or ["no message"])[-1][:200])
    return done.stdout


def part(name: str, given: Figures, limit_s: float) -> Figures:
    """Figures of a part of `gpu_parts.py`."""
    command = [sys.executable, str(HERE / "gpu_parts.py"), name, json.dumps(given)]
    return json.loads(output_of(command, limit_s).splitlines()[-1])


def tests(given: Figures) -> Iterator[Row]:
    """Tests that need a GPU; on a CPU, those of one file, which are skipped."""
    where = ["tests/embedders/test_kept.py"] if given["tiny"] else ["tests", "--ignore=tests/scripts"]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", *where]
    lines = output_of(command, 180, may_fail=True).splitlines()
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    counts = [line.strip("= ") for line in lines if line.startswith("=") and line.rstrip("= ").endswith("s")]
    yield "`pytest -m gpu`", "; ".join([*counts[-1:], *failed]) or "no summary", "all pass"


def end_to_end(given: Figures) -> Iterator[Row]:
    """From files to vectors, the memory it takes, and what it costs the host."""
    for model in given["models"]:
        run = part("end_to_end", given | {"model": model}, 120)
        figure = f"{run['rate']:.1f} chips/s; {run['cpu_ms']:.1f} ms of CPU per chip, reading and decoding included"
        yield f"{model}: COGs to vectors, {given['fetch_workers']} fetching threads", figure, ""
        if "peak_gb" in run:
            share = run["peak_gb"] / run["total_gb"]
            yield f"{model}: peak memory", f"{run['peak_gb']:.1f} of {run['total_gb']:.1f} GB ({share:.0%})", "80 %"
        host = part("prepare", given | {"model": model}, 60)
        yield f"{model}: from chip to inputs on the device, CPU of the thread", f"{host['ms']:.2f} ms", "1 ms"


def processes(given: Figures) -> Iterator[Row]:
    """Several processes on one card, and one on each card."""
    import torch

    alone = None
    for count in given["processes"]:
        devices = [given["device"]] * count
        rate = part("together", given | {"model": "thor", "devices": devices}, given["lead_s"] + 120)["rate"]
        alone = alone or rate
        yield f"thor: {count} process(es) on one card", f"{rate:.1f} chips/s, {rate / alone:.2f} times one", ""
    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if len(cards) < 2:
        yield "thor: a process on each of several cards", "not measured: there is one card at most", "1.9 for two"
        return
    rate = part("together", given | {"model": "thor", "devices": cards}, given["lead_s"] + 120)["rate"]
    yield f"thor: a process on each of {len(cards)} cards", f"{rate:.1f} chips/s, {rate / alone:.2f} times one", ""


def compiled(given: Figures) -> Iterator[Row]:
    """`torch.compile`, which is to be left out unless it pays."""
    for model in given["models"]:
        run = part("compiled", given | {"model": model}, 150)
        figure = (
            f"{run['compiled'] / run['plain']:.2f} ({run['compiled']:.1f} against {run['plain']:.1f} chips/s); "
            f"first batch {run['compile_s']:.0f} s"
        )
        yield f"{model}, batches of {given['batch']}: compiled / as it is", figure, "1.2, or leave it out"


PARTS = (tests, end_to_end, processes, compiled)


def encoders(given: Figures) -> Iterator[str]:
    """The tables of the encoders, batch by batch."""
    words = ["--patience", str(given["patience"]), "--precision", given["precision"], "--device", given["device"]]
    words += ["--tiny", "--batches", "1", "3", "--side", "256"] if given["tiny"] else []
    for model in given["encoders"]:
        try:
            yield output_of([sys.executable, str(HERE / "gpu_encoders.py"), "--models", model, *words], 120)
        except Failed as error:
            yield f"{model} failed: {error}\n"


def report(given: Figures) -> str:
    """All parts in Markdown; a part that fails says so."""
    lines = ["| Measurement | Result | Goal |", "| --- | --- | --- |"]
    for measure in PARTS:
        start = time.perf_counter()
        try:
            for what, figure, goal in measure(given):
                lines.append(f"| {what} | {figure} | {goal} |")
        except Failed as error:
            lines.append(f"| {measure.__name__} | failed: {error} | |")
        print(f"{measure.__name__}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return "\n".join(["\n".join(lines), "", *encoders(given)])


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="a rehearsal on small networks; its figures mean nothing")
    given = CPU if parser.parse_args().cpu else GPU
    if not given["tiny"] and not torch.cuda.is_available():
        sys.exit("Expected a CUDA device, got none. Rehearse with --cpu.")
    name = "CPU rehearsal" if given["tiny"] else torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as folder:
        given = given | {"folder": folder}
        made = part("make_folder", given, 120)
        about = f"COGs of {made['mb']:.0f} MB written in {made['seconds']:.0f} s; random weights; {given['precision']}."
        text = f"## On a GPU: {name}\n\n{date.today()}, {versions()}. {about}\n\n{report(given)}"
    print(text)
    if not given["tiny"]:
        replace_section(f"On a GPU: {name}", text)


if __name__ == "__main__":
    main()
