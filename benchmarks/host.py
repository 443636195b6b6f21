"""What a chip costs on the host: from `Chip` to network input, and from tokens to `Embedding`; CPU time, one thread.

`make bench`, or alone: `python benchmarks/host.py [--quick]`. `python benchmarks/host.py draw SRC` also measures the
package in the folder `SRC`, such as that of an earlier commit, and draws `docs/images/profile_host.png`.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from harness import Figures, Row, child, run_script

MODELS = {"thor_1_0_tiny": "THOR, 10 bands", "terramind_1_0_tiny": "TerraMind, 12 bands"}
"""Small networks: what is done around them does not depend on their size."""
STAGES = {
    "fetch": "take the chip from a provider in memory, and check it",
    "inputs": "clip, standardise, cut windows",
    "prepare": "all of it, from the query to the network's input",
    "launch": "copy the chip to a staging buffer and launch the kernels of a GPU that normalises",
    "beside": "all of it where a GPU normalises",
    "readout": "read out, metadata, fingerprint",
}
LAUNCH_S = 10e-6
"""CPU time of an operator on a GPU, in Python and in the driver: an assumption, as none was at hand."""
DRAWN = ("fetch", "inputs", "prepare", "beside", "readout")
PICTURE = Path(__file__).parents[1] / "docs/images/profile_host.png"
ABOUT = (
    "A plan of one chip of 288 px from a provider in memory, warm, one thread, random weights; thread CPU time, "
    "the best of the turns, between runs of the network, so that caches are cold."
)


def stages(model: str, turns: str) -> Figures:
    """Milliseconds of CPU in each stage, the best of some turns."""
    import warnings

    from rs_embed import OutputSpec, PointBuffer, TemporalSpec, plan_embedding
    from rs_embed.pipeline import prepare, run
    from rs_embed.providers.common.checked import Checked
    from rs_embed.testing import FieldProvider

    class Kept(FieldProvider):
        chips: ClassVar[dict] = {}

        def fetch(self, query):
            if query.modality not in self.chips:  # not by query: the hash of a grid takes 0.05 ms
                self.chips[query.modality] = super().fetch(query)
            return self.chips[query.modality]

    warnings.simplefilter("ignore")
    spent: dict[str, list[float]] = {}

    def timed(name: str, work: Callable) -> Callable:
        def inner(*given, **named):
            start = time.thread_time()
            done = work(*given, **named)
            spent.setdefault(name, []).append(time.thread_time() - start)
            return done

        return inner

    prepare._inputs = timed("inputs", prepare._inputs)
    run.prepare_together = timed("prepare", run.prepare_together)
    run._read_out = timed("readout", run._read_out)
    Checked.fetch = timed("fetch", Checked.fetch)
    plan = plan_embedding(
        model,
        PointBuffer(12.94, 47.77, 1440),
        TemporalSpec.year(2022),
        OutputSpec.pooled(),
        Kept(),
        pretrained=False,
        device="cpu",
        input_prep="crop",
    )
    for _ in range(int(turns) + 2):
        for chip in Kept.chips.values():
            for fact in ("valid_fraction", "is_whole"):
                vars(chip).pop(fact, None)  # every chip is new in a real run
        list(plan.run())
        spent.setdefault("launch", []).append(on_a_device(plan, Kept.chips))
    found = {name: 1000 * min(times[2:]) for name, times in spent.items()}
    return found | {"beside": found["prepare"] - found["inputs"] + found["launch"]}


def on_a_device(plan, chips: dict) -> float:
    """Estimate the CPU seconds of `prepare` for a GPU: the copies, as measured, and a launch for each operator.

    Torch's meta device stands for the GPU. It gets the same copies and operators, but looks at them in Python, which
    takes longer than to launch them.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from rs_embed.embedders.prepare import normalize
    from rs_embed.embedders.prepare.framing import frame_chip

    class Operators(TorchDispatchMode):
        launched, copied_s = 0, 0.0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            start = time.thread_time()
            done = func(*args, **(kwargs or {}))
            if isinstance(done, torch.Tensor) and done.device.type == "meta":
                self.launched += not done._is_view()
            else:
                self.copied_s += time.thread_time() - start
            return done

    embedder = plan.job.embedder
    frame = frame_chip(next(iter(chips.values())).shape_px, plan.job.prep, embedder.geometry())
    token = normalize._clipped.set({})
    try:
        with torch.device("meta"), Operators() as operators:
            embedder.prepare(chips, frame)
    finally:
        normalize._clipped.reset(token)
    return operators.copied_s + operators.launched * LAUNCH_S


def rows(folder: Path, quick: bool) -> list[Row]:
    goals = {"prepare": "4 ms", "beside": "2 ms", "readout": "1 ms"}
    table = []
    for model, label in MODELS.items():
        found = child(__file__, "stages", 1, model, 3 if quick else 40)
        table += [(f"{label}: {what}", f"{found[name]:.2f} ms", goals.get(name, "")) for name, what in STAGES.items()]
    return table


def draw(source: str) -> Figures:
    """Draw what the package in `source` takes beside what this one does; both in turns, the best counts."""
    from matplotlib.figure import Figure

    ours = os.environ.get("PYTHONPATH", "")
    best: dict[tuple[str, str, str], float] = {}
    sides = [("before", source), ("after", ours)]
    for turn in range(6):
        for which, path in sides[:: -1 if turn % 2 else 1]:
            os.environ["PYTHONPATH"] = path
            for model in MODELS:
                found = child(__file__, "stages", 1, model, 20)
                for name in DRAWN:
                    key = which, model, name
                    best[key] = min(best.get(key, 1e9), found[name])
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.subplots(1, len(MODELS), sharey=True)
    for one, (model, label) in zip(axes, MODELS.items(), strict=True):
        for offset, which, color in ((-0.2, "before", "tab:gray"), (0.2, "after", "tab:blue")):
            values = [best[which, model, name] for name in DRAWN]
            bars = one.barh([i + offset for i in range(len(DRAWN))], values, 0.38, color=color, label=which)
            one.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=7)
        one.set_yticks(range(len(DRAWN)), list(DRAWN), fontsize=8)
        one.set_title(f"{label}, 288 px", fontsize=9, loc="left")
        one.set_xlabel("ms of CPU", fontsize=8)
        one.spines[["top", "right"]].set_visible(False)
        one.margins(x=0.15)
    axes[0].invert_yaxis()
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=120)
    for key, value in best.items():
        print(*key, f"{value:.2f}", file=sys.stderr)
    return {" ".join(key): value for key, value in best.items()}


if __name__ == "__main__":
    run_script("Host cost of a chip", ABOUT, rows, {"stages": stages, "draw": draw})
