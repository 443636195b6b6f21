"""Exports into an object store: the same files as on a disk, whole or not there, with nothing left on this machine."""

import json
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from engines_help import vectors
from export_worker import ERROR_CODE, MODEL, Exports, LoggedField, asked, export
from store_server import Store

from rs_embed import compact_run, download_run, open_run, verify_run
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.object_store import Remote
from rs_embed.exports.status import retry_export, run_status

pytestmark = pytest.mark.slow

ROWS, UNIT_ROWS = 40, 10


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store():
    found = Store()
    yield found
    found.close()


@pytest.fixture(scope="module")
def exports(store):
    server = Exports()
    yield server
    server.close()


@pytest.fixture
def prefix(request) -> str:
    return "".join(char if char.isalnum() else "-" for char in request.node.name)


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield
    assert not list(scratch.iterdir())


def test_what_two_workers_remove_is_gone_and_no_error(store, prefix, tmp_path):
    class Slow(Remote):
        def size(self, name):
            found = super().size(name)
            Remote(self.uri).remove(name)  # the other worker, between the question and the removal
            return found

    (tmp_path / "collection.json").write_text("{}")
    Remote(store.uri(prefix)).put(tmp_path, "collection.json")
    Slow(store.uri(prefix)).remove("collection.json")
    assert store.objects(prefix) == {}


def test_a_run_in_a_store_is_the_run_of_a_disk(store, prefix, log, tmp_path):
    here = tmp_path / "here"
    export(here, log, rows=ROWS)
    report = export(store.uri(prefix), log, rows=ROWS)
    assert (report.ok, report.failed) == (ROWS, 0)
    names = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file() and path.name != ".lock"}
    assert set(store.objects(prefix)) == names
    run = download_run(store.uri(prefix), tmp_path / "back")
    assert vectors(run.path) == vectors(here)
    with pytest.raises(SpecError, match="download_run"):
        report.open()


def test_failed_rows_are_tried_again_and_nothing_else_is_put(store, prefix, log, tmp_path):
    flaky = LoggedField(log, fails=lambda key, times: int(key[-3:]) % 70 == 0 and times == 1)
    first = export(store.uri(prefix), log, rows=ROWS, backend=flaky)
    assert 0 < first.failed < ROWS
    before = store.objects(prefix)
    run = download_run(store.uri(prefix), tmp_path / "back")
    touched = {f"u{unit:06d}" for unit in range(4) if (run.tables()[unit].to_frame()["status"] == "failed").any()}
    done = {row: vector for row, vector in vectors(run.path).items() if vector}
    again = export(store.uri(prefix), log, rows=ROWS, backend=flaky)
    assert (again.ok, again.failed) == (ROWS, 0)
    after = store.objects(prefix)
    changed = {Path(name).stem for name in after if before[name] != after[name] and "/units/" in name}
    assert changed == touched
    assert len(asked(log)) == ROWS + first.failed
    assert done.items() <= vectors(download_run(store.uri(prefix), tmp_path / "back").path).items()
    assert export(store.uri(prefix), log, rows=ROWS, backend=flaky).ok == ROWS
    assert store.objects(prefix) == after
    assert len(asked(log)) == ROWS + first.failed


def test_grids_and_kept_chips_are_put_too(store, prefix, log, tmp_path, monkeypatch):
    flaky = LoggedField(log, fails=lambda key, times: int(key[-3:]) % 70 == 0 and times == 1)
    monkeypatch.setenv("RS_EMBED_CHECKPOINT_S", "0")
    options = {"rows": 12, "unit_rows": 5, "grid_format": "npz", "save_inputs": True, "backend": flaky}
    failed = export(store.uri(prefix), log, **options).failed
    assert 0 < failed < 12
    assert export(store.uri(prefix), log, **options).ok == 12
    run = download_run(store.uri(prefix), tmp_path / "back")
    grids = run.grids()
    assert len(grids) == 12
    assert all(np.isfinite(grids[name]).all() for name in grids)
    assert len(list((tmp_path / "back/inputs").rglob("*.npz"))) == 12
    assert not [name for name in store.objects(prefix) if "/.part-" in name]
    assert (tmp_path / "back" / MODEL / "collection.json").is_file()


@pytest.mark.parametrize("count", [1, 3])
def test_a_process_killed_between_a_table_and_its_record_loses_nothing(exports, store, prefix, log, tmp_path, count):
    exports.start(store.uri(prefix), log, die=("put", count), rows=ROWS, unit_rows=UNIT_ROWS)
    assert exports.wait()[0] == -signal.SIGKILL
    assert len([name for name in store.objects(prefix) if "/units/" in name]) == count
    assert len([name for name in store.objects(prefix) if "/records/u" in name]) == count - 1
    exports.start(store.uri(prefix), log, rows=ROWS, unit_rows=UNIT_ROWS)
    code, said = exports.wait()
    assert code == 0, said
    run = download_run(store.uri(prefix), tmp_path / "back")
    assert sorted(vectors(run.path)) == list(range(ROWS))
    assert len(asked(log)) == ROWS  # the table was whole, so it was taken


def test_a_process_killed_before_the_catalog_leaves_none_that_is_wrong(exports, store, prefix, log):
    flaky = LoggedField(log, fails=lambda key, times: int(key[-3:]) % 70 == 0)
    options, collection = {"rows": ROWS, "unit_rows": UNIT_ROWS}, f"{MODEL}/collection.json"
    assert export(store.uri(prefix), log, backend=flaky, **options).failed > 0
    assert collection in store.objects(prefix)
    exports.start(store.uri(prefix), log, die=("catalog", 1), **options)
    assert exports.wait()[0] == -signal.SIGKILL
    assert collection not in store.objects(prefix)
    exports.start(store.uri(prefix), log, **options)
    assert exports.wait()[0] == 0
    assert f"{ROWS} embeddings of" in json.loads(store.read(f"{prefix}/{collection}"))["description"]


def test_a_download_brings_what_has_changed_and_never_mixes_two_runs(store, prefix, log, tmp_path):
    back = tmp_path / "back"
    flaky = LoggedField(log, fails=lambda key, times: int(key[-3:]) % 70 == 0)
    export(store.uri(prefix), log, rows=ROWS, backend=flaky)
    before = vectors(download_run(store.uri(prefix), back).path)
    kept = {path: path.stat().st_mtime_ns for path in back.rglob("*.parquet")}
    assert vectors(download_run(store.uri(prefix), back).path) == before
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    table = back / MODEL / "units/u000001.parquet"
    whole = table.read_bytes()
    table.write_bytes(bytes(len(whole)))  # another content of the same size
    download_run(store.uri(prefix), back)
    assert table.read_bytes() == whole
    export(store.uri(prefix), log, rows=ROWS)  # the failed rows are done
    assert all(vectors(download_run(store.uri(prefix), back).path).values())
    export(store.uri(f"{prefix}-other"), log, rows=ROWS // 2)
    with pytest.raises(StorageError, match="another run"):
        download_run(store.uri(f"{prefix}-other"), back)


def test_a_torn_or_missing_table_is_made_again(store, prefix, log, tmp_path):
    export(store.uri(prefix), log, rows=ROWS)
    table = f"{prefix}/{MODEL}/units/u000001.parquet"
    store.write(table, store.read(table)[:1000])
    store.files.delete_file(f"bucket/{prefix}/{MODEL}/units/u000002.parquet")
    assert export(store.uri(prefix), log, rows=ROWS).ok == ROWS
    assert len(asked(log)) == ROWS + 2 * UNIT_ROWS
    assert len(vectors(download_run(store.uri(prefix), tmp_path / "back").path)) == ROWS


def test_what_is_done_of_a_unit_is_put_now_and_then(exports, store, prefix, log, tmp_path):
    job = {"rows": ROWS, "unit_rows": ROWS}
    start = {"die": ("fetch", ROWS), **job, "latency_s": 0.05, "variables": {"CHECKPOINT_S": "0"}}
    exports.start(store.uri(prefix), log, **start)
    assert exports.wait()[0] == -signal.SIGKILL
    record = json.loads(store.read(f"{prefix}/{MODEL}/records/u000000.json"))
    kept = vectors(download_run(store.uri(prefix), tmp_path / "first").path)
    assert 0 < len(kept) < ROWS
    assert len(kept) >= record["ok"] > 0  # the table may be one step ahead of its record
    fetched = len(asked(log))
    exports.start(store.uri(prefix), log, **job)
    code, said = exports.wait()
    assert code == 0, said
    assert len(asked(log)) - fetched == ROWS - len(kept)
    found = vectors(download_run(store.uri(prefix), tmp_path / "back").path)
    assert kept.items() <= found.items()
    assert len(found) == ROWS
    assert not [name for name in store.objects(prefix) if ".next-" in name]


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_a_grid_that_is_gone_or_damaged_in_the_store_is_made_again_and_no_other(store, prefix, log, tmp_path, how):
    options = {"rows": 12, "unit_rows": 6, "grid_format": "npz"}
    export(store.uri(prefix), log, **options)
    before = store.objects(prefix)
    name = sorted(one for one in before if "/grids/" in one)[3]
    content = bytearray(store.read(f"{prefix}/{name}"))
    if how == "gone":
        store.files.delete_file(f"bucket/{prefix}/{name}")
    else:
        content[2000] ^= 8
        store.write(f"{prefix}/{name}", bytes(content[:-5] if how == "cut" else content))
    assert export(store.uri(prefix), log, **options, verify=how == "flipped").ok == 12
    assert len(asked(log)) == 13
    after = store.objects(prefix)
    changed = {one for one in after if "/grids/" in one and before[one] != after[one]}
    assert changed <= {name}
    assert verify_run(download_run(store.uri(prefix), tmp_path / "back").path, progress=False).ok


def test_a_download_leaves_a_folder_with_other_things_alone(store, prefix, log, tmp_path):
    export(store.uri(prefix), log, rows=5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.docx").write_text("all of it")
    with pytest.raises(StorageError, match=r"thesis\.docx"):
        download_run(store.uri(prefix), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.docx"]


def test_another_request_and_foreign_objects_are_refused(store, prefix, log):
    export(store.uri(prefix), log, rows=5)
    with pytest.raises(StorageError, match="different one"):
        export(store.uri(prefix), log, rows=6)
    store.write("elsewhere/thesis.docx", b"all of it")
    with pytest.raises(SpecError, match="other contents"):
        export(store.uri("elsewhere"), log, rows=5)
    assert set(store.objects("elsewhere")) == {"thesis.docx"}


def test_what_is_no_store_or_does_not_answer_is_said_so(store, log, tmp_path):
    with pytest.raises(SpecError, match="s3://, gs://"):
        export("ftp://host/run", log, rows=5)
    with pytest.raises(StorageError, match="Expected the object store"):
        export(store.uri("x").replace("@bucket/", "@nowhere/"), log, rows=5)
    with pytest.raises(SpecError, match="in an object store"):
        download_run(str(tmp_path), tmp_path / "back")
    with pytest.raises(StorageError, match="run"):
        download_run(store.uri("nothing-here"), tmp_path / "back")
    for function in (open_run, compact_run, retry_export, run_status):
        with pytest.raises(SpecError, match="on this machine, got 's3://bucket/run'"):
            function("s3://key:secret@bucket/run")


def test_a_dry_run_counts_the_units_in_the_store(store, prefix, log):
    assert "0 of 4 unit files" in str(export(store.uri(prefix), log, rows=ROWS, dry_run=True))
    assert not store.objects(prefix)
    export(store.uri(prefix), log, rows=ROWS)
    assert "4 of 4 unit files" in str(export(store.uri(prefix), log, rows=ROWS, dry_run=True))


def test_errors_of_a_store_name_no_secret(store, exports, log):
    exports.start(store.uri("x").replace("@bucket/", "@nowhere/"), log, rows=5)
    code, said = exports.wait()
    assert code == ERROR_CODE
    assert "secret" not in said
