"""A map is searched by an index beside it, which finds what a scan finds and is never used for another map."""

import shutil
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import shapely
from made_map import CELL_M, HEADER, LEFT, TOP, MadeMap
from made_region import grid_of, write, write_record
from pyproj import Transformer

from rs_embed import BBox, open_region
from rs_embed.errors import OutsideCoverage, RSEmbedWarning, SpecError
from rs_embed.exports.results import map_search
from rs_embed.exports.results.map_index import BLOCKS

ROWS, COLUMNS, BLOCK, DIM = 2, 3, 32, 16
YEARS = ((date(2021, 1, 1), date(2022, 1, 1)), (date(2022, 1, 1), date(2023, 1, 1)))
TRIANGLE = shapely.Polygon([(LEFT + 500, TOP - 400), (LEFT + 7500, TOP - 900), (LEFT + 2000, TOP - 5000)])
SMALL = BBox(LEFT, TOP - 10 * CELL_M, LEFT + 10 * CELL_M, TOP, "EPSG:32633")


def tokens(time, row, column):
    """Vectors around some centres, far from the origin; the first of each block has no value."""
    centres = 3 + np.random.default_rng(0).standard_normal((40, DIM))
    rng = np.random.default_rng([time, row, column])
    found = centres[rng.integers(0, 40, BLOCK**2)] + 0.3 * rng.standard_normal((BLOCK**2, DIM))
    found[0] = np.nan
    return found.T.reshape(DIM, BLOCK, BLOCK).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write(folder, grid_of(ROWS, COLUMNS, BLOCK, YEARS), DIM, tokens)
    return folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def always(monkeypatch):
    """The index is used however few tokens may be found."""
    monkeypatch.setattr(map_search, "EXACT_BYTES", 0)


def middle(row, col):
    return Transformer.from_crs(32633, 4326, always_xy=True).transform(
        LEFT + (col + 0.5) * CELL_M, TOP - (row + 0.5) * CELL_M
    )


def keys(frame):
    return list(zip(frame["time"], frame["row"], frame["column"], strict=True))


@pytest.mark.slow
def test_the_index_finds_what_a_scan_finds(run, always):
    one = open_region(run)
    report = one.build_index(progress=False)
    assert report.rows == 2 * ROWS * COLUMNS * (BLOCK**2 - 1)
    assert report.folder == run / "index" / HEADER.model_id
    recalls = []
    for seed in range(5):
        place = middle(*np.random.default_rng(seed).integers(1, 60, 2))
        for options in ({"time": 1}, {"time": 0, "times": one.times}):
            found = one.most_similar(*place, **options)
            expected = one.most_similar(*place, **options, exact=True)
            assert not found.attrs["exact"] and found.attrs["recall"] == report.recall and expected.attrs["exact"]
            assert len(found) == len(expected) == 10
            recalls.append(len(set(keys(found)) & set(keys(expected))) / 10)
            assert set(found["time"]) <= ({1} if "times" not in options else {0, 1})
    assert np.mean(recalls) > 0.95
    np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=3e-3)
    assert (np.diff(found["similarity"]) <= 0).all()
    both = dict(zip(keys(found), found.geometry, strict=True))
    for key, point in zip(keys(expected), expected.geometry, strict=True):
        assert key not in both or both[key].equals_exact(point, 1e-12)


def test_a_filter_by_place_and_time_holds_with_and_without_the_index(run, always):
    one = open_region(run)
    one.build_index(progress=False)
    degrees = shapely.transform(
        TRIANGLE, Transformer.from_crs(32633, 4326, always_xy=True).transform, interleaved=False
    )
    rows, cols = np.mgrid[: ROWS * BLOCK, : COLUMNS * BLOCK]
    inside = shapely.contains_xy(TRIANGLE, LEFT + (cols + 0.5) * CELL_M, TOP - (rows + 0.5) * CELL_M)
    border = shapely.distance(
        TRIANGLE.exterior, shapely.points(LEFT + (cols + 0.5) * CELL_M, TOP - (rows + 0.5) * CELL_M)
    )
    for exact in (True, False):
        found = one.most_similar(*middle(20, 20), time=0, times=[1], within=degrees, top=100_000, exact=exact)
        assert set(found["time"]) == {1} and found.attrs["exact"] == exact
        there = np.zeros_like(inside)
        there[found["row"], found["column"]] = True
        there[::BLOCK, ::BLOCK] = inside[::BLOCK, ::BLOCK]  # without a value
        assert (there == inside)[border > 5].all()  # edges of 7 km bend by a metre
    for call in ({"within": (0, 0, 1, 1)}, {"within": BBox(0, 0, 1, 1), "exact": True}):
        with pytest.raises(OutsideCoverage):
            one.most_similar(*middle(20, 20), time=0, **call)


def test_where_few_tokens_may_be_found_all_of_them_are_compared(run):
    one = open_region(run)
    one.build_index(progress=False)
    assert one.most_similar(*middle(20, 20), time=0, within=SMALL).attrs["exact"]
    assert one.most_similar(*middle(20, 20), time=0, level=1).attrs["exact"]


def test_an_index_of_another_map_is_not_used(run, always):
    one = open_region(run)
    assert one.most_similar(*middle(5, 5), time=0).attrs["exact"]
    one.build_index(progress=False)
    assert not one.most_similar(*middle(5, 5), time=0).attrs["exact"], "an open map sees a new index"
    write_record(run / HEADER.model_id, 0, {})
    with pytest.warns(RSEmbedWarning, match="has changed since"):
        assert one.most_similar(*middle(5, 5), time=0).attrs["exact"]
    one.build_index(progress=False)
    assert not one.most_similar(*middle(5, 5), time=0).attrs["exact"]
    blocks = run / "index" / HEADER.model_id / BLOCKS
    content = bytearray(blocks.read_bytes())
    content[-1] ^= 1
    blocks.write_bytes(content)
    assert [damage.path for damage in verify_run_of(run)] == [f"index/{HEADER.model_id}/{BLOCKS}"]
    with pytest.warns(RSEmbedWarning, match="another content"):
        assert open_region(run).most_similar(*middle(5, 5), time=0).attrs["exact"]


def verify_run_of(run: Path):
    from rs_embed.exports.results.verify import _Look

    look = _Look(run)
    look.index(run / "index" / HEADER.model_id)
    return look.damaged


def test_blocks_that_are_not_done_are_left_out_and_a_map_without_tokens_has_no_index(tmp_path, always):
    grid = grid_of(2, 2, BLOCK)
    write(tmp_path / "run", grid, DIM, tokens)
    store = tmp_path / "run" / HEADER.model_id / "map.zarr"
    (store / "embedding/c/0/0/1/0").unlink()
    one = open_region(tmp_path / "run")
    assert one.build_index(progress=False).rows == 3 * (BLOCK**2 - 1)
    found = one.most_similar(*middle(5, 40), top=5000)
    assert len(found) == 3 * (BLOCK**2 - 1) - 1
    assert not ((found["row"] >= BLOCK) & (found["column"] < BLOCK)).any()
    for path in store.glob("embedding/c/0/0/*/*"):
        path.unlink()
    with pytest.raises(SpecError, match="vectors to index"):
        open_region(tmp_path / "run").build_index(progress=False)


def test_a_map_without_its_run_is_searched_without_an_index(tmp_path):
    one = open_region(MadeMap(days=(None,)).write(tmp_path))
    with pytest.raises(SpecError, match="records"):
        one.build_index(progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one.most_similar(like=np.ones(4)).attrs["exact"]


@pytest.mark.parametrize("times", ["2021", [], 3])
def test_times_to_search_are_a_list(run, times):
    with pytest.raises(SpecError, match="list of times"):
        open_region(run).most_similar(*middle(5, 5), time=0, times=times)
