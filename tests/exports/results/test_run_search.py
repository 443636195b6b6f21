"""Searches of a run: filters, and an index that is used while it is of the run as it is, and never otherwise."""

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import shapely
from made_rows import embedding, failed, row
from test_runs import pooled_run, record

from rs_embed import BBox, GridBlock, PointBuffer, Region, open_run, read_places, verify_run
from rs_embed.core.atomic import locked
from rs_embed.errors import RSEmbedWarning, SpecError, StorageError

COUNT = 120
CROPS = ("maize", "wheat", "rice")
DAYS = pd.date_range("2022-03-01", periods=COUNT, freq="D", tz="UTC")


def rows_of(count=COUNT):
    """Rows 0.01 degrees apart with columns of the user's; row 3 failed, and row 5 has no value."""
    rows = [row(i) if i != 3 else failed(3, place=PointBuffer(12.97, 47.77, 320)) for i in range(count)]
    rows[5].embedding.data[:] = np.nan
    table = pd.DataFrame(
        {
            "id": [one.id for one in rows],
            "lon": [one.spatial.lon for one in rows],
            "lat": [one.spatial.lat for one in rows],
            "crop": [CROPS[i % 3] if i % 7 else None for i in range(count)],
            "area": [0.5 * i for i in range(count)],
            "plants": range(count),
            "sown": DAYS[:count],
        }
    )
    places = read_places(table, buffer_m=320)
    return [replace(one, kept=place.kept) for one, place in zip(rows, places, strict=True)]


def units(rows):
    """Out of the user's order, as units are."""
    order = np.random.default_rng(0).permutation(len(rows))
    return [[rows[i] for i in part] for part in np.array_split(order, 3)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = pooled_run(tmp_path_factory.mktemp("made") / "run", units(rows_of()))
    report = open_run(folder).build_index(progress=False)
    assert report.rows == COUNT - 2 and report.folder == folder / "index" / "mosaiks_rcf"
    assert "118 vectors" in str(report) and "faiss-cpu" in str(report)
    return folder


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return open_run(tmp_path / "run")


def test_the_index_finds_what_a_scan_finds_and_says_so(run):
    found, right = run.similar("plot 17", top=20), run.similar("plot 17", top=20, exact=True)
    assert (found.attrs["exact"], right.attrs) == (False, {"exact": True})
    assert found.attrs["recall"] > 0.9 and found.attrs["index"].startswith("faiss-cpu")
    assert found.columns.tolist() == right.columns.tolist() and found.dtypes.equals(right.dtypes)
    assert len(set(found["row"]) & set(right["row"])) >= 18
    both = found.merge(right, on=["id", "row", "center_lon", "center_lat", "start_datetime", "end_datetime"])
    assert np.abs(both["similarity_x"] - both["similarity_y"]).max() < 5e-3
    assert found["similarity"].is_monotonic_decreasing and "plot 17" not in set(found["id"])


def test_all_rows_with_a_value_are_found_and_no_others(run):
    for exact in (False, True):
        found = run.similar("plot 17", top=10**9, exact=exact)
        assert set(range(COUNT)) - set(found["row"]) == {3, 5, 17}
        assert np.isfinite(found["similarity"]).all()
        assert run.similar("plot 5", exact=exact).empty
        with pytest.raises(SpecError, match="'plot 3'") as caught:
            run.similar("plot 3", exact=exact)
        assert "failures" in caught.value.fix
        with pytest.raises(SpecError, match="'nobody'"):
            run.similar("nobody", exact=exact)
        with pytest.raises(SpecError) as caught:
            run.similar(17, exact=exact)
        assert "row 17 has the id 'plot 17'" in caught.value.fix


def test_a_vector_of_your_own_is_searched_for(run):
    found = run.similar(row(40).embedding, top=3)
    assert found["row"][0] == 40 and found["similarity"][0] > 0.999
    assert found.attrs["exact"] is False
    for wrong in (embedding(dim=65), embedding(grid=True)):
        with pytest.raises(SpecError):
            run.similar(wrong)


PLACES = {
    "box": ((12.985, 47.7, 13.125, 47.8), range(5, 19)),
    "spec": (BBox(12.985, 47.7, 13.125, 47.8), range(5, 19)),
    "shapely": (shapely.box(12.985, 47.7, 13.125, 47.8), range(5, 19)),
    "two parts": (
        shapely.union(shapely.box(12.9, 47, 12.965, 48), shapely.box(13.195, 47, 13.225, 48)),
        [0, 1, 2, 26, 27, 28],
    ),
    "another crs": (BBox(350_000, 5_280_000, 370_000, 5_300_000, "EPSG:32633"), None),
    "a block": (GridBlock(350_000, 5_280_000, 370_000, 5_300_000, "EPSG:32633"), None),
    "in metres": (Region([(350_000, 5_280_000), (370_000, 5_280_000), (360_000, 5_300_000)], "EPSG:32633"), None),
    "around a point": (PointBuffer(13.14, 47.77, 2000), range(18, 23)),
    "a list with one place": ([PointBuffer(13.14, 47.77, 2000)], range(18, 23)),
    "nowhere": ((-10, -10, -9, -9), []),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_only_rows_within_a_place(run, name):
    from rs_embed.core.geo import project

    place, wanted = PLACES[name]
    if wanted is None:
        lon = np.array([12.94 + 0.01 * i for i in range(COUNT)])
        x, y = project(lon, np.full(COUNT, 47.77), "EPSG:4326", "EPSG:32633")
        inset = (y - 5_280_000) / 2 if name == "in metres" else 0
        left, right = 350_000 + inset, 370_000 - inset
        wanted = np.flatnonzero((x >= left) & (x <= right))
        assert len(wanted) > 3
    for exact in (False, True):
        found = run.similar("plot 110", top=99, within=place, exact=exact)
        assert set(found["row"]) == set(wanted) - {3, 5}


def test_a_box_may_cross_the_antimeridian(tmp_path):
    lons = [179.0, 179.9, -179.9, -179.0, 0.0]
    rows = [row(i, place=PointBuffer(lon, 10, 320)) for i, lon in enumerate(lons)]
    run = open_run(pooled_run(tmp_path / "run", [rows]))
    assert set(run.similar("plot 4", within=BBox(179.5, 5, -179.5, 15))["row"]) == {1, 2}
    around = run.similar("plot 4", within=PointBuffer(180, 10, 30_000))
    assert set(around["row"]) == {1, 2}
    assert set(run.similar("plot 4", within=(-180, -90, 180, 90))["row"]) == {0, 1, 2, 3}


CONDITIONS = {
    "text": ({"crop": "maize"}, lambda i: i % 7 and i % 3 == 0),
    "one of": ({"crop": ["maize", "rice"]}, lambda i: i % 7 and i % 3 != 1),
    "none": ({"crop": None}, lambda i: i % 7 == 0),
    "a range": ({"area": (10, 20)}, lambda i: 20 <= i <= 40),
    "from": ({"area": (50.25, None)}, lambda i: i > 100),
    "up to": ({"plants": (None, 7)}, lambda i: i <= 7),
    "between whole numbers": ({"plants": (6.5, 8.5)}, lambda i: i in (7, 8)),
    "a number as text": ({"plants": "9"}, lambda i: i == 9),
    "of numpy": ({"plants": np.arange(10, 14)}, lambda i: 10 <= i < 14),
    "days": ({"sown": ("2022-03-10", "2022-03-12")}, lambda i: 9 <= i <= 11),
    "several": ({"crop": {"wheat"}, "area": (10, 20)}, lambda i: i % 7 and i % 3 == 1 and 20 <= i <= 40),
    "of the run": ({"valid_fraction": (0.5, 1)}, lambda i: True),
    "nothing": ({"crop": "barley"}, lambda i: False),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_only_rows_with_these_values(run, name):
    where, right = CONDITIONS[name]
    wanted = {i for i in range(COUNT) if right(i)} - {3, 5, 110}
    for exact in (False, True):
        assert set(run.similar("plot 110", top=COUNT, where=where, exact=exact)["row"]) == wanted
    narrower = run.similar("plot 110", top=COUNT, where=where, within=(12.985, 47.7, 13.125, 47.8))
    assert set(narrower["row"]) == wanted & set(range(5, 19))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"where": {"soil": 1}}, "soil"),
        ({"where": {"embedding": 1}}, "embedding"),
        ({"where": "crop == 'maize'"}, "mapping of columns"),
        ({"where": {"area": (1, 2, 3)}}, "low, high"),
        ({"where": {"area": "large"}}, "'area'"),
        ({"where": {"crop": 7}}, "'crop'"),
        ({"where": {"sown": "someday"}}, "'sown'"),
        ({"where": {"area": [object()]}}, "'area'"),
        ({"within": (1, 2, 3, "4")}, "west, south, east and north"),
        ({"within": [(1, 2), (3, 4)]}, "buffer"),
    ],
)
def test_what_is_no_filter_is_refused(run, wrong, says):
    for exact in (False, True):
        with pytest.raises(SpecError, match=says):
            run.similar("plot 17", exact=exact, **wrong)


def scanned(run, **options):
    """The attributes of a search that warns once."""
    with pytest.warns(RSEmbedWarning, match="All vectors are compared") as caught:
        found = run.similar("plot 17", **options)
    assert len(caught) == 1 and found.attrs == {"exact": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.similar("plot 17")
    return str(caught[0].message)


def test_an_index_of_another_state_of_the_run_is_not_used(run):
    extra = row(COUNT, "later")
    extra.embedding.data[:] = row(17).embedding.data
    assert run.similar("plot 17")["id"][0] != "later"
    record_of(run.path, 3, [extra])
    assert "has changed since" in (said := scanned(run)) and f"rs-embed index {run.path}" in said
    assert run.similar("plot 17", top=1)["id"].tolist() == ["later"]
    run.build_index(progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run.similar("plot 17", top=1)
    assert found["id"].tolist() == ["later"] and found.attrs["exact"] is False


def record_of(folder, number, rows):
    from made_rows import HEADER

    from rs_embed.formats.table import write_table

    kept = rows_of(9)[0].kept
    rows = [replace(one, kept=kept) for one in rows]
    write_table(folder / "mosaiks_rcf" / "units" / f"u{number:06}.parquet", rows, HEADER)
    record(folder / "mosaiks_rcf" / "units", f"u{number:06}", rows)


def test_a_repaired_unit_makes_an_index_stale_also_when_sizes_are_the_same(run):
    path = run.path / "mosaiks_rcf" / "records" / "u000001.json"
    path.write_text(path.read_text().replace("2026-01-01", "2026-01-02"))
    scanned(run)


def test_a_copied_run_keeps_its_index(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "elsewhere", copy_function=shutil.copy)
    assert open_run(tmp_path / "elsewhere").similar("plot 17").attrs["exact"] is False


@pytest.mark.parametrize("name", ["lists.bin", "centres.faiss", "lists.npy", "index.json", "rows.arrow"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_index_is_not_used(run, name, how):
    path = run.path / "index" / "mosaiks_rcf" / name
    if how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    right = run.similar("plot 17", exact=True)
    if (name, how) == ("index.json", "gone"):
        pd.testing.assert_frame_equal(run.similar("plot 17"), right)
        return
    if (name, how) == ("lists.bin", "changed"):  # not read before it is searched
        with pytest.raises(StorageError, match="another content") as caught:
            run.similar("plot 17")
        assert "rs-embed index" in caught.value.fix
    else:
        assert "rs-embed index" in scanned(run)
        pd.testing.assert_frame_equal(run.similar("plot 17"), right)
    report = verify_index(run)
    assert [one.path for one in report] == [f"index/mosaiks_rcf/{name}"]
    run.build_index(progress=False)
    assert run.similar("plot 17").attrs["exact"] is False and not verify_index(run)


def verify_index(run):
    """What is wrong with the index, by the part of `verify_run` that looks at it."""
    from rs_embed.exports.results.verify import _Look

    look = _Look(run.path)
    look.index(run.path / "index" / "mosaiks_rcf")
    return look.damaged


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_runs_of_fewer_bits_are_indexed(tmp_path, dtype):
    run = open_run(pooled_run(tmp_path / "run", units(rows_of()), dtype=dtype))
    run.build_index(progress=False)
    found, right = run.similar("plot 17", top=20), run.similar("plot 17", top=20, exact=True)
    assert found.attrs["exact"] is False and set(range(COUNT)) - {3, 5, 17} >= set(found["row"])
    assert len(set(found["row"]) & set(right["row"])) >= 17


def test_each_model_has_an_index_of_its_own(tmp_path):
    rows = rows_of()
    pooled_run(tmp_path / "run", units(rows))
    pooled_run(tmp_path / "run", [rows[:50]], model="other")
    run = open_run(tmp_path / "run")
    with pytest.raises(SpecError, match="one of the models"):
        run.build_index()
    run.build_index("other", progress=False)
    assert run.similar("plot 17", model="other").attrs["exact"] is False
    assert run.similar("plot 17", model="mosaiks_rcf").attrs["exact"] is True
    assert set(run.similar("plot 17", 99, "other")["row"]) == set(range(50)) - {3, 5, 17}


def test_the_first_of_several_rows_with_an_id_that_did_not_fail_is_meant(tmp_path):
    twice = [failed(0, "twice"), row(3, "twice"), row(1, "twice"), row(2, "other")]
    run = open_run(pooled_run(tmp_path / "run", [twice[1:], twice[:1]]))
    right = run.similar("twice")
    run.build_index(progress=False)
    found = run.similar("twice")
    assert set(found["row"]) == set(right["row"]) == {2, 3} and found.attrs["exact"] is False


def test_equal_rows_come_in_the_order_of_the_table(tmp_path):
    rows = [row(i, seed=1) for i in range(9)]
    run = open_run(pooled_run(tmp_path / "run", [rows[::-1]]))
    run.build_index(progress=False)
    for exact in (False, True):
        assert run.similar("plot 4", top=99, exact=exact)["row"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_an_index_needs_vectors_and_the_run_for_itself(tmp_path, run):
    for content, says in (([], "one of the models"), ([[failed(0)]], "Expected vectors to index")):
        empty = open_run(pooled_run(tmp_path / f"empty{len(content)}", content))
        if not content:
            shutil.rmtree(empty.path / "mosaiks_rcf")
            empty = open_run(empty.path)
        with pytest.raises(SpecError, match=says):
            empty.build_index(progress=False)
    with locked(run.path), pytest.raises(StorageError, match="in use"):
        run.build_index(progress=False)
    assert run.similar("plot 17").attrs["exact"] is False, "the index that is there stays"
    assert verify_run_of_index_only(run)


def verify_run_of_index_only(run):
    with pytest.raises(StorageError):  # these runs have no whole manifest
        verify_run(run.path)
    return not verify_index(run)


@pytest.mark.slow
def test_an_index_of_several_lists_keeps_recall_under_filters(tmp_path):
    rng = np.random.default_rng(3)
    rows = [row(i % 50, f"p{i}") for i in range(2500)]
    centres = rng.standard_normal((20, 64)).astype(np.float32)
    rows = [replace(one, index=i) for i, one in enumerate(rows)]
    for i, one in enumerate(rows):
        one.embedding.data[:] = 2 + centres[i % 20] + 0.5 * rng.standard_normal(64)
    run = open_run(pooled_run(tmp_path / "run", [rows[:1000], rows[1000:]]))
    run.build_index(progress=False)
    hits = []
    for i in range(0, 2500, 250):
        for where in ({}, {"row": (None, 1200)}, {"row": (100, 220)}):
            found, right = (run.similar(f"p{i}", where=where, exact=exact) for exact in (False, True))
            assert len(found) == 10
            hits.append(np.isin(right["row"], found["row"]).mean())
    assert np.mean(hits) > 0.95


@pytest.mark.slow
def test_neither_the_package_nor_a_search_without_an_index_imports_faiss(tmp_path):
    pooled_run(tmp_path / "run", units(rows_of(20)))
    code = (
        f"import sys, rs_embed; rs_embed.open_run({str(tmp_path / 'run')!r}).similar('plot 1'); "
        "print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
