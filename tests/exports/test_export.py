"""Exports: what is in the folder, what a second call does, and what is refused."""

import errno
import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from export_worker import MODEL, LoggedField, asked, export, pairs

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, export_embeddings, geobox_for, get_embedding, open_run
from rs_embed.core.atomic import locked
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import KnobError, RSEmbedError, SpecError, StorageError
from rs_embed.exports.call import ExportReport
from rs_embed.exports.journal import sealed
from rs_embed.exports.unit import cut_units
from rs_embed.exports.unit_writer import slug
from rs_embed.places import read_places
from rs_embed.testing import FieldProvider

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread():
    """Bits, and seconds on a busy machine, do not depend on how many cores are free."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


def files(run: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(run)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in run.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is in a folder, links as what they are, with inode, time and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (status.st_ino, status.st_mtime_ns, content)
    return found


def broken_in(share: int) -> "tuple[callable, callable]":
    """A tenth of all chips always fails, another tenth fails when first asked for."""

    def kind(key: str) -> int:
        return int(hashlib.sha256(key.encode()).hexdigest(), 16) % share

    return lambda key: kind(key) == 0, lambda key: kind(key) == 1


def refused(error: type[Exception], *said: str, **options) -> None:
    with pytest.raises(error) as caught:
        export(**options)
    assert all(text in str(caught.value) for text in said), str(caught.value)


def test_an_export_gives_what_single_calls_give_in_the_order_of_the_table(run, log):
    frame = pd.DataFrame(pairs(12), columns=["lon", "lat"]).assign(
        id=[f"plot {n}" for n in range(12)], year=2020 + np.arange(12) % 3, buffer_m=80.0 + 40 * (np.arange(12) % 2)
    )
    report = export_embeddings(MODEL, frame, run, backend=FieldProvider(), unit_rows=5, progress=False)
    assert (report.ok, report.failed) == (12, 0)
    found = report.open().to_frame()
    assert list(found["id"]) == list(frame["id"])
    for row, vector in zip(frame.itertuples(), report.open().matrix(), strict=True):
        place = PointBuffer(row.lon, row.lat, row.buffer_m)
        single = get_embedding(MODEL, place, TemporalSpec.year(row.year), backend=FieldProvider())
        np.testing.assert_allclose(vector, single.data, atol=2e-5)
        assert found["fingerprint"][row.Index] == single.meta.fingerprint
    assert sorted(path.name for path in run.glob(f"{MODEL}/units/*.parquet")) == [
        "u000000.parquet",
        "u000001.parquet",
        "u000002.parquet",
    ]


def test_units_hold_every_row_once_by_zone_and_neighbours_together():
    places = read_places(pairs(1000), buffer_m=120)
    units = cut_units(places, 64)
    assert len(units) == 16
    rows = np.concatenate([unit.rows for unit in units])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1000))
    lon, lat = places.centres()
    zones = (lon[rows] >= 12).astype(int)
    assert (np.diff(zones) >= 0).all()
    step = np.hypot(np.diff(lon[rows]), np.diff(lat[rows]))
    assert np.median(step) < 0.1 * np.hypot(np.ptp(lon), np.ptp(lat))
    assert cut_units(places, 64).digest() == units.digest() != cut_units(places, 65).digest()


def test_rows_all_over_the_earth_are_cut_and_named_without_two_alike():
    rng, count = np.random.default_rng(1), 100_000
    lonlat = np.stack([rng.uniform(-180, 180, count), rng.uniform(-85, 85, count)], axis=1)
    frame = pd.DataFrame(lonlat, columns=["lon", "lat"])
    units = cut_units(read_places(frame, buffer_m=120))
    assert len(units) == 25
    assert len({f"{row:09d}{slug('x')}" for unit in units for row in unit.rows.tolist()}) == count


def test_the_same_call_again_fetches_nothing_and_touches_no_file(run, log):
    export(run, log, rows=25)
    before, fetched = files(run), len(asked(log))
    report = export(run, log, rows=25)
    assert files(run) == before
    assert len(asked(log)) == fetched == 25
    assert (report.ok, report.failed) == (25, 0)
    assert str(report).startswith("25 embeddings in")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_failed_rows_are_kept_with_their_error_and_only_they_are_tried_again(run, log, dtype):
    always, once = broken_in(10)
    flaky = LoggedField(log, fails=lambda key, times: always(key) or (once(key) and times == 1))
    report = export(run, log, rows=60, unit_rows=20, backend=flaky, dtype=dtype)
    keys = set(asked(log))
    bad, shy = {key for key in keys if always(key)}, {key for key in keys if once(key)}
    assert len(bad) > 1 < len(shy)
    assert (report.ok, report.failed) == (60 - len(bad) - len(shy), len(bad) + len(shy))
    first = report.open().to_frame()
    assert len(first) == 60
    failed = first[first["status"] == "failed"]
    assert failed["error"].str.startswith("ConnectionError: no answer for EPSG").all()
    assert set(failed["stage"]) == {"fetch"}
    before = vectors(run)

    report = export(run, log, rows=60, unit_rows=20, backend=flaky, dtype=dtype)
    assert report.failed == len(bad)
    assert Counter(asked(log)) == {key: 2 if key in bad | shy else 1 for key in keys}
    assert before.items() <= vectors(run).items()

    untouched = files(run)
    assert export(run, log, rows=60, unit_rows=20, backend=flaky, dtype=dtype).failed == len(bad)
    assert files(run) == untouched  # nothing new to write

    report = export(run, log, rows=60, unit_rows=20, backend=LoggedField(log), dtype=dtype)
    assert (report.ok, report.failed) == (60, 0)
    assert Counter(asked(log)) == {key: 4 if key in bad else 2 if key in shy else 1 for key in keys}
    assert before.items() <= vectors(run).items()
    whole = export(run.parent / "whole", log, rows=60, unit_rows=20, dtype=dtype)
    np.testing.assert_allclose(report.open().matrix(), whole.open().matrix(), atol=1e-6)
    assert list(report.open().to_frame()["row"]) == list(range(60))
    for name in ("u000000", "u000001"):
        one, other = (pq.ParquetFile(r / MODEL / f"units/{name}.parquet") for r in (run, run.parent / "whole"))
        assert one.schema_arrow.equals(other.schema_arrow)
        assert one.metadata.row_group(0).num_columns == other.metadata.row_group(0).num_columns
        assert [one.metadata.row_group(0).column(i).encodings for i in range(5)] == [
            other.metadata.row_group(0).column(i).encodings for i in range(5)
        ]
    assert len(geopandas.read_parquet(run / MODEL / "units/u000000.parquet")) == 20


@pytest.mark.parametrize("grid_format", [None, "npz"])
def test_the_folder_of_a_model_s_tables_is_one_table_to_any_reader(run, log, grid_format):
    first_fails = LoggedField(log, fails=lambda key, times: len(asked(log)) <= 10)  # a unit without a vector
    report = export(run, log, rows=25, backend=first_fails, grid_format=grid_format)
    assert report.failed >= 10
    folder = run / MODEL / "units"
    assert [path.suffix for path in folder.iterdir()] == [".parquet"] * 3
    frame = geopandas.read_parquet(folder)
    assert frame.crs.to_epsg() == 4326
    table = pyarrow.dataset.dataset(folder).to_table(columns=["row", "status"])
    query = f"SELECT row, status FROM read_parquet('{folder}/*.parquet')"
    for found in (frame, pd.read_parquet(folder), table.to_pandas(), duckdb.sql(query).df()):
        assert sorted(found["row"]) == list(range(25))
        assert (found["status"] == "failed").sum() == report.failed


def vectors(run: Path) -> dict[int, bytes]:
    """Bytes of the vectors that there are, by row."""
    found = {}
    for path in sorted(run.glob(f"{MODEL}/units/*.parquet")):
        table = pq.read_table(path)
        for row, vector in zip(table["row"].to_pylist(), table["embedding"].combine_chunks(), strict=True):
            if vector.is_valid:
                found[row] = np.asarray(vector.values).tobytes()
    return found


@pytest.mark.slow
def test_failed_grids_are_tried_again_and_the_others_stay_as_they_are(run, log):
    _, once = broken_in(5)
    flaky = LoggedField(log, fails=lambda key, times: once(key) and times == 1)
    first = export(run, log, rows=20, backend=flaky, grid_format="cog")
    assert first.failed > 1
    grids = {name: content for name, content in files(run).items() if name.endswith(".tif")}
    assert len(grids) == 20 - first.failed
    second = export(run, log, rows=20, backend=flaky, grid_format="cog")
    assert (second.ok, second.failed) == (20, 0)
    assert grids.items() <= files(run).items()
    assert len(second.open().grids()) == 20
    untouched = files(run)
    export(run, log, rows=20, backend=flaky, grid_format="cog")
    assert files(run) == untouched


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch_size": 4}, "models.mosaiks_rcf.knobs.patch_size: 8 -> 4"),
        ({"output": OutputSpec.pooled("max")}, 'output.pooling: "mean" -> "max"'),
        ({"dtype": "int8"}, 'dtype: "float32" -> "int8"'),
        ({"precision": "bf16"}, 'models.mosaiks_rcf.precision: "fp32" -> "bf16"'),
        ({"rows": 11}, "places.rows: 10 -> 11"),
        ({"buffer_m": 130}, "places.digest: "),
        ({"temporal": TemporalSpec.year(2022)}, "places.digest: "),
        ({"unit_rows": 9}, "units.rows: 10 -> 9"),
        ({"backend": FieldProvider()}, 'provider: "logged field" -> "field:rs_embed.testing.hills"'),
        (
            {"models": replace(get_card(MODEL), revision=7)},
            'models.mosaiks_rcf.model: ["mosaiks_rcf", 2] -> ["mosaiks_rcf", 7]',
        ),
        ({"models": replace(get_card(MODEL), id="mine")}, 'models.mine.model: missing -> ["mine", 2]'),
    ],
)
def test_another_request_for_the_same_folder_is_refused_with_what_changed(run, log, change, said):
    export(run, log, rows=10)
    before = files(run)
    refused(StorageError, "got a different one", said, "new folder", **{"out": run, "log": log, "rows": 10} | change)
    assert files(run) == before


def test_a_variable_that_changes_numbers_is_found_out(run, log, monkeypatch):
    export(run, log, rows=5)
    monkeypatch.setenv("RS_EMBED_MOSAIKS_PATCH_SIZE", "16")
    refused(StorageError, "knobs.patch_size: 8 -> 16", out=run, log=log, rows=5)


def test_another_version_of_a_library_that_changes_numbers_is_refused(run, log):
    export(run, log, rows=5)
    manifest = json.loads((run / "run.json").read_text())
    manifest["request"]["versions"]["torch"] = "2.0.0"
    (run / "run.json").write_text(json.dumps(sealed(manifest)))
    refused(StorageError, f'versions.torch: "2.0.0" -> "{torch.__version__.split("+")[0]}', out=run, log=log, rows=5)


def test_knobs_that_change_no_number_may_change(run, log):
    export(run, log, rows=5)
    assert export(run, log, rows=5, fetch_workers=1, min_valid_fraction=0.5).ok == 5
    assert len(asked(log)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("grid_format", ["cog", "zarr", "netcdf", "npz"])
def test_ids_of_any_kind_become_names_that_are_safe_and_never_meet(run, log, grid_format):
    names = ["../../etc/passwd", "Gmünd/Žilina", "a b", "a/b", "a\\b", "CON", ".", "", "x" * 300, "🌍", "a\nb", "-rf"]
    names = [name or "leer " for name in names]
    places = pd.DataFrame(pairs(len(names)), columns=["lon", "lat"]).assign(id=names)
    report = export(run, log, places=places, grid_format=grid_format)
    assert report.ok == len(names)
    inside = [path for path in run.parent.rglob("*") if path.is_file()]
    assert all(run in path.parents or path == log for path in inside)
    assert all(path.name.isascii() and len(path.name) < 80 for path in (run / MODEL / "grids").rglob("*"))
    grids = report.open().grids()
    assert set(grids) == set(names)
    assert all(grids[name].shape[0] == 1024 for name in names)


def test_repeated_ids_are_refused_before_anything_is_written(run, log):
    places = pd.DataFrame({"id": ["a", "a"], "lon": [1.0, 2.0], "lat": [3.0, 4.0]})
    refused(SpecError, "'a' in rows 0, 1", out=run, log=log, places=places)
    assert not run.exists()


def test_several_models_share_what_they_fetch_and_have_a_folder_each(run):
    card = get_card(MODEL)
    provider = FieldProvider()
    report = export_embeddings(
        [card, replace(card, id="other")], pairs(12), run, buffer_m=120, backend=provider, progress=False
    )
    assert report.ok == 24
    assert len(provider.queries) == 12
    assert report.open().models == (MODEL, "other")
    np.testing.assert_array_equal(report.open().matrix(MODEL), report.open().matrix("other"))
    with pytest.raises(SpecError, match="Expected each model once"):
        export_embeddings([MODEL, "mosaiks"], pairs(2), run, buffer_m=120, backend=provider)


def test_models_may_have_knobs_of_their_own(run):
    models = {MODEL: {"patch_size": 4}, "thor_1_0_tiny": {"pretrained": False}}
    report = export_embeddings(
        models, pairs(2), run, buffer_m=160, backend=FieldProvider(), input_prep="tile", progress=False
    )
    assert report.ok == 4
    assert report.open().header(MODEL).extra["knobs"]["patch_size"] == 4
    assert report.open().header("thor_1_0_tiny").weights_note == "random weights: shapes only"
    with pytest.raises(KnobError):
        export_embeddings([MODEL], pairs(2), run, buffer_m=160, backend=FieldProvider(), pretrained=False)


def test_a_row_that_cannot_be_planned_fails_alone(run, log):
    places = [PointBuffer(12.5, 47, 120), PointBuffer(12.6, 47, 2), PointBuffer(12.7, 47, 120)]
    report = export(run, log, places=places, buffer_m=None)
    assert (report.ok, report.failed) == (2, 1)
    (failure,) = report.open().failures().itertuples()
    assert (failure.row, failure.stage) == (1, "plan")
    assert failure.error.startswith("SpecError: Expected a square of at least one pixel")


def test_the_first_error_stops_an_export_that_is_told_so(run, log):
    flaky = LoggedField(log, fails=lambda key, times: len(asked(log)) > 12)
    refused(ConnectionError, "no answer", out=run, log=log, rows=40, backend=flaky, on_error="raise", fetch_workers=1)
    assert len(list(run.glob(f"{MODEL}/records/*.json"))) == 1
    assert export(run, log, rows=40).ok == 40


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(run, log):
    report = export(run, log, rows=60, dry_run=True)
    assert isinstance(report, ExportReport)
    said = str(report)
    for text in ("60 rows in 6 units of up to 10", "0 of 6 unit files", "60 chips via field", "geoparquet"):
        assert text in said
    assert "EECU" not in said
    assert not run.exists()
    assert not asked(log)
    export(run, log, rows=60)
    assert "6 of 6 unit files" in str(export(run, log, rows=60, dry_run=True))
    size = sum(path.stat().st_size for path in run.rglob("*.parquet"))
    assert report.plan.output_bytes == pytest.approx(size, rel=1)


def test_a_dry_run_over_earth_engine_tells_an_estimate_of_its_cost(run):
    provider = FieldProvider(name="gee")
    said = str(export_embeddings(MODEL, pairs(3600), run, buffer_m=120, backend=provider, dry_run=True))
    assert "about 1.0 EECU-hours (estimate: 1 EECU-second per chip, not measured" in said
    assert "Community 150, Contributor 1,000, Partner 100,000" in said


@pytest.mark.slow
def test_a_dry_run_is_scaled_from_a_part_to_the_whole_with_a_rate_that_is_told_or_measured(run):
    options = {"buffer_m": 1120, "backend": FieldProvider(name="gee"), "dry_run": True, "device": "cpu"}
    report = export_embeddings(MODEL, pairs(100), run, plan_rows=100_000_000, rate=75, **options)
    said = str(report)
    for text in (
        "100,000,000 rows in 24,415 units of up to 4,096",
        "from a sample of 100 rows",
        "100,000,000 chips via gee, about 120 TB",
        "output:    geoparquet, about 480 GB",
        "370.4 hours with one worker at 75 rows/s (declared), 46.3 with 8",
        "57.87 days at 40 requests",
    ):
        assert text in said, said
    measured = export_embeddings(MODEL, pairs(8), run, rate="measure", **options | {"buffer_m": 120}).plan
    assert measured.rate.how == "measured here"
    assert 1 < measured.rate.rows_per_s < 1e6
    for change, wanted in ({"plan_rows": 5}, "plan_rows of at least"), ({"rate": 0}, "rate between"):
        with pytest.raises(SpecError, match=wanted):
            export_embeddings(MODEL, pairs(100), run, **options | change)
    assert not run.exists()


def test_a_dry_run_counts_the_requests_of_shared_reads(run, log):
    places = [PointBuffer(15 + 0.001 * (i % 10), 47 + 0.001 * (i // 10), 120) for i in range(100)]
    said = str(export(run, log, places=places, buffer_m=None, unit_rows=50, share_reads=True, dry_run=True))
    assert re.search(r"100 chips via field, about \d+ kB, in about \d requests", said), said
    export(run, log, places=places, buffer_m=None, unit_rows=50, share_reads=True)
    assert f"in about {len(asked(log))} requests" in said


def test_a_folder_with_other_things_in_it_is_left_alone(run, log):
    run.mkdir()
    (run / "thesis.docx").write_text("all of it")
    before = tree(run)
    refused(SpecError, "thesis.docx", out=run, log=log)
    assert tree(run) == before


@pytest.mark.parametrize("kind", ["link", "file", "folder", "pipe"])
def test_a_lock_of_somebody_else_is_refused_and_stays_as_it_is(run, log, tmp_path, kind):
    """Also where the folder is empty but for it, and where it leads out of the folder."""
    mine = tmp_path / "mine.txt"
    mine.write_text("all of it")
    run.mkdir()
    lock = run / ".lock"
    if kind == "link":
        lock.symlink_to(mine)
    elif kind == "file":
        lock.write_text("all of it")
    elif kind == "folder":
        lock.mkdir()
    else:
        os.mkfifo(lock)
    before = tree(tmp_path)
    refused(StorageError, "Expected the lock of an export", out=run, log=log, rows=5)
    assert tree(tmp_path) == before
    if kind != "folder":
        lock.unlink()
        assert export(run, log, rows=5).ok == 5


@pytest.mark.parametrize("name", [".part-thesis.docx", ".part-0000001-run.json", "places.npz", "run.json"])
def test_a_folder_that_is_refused_keeps_every_file_and_date(run, log, name):
    run.mkdir()
    (run / "thesis.docx").write_text("all of it")
    (run / ".lock").write_text("not yours")
    (run / name).write_text("mine")
    (run / "link").symlink_to(run / "thesis.docx")
    before = tree(run)
    refused(RSEmbedError, "Expected", out=run, log=log, rows=5)
    assert tree(run) == before


def test_a_lone_file_with_the_name_of_ours_is_not_written_over(run, log):
    run.mkdir()
    (run / "places.npz").write_text("mine")
    refused(SpecError, "places.npz", out=run, log=log, rows=5)
    assert (run / "places.npz").read_text() == "mine"


def test_hidden_files_and_files_of_others_in_a_run_stay(run, log, tmp_path):
    run.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run / ".DS_Store").write_text("mine")
    (run / ".part-mine").write_text("mine")
    export(run, log, rows=10, grid_format="npz")
    grids = run / MODEL / "grids/u000000"
    (elsewhere / "000000099-x.npz").write_text("mine")
    for name in "notes.txt", ".part-mine", "a.npz":
        (grids / name).write_text("mine")
    (run / MODEL / "records/u000000.json").unlink()  # its rows are done again
    (grids / "000000098.npz").symlink_to(elsewhere / "000000099-x.npz")
    (run / MODEL / "grids/.next").symlink_to(elsewhere)
    assert export(run, log, rows=10, grid_format="npz").ok == 10
    kept = [run / ".DS_Store", run / ".part-mine", *(grids / name for name in ("notes.txt", ".part-mine", "a.npz"))]
    assert all(path.read_text() == "mine" for path in [*kept, elsewhere / "000000099-x.npz"])


def test_a_folder_of_grids_that_is_a_link_is_written_to_but_not_cleaned(run, log, tmp_path):
    export(run, log, rows=5, grid_format="npz")
    elsewhere = tmp_path / "elsewhere"
    (run / MODEL / "grids/u000000").rename(elsewhere)
    (run / MODEL / "grids/u000000").symlink_to(elsewhere)
    (elsewhere / "000000099-x.npz").write_text("mine")
    assert export(run, log, rows=5, grid_format="npz").ok == 5
    assert len(asked(log)) == 5
    (run / MODEL / "records/u000000.json").unlink()
    assert export(run, log, rows=5, grid_format="npz").ok == 5
    assert (elsewhere / "000000099-x.npz").read_text() == "mine"


def test_a_damaged_or_newer_manifest_is_refused(run, log):
    export(run, log, rows=5)
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(json.dumps(sealed(json.loads(text) | {"format_version": 2})))
    refused(StorageError, "got version 2", out=run, log=log, rows=5)
    for damaged in text[:100], text.replace('"unit_rows": 10', '"unit_rows": 11'), "[" * 100_000, "[]":
        (run / "run.json").write_text(damaged)
        refused(StorageError, "Expected the manifest", "restore a copy of it", out=run, log=log, rows=5)
    older = {name: value for name, value in json.loads(text).items() if name != "digest"}
    (run / "run.json").write_text(json.dumps(older))
    assert export(run, log, rows=5).ok == 5


@pytest.mark.slow
def test_leftovers_of_a_killed_process_are_removed(run, log):
    export(run, log, rows=25, grid_format="cog")
    units = run / MODEL / "units"
    (run / MODEL / "records/u000002.json").unlink()
    (units / "u000002.parquet").unlink()
    for name in (
        "units/.part-a1b2c377-u000002.parquet",
        "records/.part-a1b2c377-u000002.json",
        "grids/u000002/.part-a1b2c377-x.tif",
        "grids/u000002/000000099-stray.tif",
        ".part-a1b2c377-collection.json",
    ):
        (run / MODEL / name).write_text("half")
    (run / ".part-a1b2c377-run.json").write_text("half")
    assert export(run, log, rows=25, grid_format="cog").ok == 25
    assert not list(run.rglob(".part-*"))
    assert not list(run.rglob("*stray*"))


def test_a_damaged_or_missing_unit_is_made_again_and_the_others_are_not(run, log):
    export(run, log, rows=40)
    units = run / MODEL / "units"
    (units / "u000000.parquet").unlink()
    (units / "u000001.parquet").write_bytes((units / "u000001.parquet").read_bytes()[:100])
    (run / MODEL / "records/u000002.json").write_text("{")
    kept = (units / "u000003.parquet").stat().st_mtime_ns
    assert export(run, log, rows=40).ok == 40
    assert len(asked(log)) == 70
    assert (units / "u000003.parquet").stat().st_mtime_ns == kept


def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(run, log):
    run.mkdir()
    with locked(run):
        refused(StorageError, "in use", f"process {os.getpid()} on ", out=run, log=log)
    assert export(run, log, rows=5).ok == 5


def test_a_folder_that_cannot_be_made_is_a_storage_error(log, tmp_path):
    (tmp_path / "file").write_text("")
    refused(StorageError, "file/run", out=tmp_path / "file" / "run", log=log, rows=5)
    assert not asked(log)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"dtype": "float64"}, SpecError, "dtype"),
        ({"format": "csv"}, SpecError, "geoparquet"),
        ({"format": "geoparquet", "output": OutputSpec.grid()}, SpecError, "cog"),
        ({"dtype": "int8", "output": OutputSpec.grid()}, SpecError, "float32 for grids"),
        ({"unit_rows": 0}, SpecError, "unit_rows"),
        ({"on_error": "ignore"}, SpecError, "on_error"),
        ({"output": "pooled"}, SpecError, "OutputSpec"),
        ({"models": []}, SpecError, "at least one model"),
        ({"backend": "nowhere"}, SpecError, "backend"),
        ({"places": [PointBuffer(1, 2, 3)] * 3, "buffer_m": None}, SpecError, "at least one pixel"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_folder_is_made(run, log, options, error, said):
    refused(error, said, out=run, log=log, **options)
    assert not run.exists()


def test_the_run_is_opened_by_the_public_name_too(run, log):
    export(run, log, rows=5)
    assert open_run(run).matrix().shape == (5, 1024)


def test_inputs_are_kept_only_if_asked_for_and_lie_where_the_chip_was(run, log):
    export(run, log, rows=3)
    assert not (run / "inputs").exists()
    whole = run.parent / "whole"
    places = pd.DataFrame({"id": ["a/b"], "lon": [12.5], "lat": [47.0]})
    export(whole, log, places=places, save_inputs=True)
    (kept,) = whole.glob("inputs/u000000/*.npz")
    assert kept.name == "000000000-a-b-s2_12.npz"
    chip = np.load(kept)
    box = geobox_for(PointBuffer(12.5, 47.0, 120))
    assert chip["values"].shape == (1, 12, *box.shape)
    assert str(chip["crs"]) == str(box.crs)
    np.testing.assert_allclose(chip["transform"], tuple(box.affine)[:6])
    assert list(chip["units"]) == ["dn"] * 12


def test_a_full_disk_while_a_chip_is_kept_stops_the_export(run, log, monkeypatch):
    def full(chip, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rs_embed.exports.fetching.inputs.write_chip", full)
    refused(StorageError, "No space left", "free some space", out=run, log=log, rows=5, save_inputs=True)
