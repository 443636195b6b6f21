"""The benchmark for GPUs works, as far as that can be told without one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def printed(script: str, *words: str) -> list[list[str]]:
    """Cells of the rows of the tables that a script prints."""
    command = [sys.executable, BENCHMARKS / script, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows]


def test_every_part_works_on_a_cpu_and_none_fails():
    results = BENCHMARKS / "RESULTS.md"
    before = results.read_bytes()
    found = printed("bench_gpu.py", "--cpu")
    assert not [row for row in found if "failed" in row[1]], found
    said = {row[0]: row[1] for row in found}
    assert "deselected" in said["`pytest -m gpu`"]
    assert float(said["thor: COGs to vectors, 4 fetching threads"].split()[0]) > 0
    assert "times one" in said["thor: 2 process(es) on one card"]
    assert "chips/s" in said["thor, batches of 2: compiled / as it is"]
    for row, batch in zip(found[-2:], ("1", "3"), strict=True):
        label, many, rate, share, times, peak = row
        assert (label, many, peak) == ("TerraMind tiny, 64 px", batch, "-")
        assert float(rate) > 0 and int(share[:-1]) > 0 and share.endswith("%")
        assert float(times) == 1 if batch == "1" else float(times) > 0
    assert results.read_bytes() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_is_at_least_half_busy_with_terramind_base_and_twenty_times_as_fast_as_one_by_one():
    best = max(
        printed("gpu_encoders.py", "--models", "terramind")[2:],
        key=lambda row: float(row[2] if row[2][0].isdigit() else 0),
    )
    assert int(best[3][:-1]) >= 50
    assert float(best[4]) >= 20
