"""Exports that are killed, starved of disk, or run twice: nothing is lost, nothing is done twice, nothing is mixed."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from engines_help import table_without_times
from export_worker import ERROR_CODE, MODEL, Exports, LoggedField, asked, export

from rs_embed.exports.results.run import open_run
from rs_embed.exports.status import run_status
from rs_embed.pipeline.batching import BATCH_CPU

pytestmark = pytest.mark.slow

ROWS, UNIT_ROWS = 80, 10
ROUNDS = 12


@pytest.fixture(scope="module")
def exports():
    server = Exports()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(exports, tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    exports.start(folder / "run", folder / "log", rows=ROWS, unit_rows=UNIT_ROWS)
    code, said = exports.wait()
    assert code == 0, said
    return folder / "run"


@pytest.fixture(scope="module")
def one_unit(exports, tmp_path_factory) -> Path:
    """The same rows in one unit, undisturbed."""
    folder = tmp_path_factory.mktemp("one")
    exports.start(folder / "run", folder / "log", rows=ROWS, unit_rows=ROWS)
    code, said = exports.wait()
    assert code == 0, said
    return folder / "run"


def finished(run: Path) -> dict[str, tuple[int, bytes]]:
    """Files of all units of which every row was tried: their time and content."""
    found = {}
    for record in run.glob(f"{MODEL}/records/u*.json"):
        if json.loads(record.read_text())["missing"]:
            continue
        for path in (record, run / MODEL / "units" / f"{record.stem}.parquet"):
            found[path.name] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


def vectors(run: Path) -> dict[int, bytes]:
    """The bytes of every vector, by row; fails if a row is there twice."""
    found = {}
    for path in sorted(run.glob(f"{MODEL}/units/u*.parquet")):
        table = pq.read_table(path)
        for row, vector in zip(table["row"].to_pylist(), table["embedding"].combine_chunks(), strict=True):
            assert row not in found
            found[row] = np.asarray(vector.values, np.float32).tobytes()
    return found


def same_as(whole: Path, run: Path) -> None:
    assert vectors(run) == vectors(whole)
    assert sorted(vectors(run)) == list(range(ROWS))
    assert not list(run.rglob(".part-*"))


def test_a_run_killed_at_random_a_dozen_times_ends_as_if_nothing_had_happened(exports, whole, tmp_path):
    chance = random.Random(5)
    kills, folder = 0, 0
    while kills < ROUNDS:
        folder += 1
        run, log = tmp_path / f"run{folder}", tmp_path / f"log{folder}"

        @contextmanager
        def watched(run=run, log=log):
            before, asked_before = finished(run), len(asked(log))
            yield
            after = finished(run)
            assert before.items() <= after.items()
            done_now = (len(after) - len(before)) // 2
            assert len(asked(log)) - asked_before <= (done_now + 1) * UNIT_ROWS

        killed_here = exports.killed_at_random(
            chance, (0.05, 0.6), run, log, watched, rows=ROWS, unit_rows=UNIT_ROWS, latency_s=0.01
        )
        kills += killed_here
        same_as(whole, run)
        assert len(asked(log)) <= ROWS + killed_here * UNIT_ROWS


@pytest.mark.parametrize("point", ["fetch", "write", "rename", "record"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_run_killed_at_the_worst_moments_goes_on_where_it_was(exports, whole, tmp_path, point, count):
    run, log = tmp_path / "run", tmp_path / "log"
    count = count * UNIT_ROWS + 3 if point == "fetch" else count
    exports.start(run, log, die=(point, count), rows=ROWS, unit_rows=UNIT_ROWS)
    assert exports.wait()[0] == -signal.SIGKILL
    before, fetched = finished(run), len(asked(log))
    exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS)
    code, said = exports.wait()
    assert code == 0, said
    same_as(whole, run)
    assert before.items() <= finished(run).items()
    in_flight = fetched - len(before) // 2 * UNIT_ROWS
    again = {key: times for key, times in Counter(asked(log)).items() if times > 1}
    assert len(again) <= min(in_flight, UNIT_ROWS)
    assert not again or point != "rename"  # its table was in place already, and its record announced


def test_a_catalog_never_tells_of_less_than_there_is_whenever_the_run_was_killed(exports, tmp_path):
    run, log, grids = tmp_path / "run", tmp_path / "log", {"rows": 12, "unit_rows": 5, "grid_format": "npz"}
    flaky = LoggedField(log, fails=lambda key, times: int(key[-3:]) % 70 == 0)
    collection = run / MODEL / "collection.json"
    assert 0 < export(run, log, backend=flaky, **grids).failed < 12
    assert collection.is_file()
    exports.start(run, log, die=("catalog", 1), **grids)  # the failed rows are done, and then it dies
    assert exports.wait()[0] == -signal.SIGKILL
    assert not collection.exists()
    exports.start(run, log, **grids)
    assert exports.wait()[0] == 0
    listed = [link for link in json.loads(collection.read_text())["links"] if link["rel"] == "item"]
    assert len(listed) == len(list((run / MODEL / "items").iterdir())) == 12


def test_a_second_process_on_the_same_folder_is_refused_and_harms_nothing(exports, whole, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    first = exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS, latency_s=0.08)
    while len(asked(log)) < 5:
        time.sleep(0.01)
    exports.start(run, tmp_path / "other", rows=ROWS, unit_rows=UNIT_ROWS)
    code, said = exports.wait()
    assert code == ERROR_CODE
    assert said.startswith("StorageError: Expected")
    assert f"process {first} on " in said
    assert not asked(tmp_path / "other")
    assert exports.wait()[0] == 0
    same_as(whole, run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_by_signal_is_clean_and_the_run_goes_on_later(exports, whole, tmp_path, number):
    run, log = tmp_path / "run", tmp_path / "log"
    process = exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS, latency_s=0.02)
    while len(asked(log)) < 3 * UNIT_ROWS:
        time.sleep(0.01)
    os.kill(process, number)
    assert exports.wait()[0] == 130
    before = finished(run)
    assert before
    exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS)
    assert exports.wait()[0] == 0
    assert before.items() <= finished(run).items()
    same_as(whole, run)


@pytest.mark.parametrize("at", [50, 70])
def test_what_is_done_of_a_unit_is_stored_now_and_then_and_a_kill_costs_only_the_rest(exports, one_unit, tmp_path, at):
    run, log, job = tmp_path / "run", tmp_path / "log", {"rows": ROWS, "unit_rows": ROWS}
    exports.start(run, log, die=("fetch", at), **job, latency_s=0.02, variables={"CHECKPOINT_S": "0"})
    assert exports.wait()[0] == -signal.SIGKILL
    record = json.loads((run / MODEL / "records/u000000.json").read_text())
    kept = vectors(run)
    assert len(kept) == record["ok"] == ROWS - len(record["missing"]) > 0
    fetched = len(asked(log))
    assert fetched - record["ok"] <= 40  # on their way to the encoder
    exports.start(run, log, **job)
    code, said = exports.wait()
    assert code == 0, said
    same_as(one_unit, run)  # to the bit
    assert kept.items() <= vectors(run).items()
    assert len(asked(log)) - fetched == ROWS - record["ok"]
    same_tables(one_unit, run)


def same_tables(whole: Path, run: Path) -> None:
    """The table is that which one call writes: rows, schema, encodings, header."""
    one, other = (folder / MODEL / "units/u000000.parquet" for folder in (whole, run))
    assert table_without_times(one) == table_without_times(other)
    files = [pq.ParquetFile(path) for path in (one, other)]
    schemas = [file.schema_arrow for file in files]
    assert schemas[0].equals(schemas[1])
    assert schemas[0].metadata[b"geo"] == schemas[1].metadata[b"geo"]
    groups = [file.metadata.row_group(0) for file in files]
    for index in range(groups[0].num_columns):
        pair = [group.column(index) for group in groups]
        assert pair[0].encodings == pair[1].encodings
        if pair[0].path_in_schema != "meta":
            assert pair[0].total_compressed_size == pair[1].total_compressed_size, pair[0].path_in_schema


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_within_the_first_minute_keeps_every_batch_that_was_done(exports, one_unit, tmp_path, number):
    run, log, job = tmp_path / "run", tmp_path / "log", {"rows": ROWS, "unit_rows": ROWS}
    process = exports.start(run, log, **job, latency_s=0.02)
    while len(asked(log)) < 60:
        time.sleep(0.01)
    os.kill(process, number)
    assert exports.wait()[0] == 130
    (status,) = run_status(run).models
    kept = vectors(run)
    assert len(kept) == status.ok == ROWS - status.missing >= 16
    assert status.ok % BATCH_CPU == 0
    assert open_run(run).matrix().shape == (status.ok, 1024)
    before, fetched = dict(kept), len(asked(log))
    exports.start(run, log, **job)
    assert exports.wait()[0] == 0
    assert before.items() <= vectors(run).items()
    assert len(asked(log)) - fetched == ROWS - len(before)
    same_as(one_unit, run)
    same_tables(one_unit, run)


@pytest.mark.parametrize("grid_format", ["cog", "zarr"])
def test_grids_of_a_unit_that_was_stopped_stay_and_the_others_are_made(exports, tmp_path, grid_format):
    run, log, job = tmp_path / "run", tmp_path / "log", {"rows": 60, "unit_rows": 60, "grid_format": grid_format}
    process = exports.start(run, log, **job, latency_s=0.02)
    while len(asked(log)) < 50:
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    assert exports.wait()[0] == 130
    record = json.loads((run / MODEL / "records/u000000.json").read_text())
    times = {name: (run / MODEL / name).stat().st_mtime_ns for name in record["files"] if name.startswith("grids/")}
    assert len(times) == record["ok"] > 0
    exports.start(run, log, **job)
    assert exports.wait()[0] == 0
    assert times == {name: (run / MODEL / name).stat().st_mtime_ns for name in times}
    assert len(open_run(run).grids()) == 60


@pytest.mark.parametrize("point", ["rename", "record"])
def test_a_kill_between_the_table_and_the_record_of_a_checkpoint_loses_nothing(exports, one_unit, tmp_path, point):
    run, log, job = tmp_path / "run", tmp_path / "log", {"rows": ROWS, "unit_rows": ROWS}
    exports.start(run, log, die=(point, 5), **job, variables={"CHECKPOINT_S": "0"})
    assert exports.wait()[0] == -signal.SIGKILL
    there = len(vectors(run))
    exports.start(run, log, die=("fetch", ROWS), **job, latency_s=0.001)
    exports.wait()
    assert run_status(run).models[0].ok >= there > 0
    exports.start(run, log, **job)
    assert exports.wait()[0] == 0
    same_as(one_unit, run)


def mounted(folder: Path, options: str) -> bool:
    """A tmpfs of its own, where the system lets us have one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB: a few units."""
    disk = tmp_path / "disk"
    if not mounted(disk, "size=200k"):
        pytest.skip("no right to mount a tmpfs; the limit on files below stands in for it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_stops_the_run_at_once_and_room_lets_it_go_on(exports, whole, small_disk, tmp_path):
    run, log = small_disk / "run", tmp_path / "log"
    exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS)
    code, said = exports.wait()
    assert code == ERROR_CODE
    assert said.startswith("StorageError: Expected to write to")
    assert "No space left" in said
    assert "free some space" in said
    before = finished(run)
    assert 0 < len(before) < 2 * ROWS / UNIT_ROWS
    assert len(asked(log)) <= (len(before) // 2 + 1) * UNIT_ROWS
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS)
    assert exports.wait()[0] == 0
    assert before.items() <= finished(run).items()
    same_as(whole, run)


def test_a_disk_that_becomes_read_only_is_said_at_once_and_nothing_is_fetched(exports, whole, small_disk, tmp_path):
    run, log = small_disk / "run", tmp_path / "log"
    exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS)
    exports.wait()
    fetched = len(asked(log))
    subprocess.run(["mount", "-o", "remount,ro,size=50m", str(small_disk)], check=True)
    exports.start(run, log, rows=ROWS, unit_rows=UNIT_ROWS)
    code, said = exports.wait()
    assert code == ERROR_CODE
    assert "Read-only file system" in said
    assert "that you may write to" in said
    assert len(asked(log)) == fetched


@pytest.mark.parametrize("grid_format", ["cog", "zarr", "netcdf", "npz"])
def test_grids_on_a_full_disk_stop_the_run_and_are_whole_afterwards(exports, small_disk, tmp_path, grid_format):
    run, log = small_disk / "run", tmp_path / "log"
    grid = {"rows": 20, "grid_format": grid_format}
    exports.start(run, log, **grid)
    code, said = exports.wait()
    assert code == ERROR_CODE, said
    assert said.startswith("StorageError: ")
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    exports.start(run, log, **grid)
    code, said = exports.wait()
    assert code == 0, said
    grids = open_run(run).grids()
    assert len(grids) == 20
    assert all(np.isfinite(grids[name]).all() for name in grids)
    assert not list(run.rglob(".part-*"))


def test_a_limit_on_the_size_of_files_is_a_clear_error_too(exports, tmp_path):
    exports.start(tmp_path / "run", tmp_path / "log", rows=20, unit_rows=20, file_limit=20_000)
    code, said = exports.wait()
    assert code == ERROR_CODE
    assert said.startswith("StorageError: ")
    assert not list((tmp_path / "run").glob(f"{MODEL}/units/*.parquet"))
