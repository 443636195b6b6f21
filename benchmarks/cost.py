"""What a region costs: seconds against its side, and against the size of patches; with a picture.

`make bench`, or alone: `python benchmarks/cost.py [--quick]`. The public call on arrays, pixels at their own size
(`input_prep="tile"`, which is how a region is covered without losing detail), one thread, random weights.
"""

import time
from pathlib import Path

from harness import MONTHS, QUICK_TURNS, Case, Figures, Row, child, in_turns, ready, run_script

SIDES_KM = (1, 2, 4, 8)
ANYSAT_SIDES_KM = (0.64, 1.28, 2.56)
ANYSAT_DATES = 2
PICTURE = Path(__file__).with_name("cost.png")
MODELS = {"thor_1_0_base": "THOR base", "terramind_1_0_base": "TerraMind base", "anysat_1_0_base": "AnySat, 2 dates"}
SIZES = {
    **{f"thor_1_0_{size}": (10, 288, 288) for size in ("tiny", "small", "base", "large")},
    **{f"terramind_1_0_{size}": (12, 224, 224) for size in ("tiny", "small", "base", "large")},
    "anysat_1_0_base": (8, 10, 32, 32),
    "mosaiks_rcf": (12, 256, 256),
}
"""What each model is fed at once: eight dates for AnySat."""
PATCHES = (
    ("thor_1_0_base", 2.88, {"patch_size": 16}, "THOR, patches of 160 and 320 m"),
    ("thor_1_0_base", 2.88, {"patch_size": 8}, "THOR, patches of 80 and 160 m"),
    ("anysat_1_0_base", 0.64, {"patch_size_m": 40}, "AnySat, patches of 40 m"),
    ("anysat_1_0_base", 0.64, {"patch_size_m": 20}, "AnySat, patches of 20 m"),
    ("anysat_1_0_base", 0.64, {"patch_size_m": 10}, "AnySat, patches of 10 m"),
)


def call(model: str, side_km: str, precision: str, turns: str, *knobs: str) -> Figures:
    """Seconds of a warm call, the best of some turns."""
    import warnings

    import numpy as np

    from rs_embed import OutputSpec, get_embedding

    warnings.simplefilter("ignore")
    side_px = round(float(side_km) * 100)
    shape = (10, side_px, side_px)
    options = {"input_prep": "tile", "precision": precision, "device": "cpu", "pretrained": False}
    if model.startswith("anysat"):
        shape, options["dates"] = (ANYSAT_DATES, *shape), MONTHS[:ANYSAT_DATES]
    if model.startswith("terramind"):
        shape = (12, side_px, side_px)
    options |= dict(zip(knobs[::2], map(int, knobs[1::2]), strict=True))
    chip = np.random.default_rng(0).integers(200, 4000, shape).astype(np.float32)
    small = np.ascontiguousarray(chip[..., :64, :64])  # loads the network
    get_embedding(model, input_chw=small, output=OutputSpec.pooled(), **options | {"input_prep": "auto"})
    times = []
    for _ in range(int(turns)):
        start = time.perf_counter()
        get_embedding(model, input_chw=chip, output=OutputSpec.grid(), **options)
        times.append(time.perf_counter() - start)
    return {"seconds": min(times)}


def size(model: str, precision: str, turns: str) -> Figures:
    """Network inputs per second, from a ready batch of four, and the width of a vector."""
    from rs_embed.embedders.base import ModelInput

    shape = SIZES[model]
    case = Case(model, shape, "", MONTHS if len(shape) == 4 else None)
    _, batch, embedder = ready(case, precision, **({} if model == "mosaiks_rcf" else {"pretrained": False}))
    one = ModelInput({name: tensor[0] for name, tensor in batch.tensors.items()}, batch.ground_cover_m)
    four = ModelInput.stack([one] * 4)
    times = in_turns({"run": lambda: embedder.run(four)}, int(turns))
    return {"per_s": 4 / min(times["run"]), "dim": embedder.request.card.dim}


def rows(folder: Path, quick: bool) -> list[Row]:
    table, curves = [], {}
    for model, shape in SIZES.items():
        fast = [
            child(__file__, "size", 1, model, precision, QUICK_TURNS if quick else 3)
            for precision in ("fp32", "bf16")[: 1 if model == "mosaiks_rcf" else 2]
        ]
        figure = "; ".join(f"{figures['per_s']:.2f}" for figures in fast)
        what = f"{model}, D = {fast[0]['dim']:.0f}, {' x '.join(map(str, shape))}: network inputs per second"
        table.append((what, f"{figure} in bf16" if len(fast) > 1 else figure, ""))
    for model, label in MODELS.items():
        for precision in ("fp32", "bf16"):
            sides = ANYSAT_SIDES_KM if model.startswith("anysat") else SIDES_KM
            for side_km in sides[: 2 if quick else None]:
                turns = QUICK_TURNS if quick or side_km * (4 if "anysat" in model else 1) > 2 else 3
                seconds = child(__file__, "call", 1, model, side_km, precision, turns)["seconds"]
                curves.setdefault((label, precision), []).append((side_km, seconds))
                table.append((f"{label}, {precision}, {side_km:g} km", _figure(side_km, seconds), ""))
    for model, side_km, knobs, label in PATCHES[: 2 if quick else None]:
        pairs = [word for pair in knobs.items() for word in pair]
        seconds = child(__file__, "call", 1, model, side_km, "fp32", QUICK_TURNS, *pairs)["seconds"]
        table.append((f"{label}, fp32, {side_km:g} km", _figure(side_km, seconds), ""))
    _draw(curves, PICTURE if not quick else folder / PICTURE.name)
    return table


def _figure(side_km: float, seconds: float) -> str:
    return f"{seconds:.2f} s, {seconds / side_km**2:.3f} s per km²"


def _draw(curves: dict[tuple[str, str], list[tuple[float, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    colors = dict(zip(MODELS.values(), ("tab:blue", "tab:orange", "tab:green"), strict=True))
    for (label, precision), points in curves.items():
        style = "-o" if precision == "fp32" else "--s"
        axes.loglog(*zip(*points, strict=True), style, color=colors[label], label=f"{label}, {precision}", markersize=4)
    axes.set_xlabel("side of the region, km")
    axes.set_ylabel("seconds, one CPU thread")
    axes.set_xticks([0.64, 1.28, 2.56, 4, 8], ["0.64", "1.28", "2.56", "4", "8"], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script(
        "Cost of a region",
        "Warm public calls on arrays at native pixel size, 1 thread, random weights. ![seconds](cost.png)",
        rows,
        {"call": call, "size": size},
    )
