"""Maps that are killed or made by several: every block once, and the same map in the end."""

import random
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from export_worker import Exports, asked, export

from rs_embed import verify_run

pytestmark = pytest.mark.slow

SIDE_M, UNIT_BLOCKS = 2800, 4
KILLS = 5


@pytest.fixture(scope="module")
def exports():
    server = Exports()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    export(folder / "run", folder / "log", map_of_m=SIDE_M)
    return folder


def arrays(run: Path) -> dict[str, np.ndarray]:
    (path,) = run.glob("*/map.zarr")
    found = {}
    for group in ("", *(str(one.name) for one in path.iterdir() if one.name.isdecimal())):
        with xr.open_zarr(path, group=group or None, consolidated=False, chunks=None) as store:
            found |= {f"{group}/{name}": store[name].values for name in ("embedding", "valid")}
    return found


def same(run: Path, whole: Path) -> None:
    expected, found = arrays(whole / "run"), arrays(run)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert verify_run(run, progress=False).ok
    assert not list(run.rglob(".part-*"))


def test_a_map_killed_at_random_is_the_same_map_and_no_finished_unit_is_fetched_again(exports, whole, tmp_path):
    blocks = len(asked(whole / "log"))
    assert blocks > 4 * UNIT_BLOCKS
    chance, kills, folder = random.Random(3), 0, 0
    while kills < KILLS:
        folder += 1
        run, log = tmp_path / f"run{folder}", tmp_path / f"log{folder}"
        killed_here = exports.killed_at_random(chance, (0.3, 1.4), run, log, map_of_m=SIDE_M, latency_s=0.01)
        kills += killed_here
        same(run, whole)
        assert len(asked(log)) <= blocks + killed_here * UNIT_BLOCKS


def test_shards_make_the_same_map(whole, tmp_path):
    for index in range(3):
        export(tmp_path / "parts", tmp_path / "log", map_of_m=SIDE_M, shard=(index, 3))
    same(tmp_path / "parts", whole)
