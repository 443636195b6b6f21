"""Unit files become few large ones: no row is lost or doubled, whatever happens, and readers take them as before."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import torch
from engines_help import vectors
from export_worker import MODEL, LoggedField, export

from rs_embed import compact_run
from rs_embed.core.atomic import locked
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.results.run import read

ROWS = 60
UNIT_MB = 10 * 1024 * 4 / 1e6
"""Vectors of a unit of ten rows."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    flaky = LoggedField(folder / "log", fails=lambda key, times: int(key[-3:]) % 70 == 0)
    export(folder / "run", folder / "log", rows=ROWS, unit_rows=10, backend=flaky)
    return folder / "run"


@pytest.fixture
def run(made, tmp_path) -> Path:
    subprocess.run(["cp", "-a", str(made), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("parts/part-*.parquet"))


def content(run: Path, folder: Path) -> None:
    """Every row once, in the order of the units, with its bytes."""
    units = [pq.read_table(path) for path in sorted(run.glob(f"{MODEL}/units/*.parquet"))]
    merged = [pq.read_table(path) for path in parts(folder)]
    for name in units[0].column_names:
        wanted = [value for table in units for value in table[name].to_pylist()]
        assert [value for table in merged for value in table[name].to_pylist()] == wanted, name
    assert not list(folder.rglob(".part-*"))


@pytest.mark.slow
def test_a_run_becomes_few_files_of_one_row_group_each_with_the_header_of_its_units(run):
    report = compact_run(run, row_group_mb=2.5 * UNIT_MB, progress=False)
    assert (report.rows, report.partitions, report.written) == (ROWS, 3, 3)
    folder = run / "compact" / MODEL
    content(run, folder)
    first = pq.ParquetFile(parts(folder)[0])
    assert first.metadata.num_row_groups == 1
    unit = pq.ParquetFile(run / MODEL / "units/u000000.parquet")
    assert first.schema_arrow.metadata[b"emb"] == unit.schema_arrow.metadata[b"emb"]
    assert first.schema_arrow.equals(unit.schema_arrow)
    whole = json.loads(first.schema_arrow.metadata[b"geo"])["columns"]["geometry"]
    frame = geopandas.read_parquet(parts(folder)[0])
    np.testing.assert_allclose(whole["bbox"], frame.total_bounds)
    assert read(parts(folder)[0]).matrix().shape == (20, 1024)


def test_the_folder_is_one_table_to_any_reader_and_a_valid_catalog(run):
    compact_run(run, row_group_mb=2 * UNIT_MB, progress=False)
    folder = run / "compact" / MODEL
    assert len(geopandas.read_parquet(folder / "parts")) == ROWS
    ((count,),) = duckdb.sql(f"SELECT count(*) FROM '{folder}/parts/*.parquet'").fetchall()
    assert count == ROWS
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    items = list(collection.get_items(recursive=True))
    assert [item.id for item in items] == ["part-000000", "part-000001", "part-000002"]
    assert all((folder / "items" / item.assets["embeddings"].href).resolve().is_file() for item in items)
    assert sum(item.properties["rs_embed:rows"] for item in items) == sum(map(bool, vectors(run).values()))


def test_a_second_call_writes_nothing_and_a_changed_unit_only_its_own_file(run):
    compact_run(run, row_group_mb=2 * UNIT_MB, progress=False)
    folder = run / "compact" / MODEL
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert compact_run(run, row_group_mb=2 * UNIT_MB, progress=False).written == 0
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    report = export(run, run.parent / "log", rows=ROWS, unit_rows=10)  # the failed rows are done now
    assert report.failed == 0
    assert 1 <= compact_run(run, row_group_mb=2 * UNIT_MB, progress=False).written <= 3
    content(run, folder)
    assert all(geopandas.read_parquet(folder / "parts")["status"] == "ok")


def test_a_catalog_is_never_older_than_its_files(run, monkeypatch):
    compact_run(run, row_group_mb=2 * UNIT_MB, progress=False)
    export(run, run.parent / "log", rows=ROWS, unit_rows=10)  # the failed rows are done now

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rs_embed.exports.results.compact.write_stac", stop)
        with pytest.raises(KeyboardInterrupt):
            compact_run(run, row_group_mb=2 * UNIT_MB, progress=False)
    assert not (run / "compact" / MODEL / "collection.json").exists()
    compact_run(run, row_group_mb=2 * UNIT_MB, progress=False)
    items = [json.loads(path.read_text()) for path in (run / "compact" / MODEL / "items").iterdir()]
    assert sum(item["properties"]["rs_embed:rows"] for item in items) == ROWS


def test_another_size_replaces_the_files_of_the_first(run):
    compact_run(run, row_group_mb=UNIT_MB, progress=False)
    folder = run / "compact" / MODEL
    assert len(parts(folder)) == 6
    compact_run(run, progress=False)
    assert [path.name for path in parts(folder)] == ["part-000000.parquet"]
    assert len(list((folder / "items").iterdir())) == len(list((folder / "records").iterdir())) == 1
    content(run, folder)


def test_paths_of_grids_still_lead_to_them(tmp_path):
    run, out = tmp_path / "run", tmp_path / "elsewhere"
    export(run, tmp_path / "log", rows=12, unit_rows=5, grid_format="npz")
    assert compact_run(run, out, progress=False).rows == 12
    table = read(out / MODEL / "parts/part-000000.parquet")
    assert {row for row, _, _ in table.embeddings()} == set(range(12))


def test_a_run_that_is_not_finished_or_damaged_or_in_use_is_refused(run, tmp_path):
    with locked(run), pytest.raises(StorageError, match="in use"):
        compact_run(run, progress=False)
    table = run / MODEL / "units/u000001.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[:-8] + b"\0" * 8)
    with pytest.raises(StorageError, match="another content"):
        compact_run(run, progress=False)
    table.write_bytes(whole)
    (run / MODEL / "records/u000003.json").unlink()
    with pytest.raises(StorageError, match="all 60 rows of mosaiks_rcf, got 50"):
        compact_run(run, progress=False)
    with pytest.raises(StorageError, match="no run.json"):
        compact_run(tmp_path, progress=False)
    with pytest.raises(SpecError, match="above 0 MB"):
        compact_run(run, row_group_mb=0, progress=False)


def test_files_of_others_are_never_written_over_or_removed(run, tmp_path):
    out = tmp_path / "out"
    (out / MODEL / "parts").mkdir(parents=True)
    (out / MODEL / "thesis.docx").write_text("all of it")
    with pytest.raises(SpecError, match=r"thesis\.docx"):
        compact_run(run, out, progress=False)
    assert [path.name for path in (out / MODEL).rglob("*") if path.is_file()] == ["thesis.docx"]
    (out / MODEL / "thesis.docx").unlink()
    foreign = out / MODEL / "parts/part-000000.parquet"
    foreign.write_text("mine")
    with pytest.raises(StorageError, match="somebody else"):
        compact_run(run, out, progress=False)
    assert foreign.read_text() == "mine"
    foreign.rename(out / MODEL / "parts/part-000007.parquet")
    compact_run(run, out, progress=False)
    assert (out / MODEL / "parts/part-000007.parquet").read_text() == "mine"


@pytest.mark.slow
def test_a_compaction_killed_at_random_goes_on_and_loses_no_row(run):
    chance, folder = random.Random(11), run / "compact" / MODEL
    code = f"from rs_embed import compact_run; compact_run({str(run)!r}, row_group_mb={UNIT_MB}, progress=False)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    kills = 0
    while kills < 4:
        process = subprocess.Popen([sys.executable, "-c", code], env=environment)
        deadline, seen = time.monotonic() + 240, len(list(folder.glob("records/*.json")))
        while process.poll() is None and len(list(folder.glob("records/*.json"))) <= seen:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        if process.wait(300) == 0:  # it was through: from the beginning
            content(run, folder)
            shutil.rmtree(folder)
        else:
            assert process.returncode == -signal.SIGKILL
            kills += 1
    assert compact_run(run, row_group_mb=UNIT_MB, progress=False).partitions == 6
    content(run, folder)
