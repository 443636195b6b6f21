"""Several processes fill one run folder between them, each with its own share of the units."""

import os
import signal
import time

import pytest
from command_line import invoke, refused
from export_worker import ERROR_CODE, Exports, asked, export, pairs

from rs_embed import open_run, retry_export, run_status, verify_run
from rs_embed.core.atomic import locked
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.sharding import Shard

MODEL = "mosaiks_rcf"


def catalog(run):
    return run / MODEL / "collection.json"


def files(run):
    """Bytes of every table by name."""
    return {path.name: path.read_bytes() for path in sorted((run / MODEL / "units").glob("*.parquet"))}


@pytest.mark.slow
def test_shards_one_after_the_other_fill_one_run_which_is_finished_when_all_are(tmp_path):
    log = tmp_path / "log"
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    export(whole, tmp_path / "other", rows=50)
    first = export(parted, log, rows=50, shard=(1, 3))
    assert first.ok == 20  # units 1 and 4 of 5
    (model,) = run_status(parted).models
    assert (model.finished, model.units, model.missing) == (2, 5, 30)
    assert not catalog(parted).exists()
    export(parted, log, rows=50, shard="0/3")
    assert not catalog(parted).exists()
    export(parted, log, rows=50, shard=(2, 3))
    assert catalog(parted).exists()
    assert len(asked(log)) == 50
    assert verify_run(parted, progress=False).ok
    assert (open_run(parted).matrix() == open_run(whole).matrix()).all()
    before = files(parted)
    again = export(parted, log, rows=50)
    assert (again.ok, len(asked(log)), files(parted)) == (50, 50, before)


@pytest.mark.slow
def test_a_run_that_was_begun_by_some_shards_is_finished_by_others_or_by_one_process(tmp_path):
    log, run = tmp_path / "log", tmp_path / "run"
    export(run, log, rows=50, shard=(0, 2), backend="sample", places=[(12.94, 47.77)] * 50)
    report = retry_export(run, shard="1/5", progress=False)
    assert report.ok == 10
    retry_export(run, progress=False)
    (model,) = run_status(run).models
    assert (model.ok, model.missing) == (50, 0)
    assert catalog(run).exists()


@pytest.mark.parametrize(
    ("lock", "shared", "shard", "said"),
    [
        (".lock-1-of-3", False, (1, 3), "in use"),
        (".lock-1-of-3", False, (1, 4), "Expected 4 shards"),
        (".lock", False, (1, 3), "in use"),
        (".lock", True, None, "in use"),
    ],
)
def test_what_others_have_of_a_run_is_refused(tmp_path, lock, shared, shard, said):
    run = tmp_path / "run"
    run.mkdir()
    with locked(run, lock, shared=shared), pytest.raises(StorageError, match=said):
        export(run, tmp_path / "log", rows=20, shard=shard)
    assert asked(tmp_path / "log") == []


def test_another_shard_is_no_hindrance_and_a_status_names_who_is_at_work(tmp_path):
    run = tmp_path / "run"
    export(run, tmp_path / "log", rows=50, shard=(0, 3))
    with locked(run, ".lock-2-of-3"):
        export(run, tmp_path / "log", rows=50, shard=(1, 3))
        assert str(os.getpid()) in run_status(run).in_use_by
        with pytest.raises(StorageError, match="nobody writes to"):
            verify_run(run, progress=False)


def test_the_last_to_leave_writes_the_catalogs(tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    export(run, log, rows=40, shard=(0, 2))
    with locked(run, ".lock-0-of-2"):  # it may be trying failed rows again
        export(run, log, rows=40, shard=(1, 2))
    assert not catalog(run).exists()
    export(run, log, rows=40, shard=(0, 2))
    assert catalog(run).exists()
    assert len(asked(log)) == 40


def test_a_shard_leaves_alone_what_others_have_half_written(tmp_path):
    run = tmp_path / "run"
    export(run, tmp_path / "log", rows=40, shard=(0, 2))
    units = run / MODEL / "units"
    others, own = units / ".part-0123456789-u000001.parquet", units / ".part-0123456789-merged-u000002.parquet"
    others.touch(), own.touch()
    export(run, tmp_path / "log", rows=40, shard=(0, 2))
    assert others.exists() and not own.exists()


@pytest.mark.parametrize("given", [(16, 16), (-1, 4), "3", "x/4", (0, 0), (True, 2), 3, (1, 2, 3), "1.5/4"])
def test_what_is_no_shard_is_refused(tmp_path, given):
    with pytest.raises(SpecError):
        Shard.of(given)


def test_the_units_of_all_shards_are_those_of_the_run():
    units = list(range(37))
    for count in (1, 2, 5, 37, 50):
        found = [unit for index in range(count) for unit in Shard(index, count).units_of(units)]
        assert sorted(found) == units


def test_the_command_takes_a_shard(tmp_path):
    table = tmp_path / "plots.csv"
    table.write_text("lon,lat\n" + "12.94,47.77\n" * 4)
    words = ("export", MODEL, table, tmp_path / "run", "--buffer", "80", "--backend", "sample", "--unit-rows", "1")
    result = invoke(*words, "--shard", "1/2")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("2 embeddings")
    refused(invoke(*words, "--shard", "2/2"), "SpecError", "0/2 to 1/2")
    assert invoke("retry", tmp_path / "run", "--shard", "0/2").exit_code == 0
    assert run_status(tmp_path / "run").models[0].ok == 4


@pytest.fixture(scope="module")
def exports():
    server = Exports()
    yield server
    server.close()


@pytest.mark.slow
def test_processes_at_once_fill_one_folder_though_one_is_killed(exports, tmp_path):
    run, log, shards = tmp_path / "run", tmp_path / "log", 3
    began = [
        exports.start(
            run, log, rows=90, latency_s=0.01, shard=[index, shards], die=("record", 2) if index == 1 else None
        )
        for index in range(shards)
    ]
    codes = sorted(exports.wait()[0] for _ in began)
    assert codes == [-signal.SIGKILL, 0, 0]
    assert not catalog(run).exists()
    (model,) = run_status(run).models
    assert model.units == 9 and 6 <= model.finished < 9
    exports.start(run, log, rows=90, shard=[1, shards])
    assert exports.wait()[0] == 0
    (model,) = run_status(run).models
    assert (model.ok, model.missing, model.finished) == (90, 0, 9)
    assert catalog(run).exists()
    assert verify_run(run, progress=False).ok
    assert not list(run.rglob(".part-*"))
    export(tmp_path / "whole", tmp_path / "other", rows=90)
    assert (open_run(run).matrix() == open_run(tmp_path / "whole").matrix()).all()


@pytest.mark.slow
def test_a_shard_that_is_at_work_is_refused_to_a_second_process(exports, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    first = exports.start(run, log, rows=60, latency_s=0.5, shard=[0, 2])
    while not asked(log):
        time.sleep(0.01)
    exports.start(run, tmp_path / "second", rows=60, shard=[0, 2])
    code, said = exports.wait()
    assert code == ERROR_CODE and "in use" in said and str(first) in said
    exports.start(run, tmp_path / "third", rows=60, shard=[1, 2])
    assert exports.wait()[0] == 0
    assert len(asked(tmp_path / "third")) == len(pairs(60)) // 2
    os.kill(first, signal.SIGKILL)
    assert exports.wait()[0] == -signal.SIGKILL
