"""Presto's pixels a second on one core, beside the products of matrices that it cannot do without.

`make bench`, or alone: `python benchmarks/presto.py [--quick]`. Seconds are those of the processor, as neighbours may
work; "products" are the linear maps of both blocks at their true shapes, and nothing else.
"""

import time
from collections.abc import Callable
from pathlib import Path

from harness import QUICK_TURNS, Figures, Row, child, in_turns, ratio, run_script

PIXELS, MONTHS, CHIP_PX = 2048, 12, 256
CASES = {
    "s2": "Sentinel-2",
    "clouds": "Sentinel-2, 30 % of the months hidden at random per pixel",
    "all": "Sentinel-2 and 1, weather, heights",
}


def pixels(case: str, precision: str, turns: str) -> Figures:
    """The encoder, and the products alone."""
    import torch

    from rs_embed.encoders.kernels.linear import keep_freed_memory
    from rs_embed.encoders.presto import GROUPS, PIXELS_AT_ONCE, PixelSeries, PrestoEncoder

    torch.manual_seed(0)
    encoder = PrestoEncoder(dim=128, depth=2, heads=8)
    encoder.init_random(0)
    encoder.eval().requires_grad_(False)
    names = [name for name in GROUPS if case == "all" or name.startswith(("S2", "NDVI"))]
    steps = {name: 1 if name == "SRTM" else MONTHS for name in names}
    values = {name: torch.rand(PIXELS, steps[name], GROUPS[name]) for name in names}
    shown = torch.rand(PIXELS, MONTHS) >= (0.3 if case == "clouds" else 0)
    seen = {name: shown[:, : steps[name]] for name in names}
    series = PixelSeries(values, seen, torch.arange(MONTHS)[None], torch.rand(PIXELS, 3))
    tokens = 1 + sum(steps.values()) * float(shown.float().mean())
    narrow, wide = (torch.randn(round(PIXELS_AT_ONCE * tokens), width) for width in (128, 512))
    keep_freed_memory()

    def running(task: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                task()

        return run

    def products() -> None:
        for _ in range(PIXELS // PIXELS_AT_ONCE):
            for block in encoder.blocks:
                for part in (block.attn.qkv, block.attn.proj, block.mlp.fc1):
                    torch.nn.functional.linear(narrow, part.weight)
                torch.nn.functional.linear(wide, block.mlp.fc2.weight)

    tasks = {"encoder": running(lambda: encoder(series)), "products": running(products)}
    times = in_turns(tasks, int(turns), clock=time.process_time)
    share = ratio(times["products"], times["encoder"])
    flop = 2 * 2 * tokens * 128 * (384 + 128 + 512 + 512) * PIXELS
    return share | {"pixels_s": PIXELS / share["under_s"], "gflop_s": flop / share["over_s"] / 1e9, "tokens": tokens}


def rows(folder: Path, quick: bool) -> list[Row]:
    table = [_row(case, label, "fp32", quick=quick) for case, label in CASES.items()]
    return [*table, _row("s2", CASES["s2"], "bf16", quick=quick)]


def _row(case: str, label: str, precision: str, *, quick: bool) -> Row:
    run = child(__file__, "pixels", 1, case, precision, QUICK_TURNS if quick else 5)
    figure = (
        f"{run['pixels_s']:.0f} pixels per second and core, {run['tokens']:.0f} tokens each; matrix products alone "
        f"take {run['ratio']:.0%} of the time, at {run['gflop_s']:.0f} GFLOP/s; "
        f"{CHIP_PX} x {CHIP_PX} pixels: {CHIP_PX**2 / run['pixels_s']:.0f} s on one core"
    )
    return f"{label}, {MONTHS} months, {precision}", figure, ""


if __name__ == "__main__":
    about = "Random weights; CPU time of one thread. The network's final linear map is applied after the mean."
    run_script("Presto, pixel by pixel", about, rows, {"pixels": pixels})
