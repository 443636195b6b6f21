"""The simulation of a cluster: its limiter keeps the quota, and workers help as far as the quota goes."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("scale")


def test_the_limiter_keeps_the_quota_however_many_workers_there_are(scale):
    found = [scale.Simulation(scale.SINGLE, scale.Crew(workers), 1500).run() for workers in (1, 4, 16)]
    assert all(one.most <= scale.SINGLE.quota and one.refused == 0 and one.chips == 1500 for one in found)
    assert found[2].chips_per_s == pytest.approx(found[0].chips_per_s, rel=0.1)


def test_a_limiter_that_was_told_too_much_finds_the_quota_and_none_does_not(scale):
    told = scale.Simulation(scale.SINGLE, scale.Crew(64, ceiling=200, qps=None), 1500).run()
    free = scale.Simulation(scale.SINGLE, scale.Crew(64, ceiling=10**6, qps=None, limited=False), 1500).run()
    assert told.chips == free.chips == 1500
    assert told.refused / told.requests < 0.2 < 0.8 < free.refused / free.requests


def test_shared_reads_scale_with_workers_until_the_quota_and_back_pressure_bounds_what_waits(scale):
    found = [scale.Simulation(scale.SHARED, scale.Crew(n, ahead=scale.SHARED_AHEAD), 1500).run() for n in (1, 2, 16)]
    assert found[1].chips_per_s == pytest.approx(2 * found[0].chips_per_s, rel=0.05)
    assert found[2].chips_per_s < 40 * 30 / scale.SHARED.latency_s
    for workers, one in zip((1, 2, 16), found, strict=True):
        assert one.waiting_most <= workers * scale.SHARED_AHEAD * scale.SHARED.chips


def test_errors_cost_time_and_lose_nothing(scale):
    rough = scale.Simulation(replace(scale.SINGLE, errors=0.3), scale.Crew(4), 1000).run()
    assert rough.chips == 1000
    assert rough.requests > 1300
