"""Windows of a block that no token inside the region needs are not encoded, and the other tokens do not change."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
import warm
from echo import CARD, EchoEmbedder, MergingEcho
from test_region import MODELS, RAW, YEAR, _smallest, grid_of, ramp, tokens
from tiny import card_of

from rs_embed import OutputSpec, Region, embed_region, get_embedding
from rs_embed.exports.region.grid import MapGrid
from rs_embed.testing import FieldProvider, hills

pytestmark = pytest.mark.slow
CRS = "EPSG:32633"
WEST, NORTH = 345_600, 5_299_200
CORRIDOR = shapely.LineString([(WEST + 300, NORTH - 300), (WEST + 3400, NORTH - 2900)]).buffer(60)
CUT = {"crs": CRS, **RAW}


def region() -> Region:
    return Region(tuple(CORRIDOR.exterior.coords), crs=CRS)


class Counting(EchoEmbedder):
    """Counts windows."""

    seen: list[int] = []  # noqa: RUF012  (shared on purpose)

    def encode(self, batch):
        self.seen.append(len(batch.tensors["image"]))
        return super().encode(batch)


ASKED_AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import shapely
from rs_embed.exports.region.grid import BlockSize, MapGrid

angle = np.linspace(0, 2 * np.pi, 400)
side = 2_000 + 500 * np.sin(9 * angle)
star = shapely.Polygon(np.stack([345_600 + side * np.cos(angle), 5_296_000 + side * np.sin(angle)], axis=1))
size = BlockSize(cells=20, step_cells=10, cell_m=80, before_m=0, after_m=160, shift_m=0)
grid = MapGrid.over(shapely.MultiPolygon([star]), "EPSG:32633", size, (None,))
rng = np.random.default_rng(0)
west, south = 345_600 + rng.uniform(-3e3, 3e3, 200), 5_296_000 + rng.uniform(-3e3, 3e3, 200)
boxes = np.stack([west, south, west + 400, south + 400], axis=1)
expected = [star.intersects(shapely.box(*box)) for box in boxes]
with ThreadPoolExecutor(4) as pool:
    for _ in range(20):
        list(grid.blocks())
        for answer in pool.map(lambda _: grid.overlaps(boxes), range(16)):
            assert answer.tolist() == expected
print(sum(expected))
"""


def test_threads_may_ask_at_the_same_time_what_a_window_overlaps():
    """In GEOS two questions at once to one prepared polygon end the process."""
    done = warm.run(ASKED_AT_ONCE)
    assert done.returncode == 0, done.stderr
    assert 20 < int(done.stdout) < 180


def assert_same_as_all_windows(run, card, backend, debias="none", **options):
    """Compare each block of a map, bit for bit, with a call for its place, which encodes all windows."""
    grid, whole = grid_of(run), tokens(run)[0]
    inside = grid.inside(grid.geobox)
    assert np.array_equal(np.isfinite(whole[0]), inside)
    for number, place in grid.blocks():
        _, row, column = grid.position(number)
        one = get_embedding(card, place, YEAR, OutputSpec.grid(debias=debias), backend, input_prep="tile", **options)
        offset = ~grid.geobox.affine @ one.geobox.affine
        row, col = round(offset.f), round(offset.c)
        there = inside[row : row + one.geobox.shape[0], col : col + one.geobox.shape[1]]
        height, width = there.shape
        found = whole[:, row : row + height, col : col + width]
        np.testing.assert_array_equal(found[:, there], one.data[:, :height, :width][:, there])


@pytest.mark.parametrize("model_id", ["thor_1_0_tiny", "terramind_1_0_tiny"])
def test_tokens_in_a_corridor_are_those_of_one_call_with_all_windows_bit_for_bit(tmp_path, monkeypatch, model_id):
    monkeypatch.setenv("RS_EMBED_BATCH", "1")  # windows in other batches differ by rounding
    card, options, provider = card_of(model_id), MODELS[model_id], FieldProvider(hills)
    call = {"block_cells": 3 * _smallest(card, options), **CUT, **options}
    planned = embed_region(card, region(), YEAR, tmp_path / "run", backend=provider, dry_run=True, **call)
    some, every = planned.maps[CRS].plan.windows
    assert some < 0.8 * every
    assert f"windows:   {some:,} of {every:,} are encoded; the other {1 - some / every:.0%} see only" in str(planned)
    embed_region(card, region(), YEAR, tmp_path / "run", backend=provider, **call)
    assert_same_as_all_windows(tmp_path / "run", card, provider, **options)


@pytest.mark.parametrize("adapter", [Counting, MergingEcho])
def test_a_corridor_encodes_the_windows_that_were_planned(tmp_path, adapter):
    card = replace(CARD, adapter=adapter)
    Counting.seen.clear()
    call = {"block_cells": 60, "backend": FieldProvider(ramp), **CUT}
    plan = embed_region(card, region(), YEAR, tmp_path / "run", dry_run=True, **call).maps[CRS].plan
    embed_region(card, region(), YEAR, tmp_path / "run", **call)
    some, every = plan.windows
    assert some < 0.7 * every
    assert adapter is not Counting or sum(Counting.seen) == some
    assert_same_as_all_windows(tmp_path / "run", card, FieldProvider(ramp))


def test_a_region_that_fills_its_blocks_needs_all_windows_and_a_plain_call_always_does(tmp_path):
    square = Region(tuple(shapely.box(WEST, NORTH - 1920, WEST + 1920, NORTH).exterior.coords), crs=CRS)
    call = {"block_cells": 20, "backend": FieldProvider(ramp), **CUT}
    plan = embed_region(CARD, square, YEAR, tmp_path / "run", dry_run=True, **call).maps[CRS].plan
    assert plan.windows[0] == plan.windows[1]
    assert "see only" not in str(plan)
    output = OutputSpec.grid(debias="none")
    grid = get_embedding(CARD, region(), YEAR, output, FieldProvider(ramp), input_prep="tile")
    assert np.isfinite(grid.data).any(axis=0).sum() > 100


def test_a_region_of_one_point_keeps_the_windows_of_its_token():
    corner = MapGrid.over(shapely.MultiPolygon([shapely.Point(WEST + 5, NORTH - 5).buffer(1)]), CRS, _size(), (None,))
    ((_, place),) = corner.blocks()
    assert corner.inside(corner.geobox).sum() == 1
    assert place.west <= WEST + 5 <= place.east


def _size():
    from rs_embed.exports.region.grid import BlockSize

    return BlockSize(cells=20, step_cells=10, cell_m=80, before_m=0, after_m=160, shift_m=0)
