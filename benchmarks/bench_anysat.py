"""AnySat at the documented 4 km point: 410 px at 10 m, 8 dates of Sentinel-2, patches of 40 m, one thread.

Run alone: `python benchmarks/bench_anysat.py`; minutes. Patches are summed up once, then mixed in 16 windows of 32 x 32
that overlap by at least 4. Seconds are wall time, and beside it the CPU time of the thread, which leaves out waiting
for neighbours but not what they cost in cache and clock; hence also what the products alone would take at the rate
that packed matrix products reach in the same run. Weights are random.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rs_embed.encoders.anysat.encoder import AnySatEncoder
from rs_embed.encoders.kernels.linear import Linear, prepared

PATCH_M, PATCH_PX = 40, 4
SIDE = 103  # patches along 4120 m: 410 px, padded to whole patches
DATES = 8
WINDOW, WINDOWS = 32, 4  # patches along a window, windows along the ground
TFLOP = {"projector": 7.4, "spatial encoder": 12.8, "mix": 2.0}
"""Products of each part, by the shapes of the weights."""


class Clock:
    """Wall and CPU seconds of named parts, summed up."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        self.wall[part] = self.wall.get(part, 0.0) + time.perf_counter() - wall
        self.cpu[part] = self.cpu.get(part, 0.0) + time.thread_time() - cpu

    def wrap(self, part: str, module: torch.nn.Module) -> Callable[[], None]:
        """Time each call of `module`; what it gives ends that."""
        plain = module.forward

        def timed(*arguments: object, **keywords: object) -> Tensor:
            with self.time(part):
                return plain(*arguments, **keywords)

        module.forward = timed

        def restore() -> None:
            module.forward = plain

        return restore


def matmul_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of one thread (CPU time) at products like those of an MLP: 1024 x 768 x 3072."""
    linear = Linear(768, 3072)
    x = torch.randn(1024, 768).to(dtype)
    bf16 = dtype == torch.bfloat16
    rates = []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        parent = torch.nn.Sequential(linear)
        with prepared(parent, device_type="cpu"):
            for _ in range(50):
                start = time.thread_time()
                linear(x)
                rates.append(2e-9 * 1024 * 768 * 3072 / (time.thread_time() - start))
    return sorted(rates)[len(rates) // 2]


def windows(patches: Tensor) -> Tensor:
    """Cut the grid into overlapping windows, stacked as a batch."""
    starts = [round(i * (SIDE - WINDOW) / (WINDOWS - 1)) for i in range(WINDOWS)]
    return torch.cat([patches[:, row : row + WINDOW, col : col + WINDOW] for row in starts for col in starts])


def run(encoder: AnySatEncoder, series: Tensor, dates: Tensor, dtype: torch.dtype) -> tuple[Clock, Tensor, Tensor]:
    """Time all parts; also what came out: tokens of each patch, and of each window, cls first."""
    clock = Clock()
    restore = [clock.wrap("projector", encoder.projector_s2), clock.wrap("spatial encoder", encoder.spatial_encoder)]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        with clock.time("patches"):
            patches = encoder.patches({"s2": series}, dates={"s2": dates}, patch_m=PATCH_M).values["s2"]
        with clock.time("mix"):
            mixed = encoder.mix({"s2": windows(patches)}, PATCH_M).values
    for end in restore:
        end()
    return clock, patches, mixed


def report(dtype: torch.dtype, clock: Clock, rates: tuple[float, float]) -> None:
    rate = sum(rates) / 2
    print(f"\n{dtype}: products at {rates[0]:.0f} GFLOP/s before, {rates[1]:.0f} after")
    print("| part | wall s | CPU s | s of its products at that rate | share |\n| --- | --- | --- | --- | --- |")
    for part, tflop in TFLOP.items():
        least = tflop * 1e3 / rate
        cpu = clock.cpu[part]
        print(f"| {part} | {clock.wall[part]:.1f} | {cpu:.1f} | {least:.1f} | {least / cpu:.0%} |")
    wall, cpu = (seconds["patches"] + seconds["mix"] for seconds in (clock.wall, clock.cpu))
    least = sum(TFLOP.values()) * 1e3 / rate
    print(f"| all | {wall:.1f} | {cpu:.1f} | {least:.1f} | {least / cpu:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1, help="how often to run each; all are shown")
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    with torch.device("meta"):
        encoder = AnySatEncoder(dim=768, depth=6, heads=12, modalities=["s2"])
    encoder.to_empty(device="cpu").init_random(0)
    encoder.eval()
    side_px = SIDE * PATCH_PX
    series = torch.randn(1, DATES, 10, side_px, side_px, generator=torch.Generator().manual_seed(0))
    dates = torch.linspace(10, 340, DATES).round()[None]
    found: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
    for dtype in (torch.bfloat16, torch.float32) * turns:
        before = matmul_rate(dtype)
        clock, *tokens = run(encoder, series, dates, dtype)
        found[dtype] = tokens[0], tokens[1]
        report(dtype, clock, (before, matmul_rate(dtype)))
    names = ("tokens of single patches", "tokens of windows (16 tile, 16384 patch)")
    for name, rough, exact in zip(names, found[torch.bfloat16], found[torch.float32], strict=True):
        cosine = torch.cosine_similarity(rough.float(), exact, dim=-1)
        print(f"cosine bf16 to fp32, {name}: worst {cosine.min():.5f}, mean {cosine.mean():.5f}")


if __name__ == "__main__":
    main()
