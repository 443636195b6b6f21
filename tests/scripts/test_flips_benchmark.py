"""Flipped bits of every format: what is read is what was written, or a typed error; never other numbers."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FLIPS = 30


@pytest.fixture(scope="module")
def flips():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        import flips

        yield flips


@pytest.fixture(scope="module")
def cases(flips, tmp_path_factory):
    return flips.written(tmp_path_factory.mktemp("flips"))


def test_every_format_is_tried(cases):
    assert len(cases) == 11


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf closes what it never opened
@pytest.mark.parametrize("number", range(11))
def test_no_flipped_bit_gives_other_numbers_or_a_raw_error(flips, cases, number):
    name, case = list(cases.items())[number]
    found = flips.count(case, FLIPS, seed=7)
    assert found["noticed"] + found["harmless"] == FLIPS, (name, found)
