"""What is damaged is noticed, told, and made again; nothing damaged is ever taken over."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_line import invoke
from engines_help import vectors
from export_worker import MODEL, LoggedField, asked, export

from rs_embed import compact_run, open_run, verify_run
from rs_embed.core.atomic import locked
from rs_embed.errors import RSEmbedError, StorageError
from rs_embed.exports.results.run import read
from rs_embed.exports.status import retry_export, run_status

ROWS, UNIT_ROWS = 30, 10


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fails(key: str, times: int) -> bool:
    return int(key[-3:]) % 70 == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Runs of vectors and of grids; some rows of the first have failed."""
    folder = tmp_path_factory.mktemp("made")
    report = export(
        folder / "vectors",
        folder / "log",
        rows=ROWS,
        unit_rows=UNIT_ROWS,
        backend=LoggedField(folder / "log", 0, fails),
    )
    assert 0 < report.failed < ROWS
    for name in ("cog", "zarr"):
        export(folder / name, folder / "log", rows=12, unit_rows=6, grid_format=name)
    return {name: folder / name for name in ("vectors", "cog", "zarr")}


@pytest.fixture
def copy(made, tmp_path) -> Callable[[str], Path]:
    def copied(name: str) -> Path:
        subprocess.run(["cp", "-a", str(made[name]), str(tmp_path / "run")], check=True)
        return tmp_path / "run"

    return copied


def flip(path: Path, at: float = 0.4) -> None:
    """Change one bit of a file, or of the largest file of a folder."""
    if path.is_dir():
        path = max((one for one in path.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1 << 3
    path.write_bytes(content)


def cut(path: Path) -> None:
    if path.is_dir():
        path = max((one for one in path.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)
    path.write_bytes(path.read_bytes()[:-5])


def gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def table_of(run: Path, unit: int = 1) -> Path:
    return run / MODEL / f"units/u{unit:06d}.parquet"


@pytest.mark.slow
def test_a_whole_run_is_whole_finished_or_not(copy, tmp_path):
    report = verify_run(copy("vectors"), progress=False)
    assert report.ok
    assert report.files == 2 + 3 * 2
    assert "are as they were written" in str(report)
    assert invoke("verify", tmp_path / "run").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("harm", [flip, cut, gone])
def test_a_damaged_table_is_told_and_made_again_when_asked_to_verify(copy, tmp_path, harm):
    run, log = copy("vectors"), tmp_path / "log"
    before = vectors(run)
    others = {unit: table_of(run, unit).read_bytes() for unit in (0, 2)}
    harm(table_of(run))
    (damage,) = verify_run(run, progress=False).damaged
    assert (damage.path, damage.unit, damage.rows) == (f"{MODEL}/units/u000001.parquet", "u000001", UNIT_ROWS)
    result = invoke("verify", run)
    assert result.exit_code == 1
    assert f"{MODEL}/units/u000001.parquet: " in result.stdout
    assert "10 rows" in result.stdout
    assert "rs-embed retry RUN --verify" in result.stdout
    found = json.loads(invoke("verify", run, "--json").stdout)
    assert [one["path"] for one in found["damaged"]] == [damage.path]
    report = export(run, log, rows=ROWS, unit_rows=UNIT_ROWS, backend=LoggedField(log, 0, fails), verify=True)
    assert report.failed == ROWS - sum(map(bool, before.values()))
    assert vectors(run) == before
    assert others == {unit: table_of(run, unit).read_bytes() for unit in (0, 2)}
    assert verify_run(run, progress=False).ok


@pytest.mark.slow
def test_a_call_without_verify_notices_what_is_gone_or_cut(copy, tmp_path):
    run, log = copy("vectors"), tmp_path / "log"
    before = vectors(run)
    gone(table_of(run, 0))
    cut(table_of(run, 2))
    export(run, log, rows=ROWS, unit_rows=UNIT_ROWS, backend=LoggedField(log, 0, fails))
    assert vectors(run) == before
    assert verify_run(run, progress=False).ok


@pytest.mark.slow
def test_a_retry_of_failed_rows_never_takes_over_a_damaged_table(copy, tmp_path, caplog):
    run, log = copy("vectors"), tmp_path / "log"
    before = {row: vector for row, vector in vectors(run).items() if vector}
    units = [unit for unit in range(3) if "failed" in pq.read_table(table_of(run, unit))["status"].to_pylist()]
    assert units
    for unit in units:
        flip(table_of(run, unit))
    report = export(run, log, rows=ROWS, unit_rows=UNIT_ROWS)
    assert (report.ok, report.failed) == (ROWS, 0)
    assert "all of its rows will be redone" in caplog.text
    after = vectors(run)
    assert len(asked(log)) == UNIT_ROWS * len(units)
    whole = [row for row in before if row not in np.concatenate([read(table_of(run, u)).table()["row"] for u in units])]
    assert all(after[row] == before[row] for row in whole)
    fresh = export(tmp_path / "whole", log, rows=ROWS, unit_rows=UNIT_ROWS)
    np.testing.assert_allclose(open_run(run).matrix(), fresh.open().matrix(), atol=1e-6)
    assert verify_run(run, progress=False).ok


def test_a_damaged_table_is_an_error_to_every_reader_that_wants_its_vectors(copy):
    run = copy("vectors")
    flip(table_of(run))
    found = open_run(run)
    for look in (found.matrix, found.to_frame, lambda: list(found.embeddings()), lambda: found.similar("0")):
        with pytest.raises(StorageError, match="is damaged"):
            look()
    with pytest.raises(StorageError):
        compact_run(run, progress=False)
    with pytest.raises(StorageError, match="is damaged"):
        read(table_of(run)).matrix()


@pytest.mark.slow
@pytest.mark.parametrize("grid_format", ["cog", "zarr"])
@pytest.mark.parametrize("harm", [flip, cut, gone])
def test_a_grid_that_is_gone_or_damaged_is_made_again_and_the_others_stay(copy, tmp_path, grid_format, harm):
    run, log = copy(grid_format), tmp_path / "log"
    grids = sorted(run.glob(f"{MODEL}/grids/*/0*"))
    whole = {name: open_run(run).grids()[name].to_numpy() for name in open_run(run).grids()}
    harm(grids[2])
    (damage,) = verify_run(run, progress=False).damaged
    assert (damage.path, damage.rows) == (grids[2].relative_to(run).as_posix(), 1)
    with pytest.raises(StorageError):
        open_run(run).grids()[str(int(grids[2].name[:9]))]
    kept = {path: path.stat().st_mtime_ns for path in grids if path != grids[2]}
    report = export(run, log, rows=12, unit_rows=6, grid_format=grid_format, verify=harm is flip)
    assert (report.ok, report.failed) == (12, 0)
    assert len(asked(log)) == 1
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert verify_run(run, progress=False).ok
    again = open_run(run).grids()
    for name, values in whole.items():
        np.testing.assert_allclose(again[name].to_numpy(), values, atol=1e-5)


def test_a_grid_that_cannot_be_made_again_is_a_failed_row_and_no_stale_file(copy, tmp_path):
    run, log = copy("cog"), tmp_path / "log"
    lost = sorted(run.glob(f"{MODEL}/grids/*/0*"))[2]
    cut(lost)
    broken = LoggedField(log, fails=lambda key, times: True)
    report = export(run, log, rows=12, unit_rows=6, grid_format="cog", backend=broken)
    assert (report.ok, report.failed) == (11, 1)
    assert not lost.exists()
    (failure,) = open_run(run).failures().itertuples()
    assert failure.row == int(lost.name[:9])
    assert verify_run(run, progress=False).ok
    assert export(run, log, rows=12, unit_rows=6, grid_format="cog").ok == 12


@pytest.mark.parametrize("seed", range(6))
def test_a_flip_anywhere_in_a_record_is_noticed_and_its_unit_made_again(copy, tmp_path, seed):
    run, log = copy("vectors"), tmp_path / "log"
    before = vectors(run)
    flip(run / MODEL / "records/u000001.json", random.Random(seed).random())
    (damage,) = verify_run(run, progress=False).damaged
    assert (damage.path, damage.found) == (f"{MODEL}/records/u000001.json", "damaged")
    export(run, log, rows=ROWS, unit_rows=UNIT_ROWS, backend=LoggedField(log, 0, fails))
    assert vectors(run) == before
    assert verify_run(run, progress=False).ok


@pytest.mark.parametrize("harm", [flip, cut, gone])
def test_a_damaged_table_of_places_is_told_and_written_again_by_the_same_call(copy, tmp_path, harm):
    run, log = copy("vectors"), tmp_path / "log"
    harm(run / "places.npz")
    (damage,) = verify_run(run, progress=False).damaged
    assert damage.path == "places.npz"
    assert "with its table" in damage.fix
    if harm is not gone:
        with pytest.raises(RSEmbedError):
            retry_export(run, progress=False)
    flaky = LoggedField(log, 0, fails)
    export(run, log, rows=ROWS, unit_rows=UNIT_ROWS, backend=flaky, verify=harm is flip)
    assert verify_run(run, progress=False).ok


@pytest.mark.parametrize("seed", range(6))
def test_a_flip_anywhere_in_the_manifest_is_a_typed_error(copy, tmp_path, seed):
    run = copy("vectors")
    flip(run / "run.json", random.Random(seed).random())
    for look in (verify_run, run_status, retry_export):
        with pytest.raises(RSEmbedError, match="Expected"):
            look(run)
    assert invoke("verify", run).exit_code == 1


def test_merged_files_are_compared_too_and_may_stand_in_for_the_tables_of_units(copy, tmp_path):
    run = copy("vectors")
    compact_run(run, progress=False)
    assert verify_run(run, progress=False).ok
    part = run / "compact" / MODEL / "parts/part-000000.parquet"
    whole = part.read_bytes()
    for unit in range(3):  # as the page on exports allows
        table_of(run, unit).rename(tmp_path / f"{unit}.parquet")
    assert verify_run(run, progress=False).ok
    flip(part)
    assert not verify_run(run, progress=False).ok
    for unit in range(3):
        (tmp_path / f"{unit}.parquet").rename(table_of(run, unit))
    (damage,) = verify_run(run, progress=False).damaged
    assert "rs-embed compact RUN --verify" in damage.fix
    assert compact_run(run, progress=False).written == 0  # the size is as it was
    assert compact_run(run, progress=False, verify=True).written == 1
    assert part.read_bytes() == whole
    assert verify_run(run, progress=False).ok


def test_a_run_that_is_being_written_is_not_compared(copy):
    run = copy("vectors")
    with locked(run), pytest.raises(StorageError, match="nobody writes to"):
        verify_run(run, progress=False)


def test_kept_chips_are_compared_with_the_checksums_inside(tmp_path):
    run = tmp_path / "run"
    export(run, tmp_path / "log", rows=3, save_inputs=True)
    assert verify_run(run, progress=False).ok
    flip(next(run.glob("inputs/*/*.npz")), 0.5)
    (damage,) = verify_run(run, progress=False).damaged
    assert damage.path.startswith("inputs/")
