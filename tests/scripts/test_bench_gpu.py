"""The benchmark for GPUs works, as far as that can be told without one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks/bench_gpu.py"


def table(*words: str) -> list[list[str]]:
    """Cells of the rows that it prints."""
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout.splitlines()[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[4:]]


def test_it_tells_chips_per_second_and_the_share_of_the_products_rate_batch_by_batch():
    found = table("--device", "cpu", "--tiny", "--batches", "1", "3", "--patience", "0.02", "--side", "256")
    assert [(row[0].split(",")[0], row[1]) for row in found] == [
        ("TerraMind tiny", "1"),
        ("TerraMind tiny", "3"),
        ("THOR tiny", "1"),
        ("THOR tiny", "3"),
    ]
    for _, batch, rate, share, times, peak in found:
        assert float(rate) > 0
        assert share.endswith("%")
        assert int(share[:-1]) > 0
        assert float(times) == 1 if batch == "1" else float(times) > 0
        assert peak == "-"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_is_at_least_half_busy_with_terramind_base_and_twenty_times_as_fast_as_one_by_one():
    best = max(table("--models", "terramind"), key=lambda row: float(row[2] if row[2][0].isdigit() else 0))
    assert int(best[3][:-1]) >= 50
    assert float(best[4]) >= 20
