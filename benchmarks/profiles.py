"""Where a warm call spends its time: one picture a model, for the documentation.

`python benchmarks/profiles.py` writes `docs/images/profile_<model>.png`: one thread, fp32, random weights, the cases
of the other benchmarks. The first try on an idle machine counts; torch's profiler adds about a hundredth.
"""

import subprocess
import sys
import time
import warnings
from pathlib import Path

from harness import CASES, MODELS, ready

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PARTS = {
    "matrix products": ("linear_pointwise", "::mm", "::bmm", "addmm", "convolution", "conv2d", "einsum"),
    "softmax": ("softmax",),
    "attention of torch": ("scaled_dot_product",),
    "norms": ("norm", "var_mean", "addcmul"),
    "sums, activations, copies": (
        "add",
        "mul",
        "copy_",
        "gelu",
        "silu",
        "cat",
        "index",
        "div",
        "sub",
        "stack",
        "fill_",
    ),
    "resizing and standardising": ("upsample", "clamp"),
}
"""Operators of torch by what their names contain, the first that fits."""
OTHER, OUTSIDE = "other operators", "outside torch, and the profiler itself"


def profile(name: str) -> tuple[dict[str, float], float]:
    """Seconds of each part, and of the whole call."""
    import torch
    from torch.profiler import ProfilerActivity

    from rs_embed import get_embedding

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case = CASES[name]
    arrays, _, _ = ready(case, "fp32", pretrained=False)
    for _ in range(2):
        get_embedding(case.model, **arrays)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        get_embedding(case.model, **arrays)  # the first one in here waits for the profiler itself
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        get_embedding(case.model, **arrays)
        whole_s = time.perf_counter() - start
    parts = dict.fromkeys([*PARTS, OTHER], 0.0)
    for event in profiler.key_averages():
        part = next((part for part, words in PARTS.items() if any(word in event.key for word in words)), OTHER)
        parts[part] += event.self_cpu_time_total / 1e6
    parts[OUTSIDE] = max(0.0, whole_s - sum(parts.values()))
    return {part: seconds for part, seconds in parts.items() if seconds > 0.001 * whole_s}, whole_s


def draw(name: str) -> None:
    """Write the picture of a model."""
    from matplotlib.figure import Figure

    parts, whole_s = profile(name)
    figure = Figure(figsize=(6.8, 0.5 + 0.32 * len(parts)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(parts), [1000 * seconds for seconds in parts.values()], color="tab:blue")
    axes.bar_label(bars, [f"{s * 1000:.1f} ms, {s / whole_s:.1%}" for s in parts.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(right=1300 * max(parts.values()))
    axes.tick_params(labelsize=8)
    axes.set_title(f"{CASES[name].label}: {whole_s:.2f} s, one thread", fontsize=9, loc="left")
    figure.savefig(IMAGES / f"profile_{CASES[name].model}.png", dpi=120)
    print(name, {part: round(seconds, 4) for part, seconds in parts.items()})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        draw(sys.argv[1])
    else:
        for model in MODELS:
            subprocess.run([sys.executable, __file__, model], check=True)
