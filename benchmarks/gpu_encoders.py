"""Chips per second of the encoders on a GPU, batch by batch: a part of `bench_gpu.py`, or alone.

Each row is a batch of one model, in bf16 unless asked otherwise, from inputs that lie on the device to float32 tokens
on the host: what a job does per chip beside fetching and preparing, which run beside it. Beside chips per second stand
the products of the encoder (counted by torch, attention included) as a share of what a large square matrix product
reaches in bf16 on this device just before, how many times as fast as one by one that is, and the most memory that was
allocated above the weights. A batch that does not fit ends the model's rows. Weights are random; speed does not depend
on them. `--device cpu --tiny` takes seconds and shows that it works; its figures mean nothing.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from harness import MONTHS, Case, ready
from torch.utils.flop_counter import FlopCounterMode

from rs_embed.embedders.base import Embedder, ModelInput

CASES = {
    "terramind": Case("terramind_1_0_base", (12, 224, 224), "TerraMind base, 224 px"),
    "thor": Case("thor_1_0_base", (10, 288, 288), "THOR base, patches of 16 px, 288 px"),
    "thor_p8": Case("thor_1_0_base", (10, 288, 288), "THOR base, patches of 8 px, 288 px", knobs={"patch_size": 8}),
    "anysat": Case("anysat_1_0_base", (8, 10, 128, 128), "AnySat base, 128 px, 8 dates", MONTHS),
}
TINY = {
    "terramind": Case("terramind_1_0_tiny", (12, 64, 64), "TerraMind tiny, 64 px"),
    "thor": Case("thor_1_0_tiny", (10, 96, 96), "THOR tiny, 96 px", knobs={"img": 96}),
}
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SIDE = 8192
"""Of the square product: large enough that an H200 is not waiting for memory."""


def median_s(work: Callable[[], object], device: torch.device, patience_s: float) -> float:
    """Median seconds of `work`, repeated for `patience_s` but at least three times, after one round for warmth."""
    work()
    times: list[float] = []
    while sum(times) < patience_s or len(times) < 3:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def product_rate(device: torch.device, side: int, patience_s: float) -> float:
    """FLOP/s of a square bf16 product."""
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    with torch.inference_mode():
        return 2 * side**3 / median_s(lambda: left @ right, device, patience_s)


def flop_per_input(embedder: Embedder, one: ModelInput) -> int:
    """Products of one input. With gradients enabled, since the counter does not know packed weights."""
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        embedder.encode(one.to(embedder.device))
    return counter.get_total_flops()


def rows(case: Case, device: torch.device, rate: float, given: argparse.Namespace) -> Iterator[str]:
    _, made, embedder = ready(case, given.precision, device=str(device), pretrained=False)
    first = ModelInput({name: tensor[:1] for name, tensor in made.tensors.items()}, made.ground_cover_m)
    flop = flop_per_input(embedder, first)
    alone = None
    for count in given.batches:
        try:
            many = {
                name: tensor.expand(count, *tensor.shape[1:]).contiguous() for name, tensor in first.tensors.items()
            }
            batch = ModelInput(many, first.ground_cover_m).to(device)
            peak = peak_of(lambda batch=batch: embedder.run(batch), device)
            seconds = median_s(lambda batch=batch: embedder.run(batch), device, given.patience)
        except torch.OutOfMemoryError:
            yield f"| {case.label} | {count} | does not fit | | | |"
            return
        alone = alone or seconds / count
        yield (
            f"| {case.label} | {count} | {count / seconds:.1f} | {flop * count / seconds / rate:.0%} "
            f"| {alone * count / seconds:.1f} | {peak} |"
        )


def peak_of(work: Callable[[], object], device: torch.device) -> str:
    if device.type != "cuda":
        work()
        return "-"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return f"{(torch.cuda.max_memory_allocated(device) - before) / 1e6:.0f}"


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} thread(s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks on small chips")
    parser.add_argument("--models", nargs="*", choices=list(CASES))
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds for each figure")
    parser.add_argument("--side", type=int, default=SIDE, help="of the square product")
    given = parser.parse_args()
    cases = TINY if given.tiny else CASES
    device = torch.device(given.device)
    rate = product_rate(device, given.side, given.patience)
    print(f"{name_of(device)}, torch {torch.__version__}, {given.precision}; ", end="")
    print(f"a bf16 product of {given.side} x {given.side} reaches {rate / 1e12:.2f} TFLOP/s\n")
    print("| model | batch | chips/s | of the product's rate | x one by one | peak, MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in given.models or list(cases):
        for row in rows(cases[name], device, rate, given):
            print(row, flush=True)


if __name__ == "__main__":
    main()
