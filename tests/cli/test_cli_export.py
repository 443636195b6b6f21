"""The commands around long jobs, with the bundled scene."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import warm
from command_line import SCENE, invoke, misused, refused
from engines_help import until
from sample_cuts import cut

from rs_embed import open_run
from rs_embed.core.atomic import locked
from rs_embed.testing import FieldProvider


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plots(tmp_path) -> Path:
    """Six places on the sample scene, and one far from it."""
    path = tmp_path / "plots.csv"
    lon = [12.930, 12.935, 12.940, 12.945, 12.950, 12.955, 20.0]
    pd.DataFrame({"id": list("abcdefg"), "lon": lon, "lat": 47.77, "side": 100}).to_csv(path, index=False)
    return path


def export(plots: Path, *words: str | Path):
    return invoke(
        "export", "mosaiks_rcf", plots, plots.parent / "run", "--backend", "sample", "--buffer", "100", *words
    )


def similar(run, *words):
    """The rows that the command finds, by id."""
    found = json.loads(invoke("similar", run, "--id", "b", "--json", *words).stdout)
    return sorted(found, key=lambda one: one["id"])


@pytest.mark.parametrize("command", ["export", "status", "retry", "verify", "compact", "index", "similar"])
def test_help_says_how_and_gives_examples(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"rs-embed {command} " in result.stdout


def test_a_dry_run_prints_the_plan_and_writes_nothing(plots):
    result = export(plots, "--dry-run")
    assert result.exit_code == 0
    assert "7 rows in 1 units" in result.stdout
    assert "7 chips via sample" in result.stdout
    assert not (plots.parent / "run").exists()


def test_the_command_fails_if_all_rows_did_but_keeps_why(plots):
    pd.DataFrame({"lon": [20.0, 21.0], "lat": 47.77}).to_csv(plots, index=False)
    assert export(plots).exit_code == 1
    assert open_run(plots.parent / "run").to_frame()["stage"].tolist() == ["fetch", "fetch"]


@pytest.mark.slow
def test_export_status_retry_and_similar_work_on_one_folder(plots):
    run = plots.parent / "run"
    result = export(plots, "--year", "2017", "--unit-rows", "3")
    assert result.exit_code == 0, result.stderr
    assert "6 embeddings in" in result.stdout
    assert "1 failed" in result.stdout

    assert f"To see why rows failed: rs-embed status {run}" in result.stderr

    result = invoke("status", run)
    assert "mosaiks_rcf" in result.stdout
    assert "mosaiks_rcf: 1 failed at fetch: OutsideCoverage: Expected imagery at" in result.stdout
    assert "3 of 3" in result.stdout
    assert f"rs-embed retry {run}" in result.stderr
    (facts,) = json.loads(invoke("status", run, "--json").stdout)["models"]
    assert (facts["rows"], facts["ok"], facts["failed"], facts["finished"]) == (7, 6, 1, 3)

    again = json.loads(invoke("retry", run, "--json").stdout)
    assert (again["ok"], again["failed"]) == (6, 1)

    result = invoke("similar", run, "--id", "b", "--top", "2")
    assert result.exit_code == 0
    assert len(result.stdout.strip().splitlines()) == 4
    found = json.loads(invoke("similar", run, "--id", "b", "--json").stdout)
    assert sorted(one["id"] for one in found) == ["a", "c", "d", "e", "f"]
    refused(invoke("similar", run, "--id", "g"), "SpecError", "'g'")
    for index in (False, True):
        if index:
            assert "6 vectors" in invoke("index", run).stdout
        assert [one["id"] for one in similar(run, "--where", "side=100", "--within", "12.93,47,12.946,48")] == [*"acd"]
        assert [one["id"] for one in similar(run, "--where", "id=a,f", "--exact")] == [*"af"]
        assert [one["id"] for one in similar(run, "--where", "center_lon=12.944..")] == [*"def"]
    assert json.loads(invoke("index", run, "--json").stdout)["rows"] == 6
    misused(invoke("similar", run, "--id", "b", "--where", "side"), "COLUMN=VALUE")


def test_retry_finishes_what_was_not_finished(plots):
    run = plots.parent / "run"
    export(plots, "--unit-rows", "3")
    (run / "mosaiks_rcf/records/u000001.json").unlink()
    (run / "mosaiks_rcf/units/u000001.parquet").unlink()
    (facts,) = json.loads(invoke("status", run, "--json").stdout)["models"]
    assert facts["finished"] == 2
    plots.unlink()  # the places are in the folder
    result = invoke("retry", run)
    assert "6 embeddings in" in result.stdout


@pytest.mark.slow
def test_a_stop_by_hand_says_how_to_go_on_and_is_told_by_the_exit_code(plots):
    places = [f"p{i},{12.93 + 0.00001 * i},47.77" for i in range(2000)]
    plots.write_text("\n".join(["id,lon,lat", *places]))
    run = plots.parent / "run"
    words = ["export", "mosaiks_rcf", str(plots), str(run), "--backend=sample", "--buffer=100"]  # one unit
    code = "from rs_embed.cli.main import main; main()"
    with warm.start(code, *words, env=os.environ | {"RS_EMBED_CHECKPOINT_S": "0"}) as process:
        until(lambda: list(run.glob("*/records/u*.json")))
        process.send_signal(signal.SIGINT)
        done = process.finish()
    assert done.returncode == 130
    (facts,) = json.loads(invoke("status", run, "--json").stdout)["models"]
    assert f"stopped; {facts['ok']:,} embeddings are stored in {run}; run the same command to continue" in done.stderr
    assert "Traceback" not in done.stderr
    assert (facts["finished"], facts["units"], facts["rows"]) == (0, 1, 2000)
    assert 0 < facts["ok"] < 2000


@pytest.mark.slow
def test_chips_are_kept_where_asked_also_by_a_retry(plots):
    inputs = plots.parent / "run" / "inputs"
    assert export(plots, "--save-inputs").exit_code == 0
    kept = list(inputs.rglob("*.npz"))
    assert len(kept) == 6
    kept[0].unlink()
    (plots.parent / "run/mosaiks_rcf/records/u000000.json").unlink()
    (plots.parent / "run/mosaiks_rcf/units/u000000.parquet").unlink()
    assert invoke("retry", plots.parent / "run").exit_code == 0
    assert sorted(inputs.rglob("*.npz")) == sorted(kept)


def test_retry_rebuilds_sensors_outputs_and_paths(plots):
    from rs_embed import OutputSpec, export_embeddings
    from rs_embed.embedders.catalog import get_card

    run = plots.parent / "run"
    sensor = get_card("mosaiks_rcf").modalities[0].sensor
    given = {"sensor": {"s2_12": sensor}, "output": OutputSpec.grid(), "format": "npz", "patch_size": 4}
    export_embeddings({"mosaiks": {}}, plots, run, backend=SCENE, buffer_m=100, progress=False, **given)
    result = invoke("retry", run)
    assert result.exit_code == 0, result.stderr
    assert "6 embeddings in" in result.stdout


def test_retry_of_a_run_over_an_object_says_that_it_cannot_be_rebuilt(plots):
    from rs_embed import export_embeddings

    run = plots.parent / "run"
    export_embeddings("mosaiks_rcf", plots, run, backend=FieldProvider(), buffer_m=100, progress=False)
    refused(invoke("retry", run), "SpecError", "its backend was given as an object", "call export_embeddings again")


def test_status_tells_who_is_writing(plots):
    run = plots.parent / "run"
    export(plots)
    with locked(run):
        assert "being written by process" in invoke("status", run).stderr
        refused(export(plots), "StorageError", "in use")


def test_grids_columns_and_knobs_can_be_chosen(plots):
    words = ("--buffer", "side", "--output", "grid", "--format", "npz", "--set", "patch_size=4", "--id-column", "id")
    result = export(plots, *words, "--json")
    assert json.loads(result.stdout)["ok"] == 6
    assert len(list((plots.parent / "run").rglob("*.npz"))) == 7  # and the places


def test_a_finished_run_is_compacted(plots):
    export(plots, "--unit-rows", "2")
    run = plots.parent / "run"
    assert "7 rows in 1 files" in invoke("compact", run).stdout
    facts = json.loads(invoke("compact", run, "--json").stdout)
    assert (facts["rows"], facts["partitions"], facts["written"]) == (7, 1, 0)
    refused(invoke("compact", plots.parent / "nothing"), "StorageError", "no run.json")


def test_an_engine_that_cannot_be_meant_is_refused(plots):
    misused(export(plots, "--engine", "dask"), "dask")
    refused(export(plots, "--address", "auto"), "SpecError", "Expected no address", "--engine ray")
    export(plots)
    refused(invoke("retry", plots.parent / "run", "--address", "auto"), "SpecError", "Expected no address")


def test_a_folder_of_rasters_is_embedded_a_row_a_file(tmp_path):
    for name in ("east", "west"):
        cut(tmp_path / f"{name}.tif", 0 if name == "west" else 96, 0)
    pattern, run = str(tmp_path / "*.tif"), tmp_path / "run"
    result = invoke("export", "mosaiks_rcf", "--rasters", pattern, run)
    assert result.exit_code == 0, result.stderr
    assert "2 embeddings in" in result.stdout
    assert sorted(open_run(run).to_frame()["id"]) == ["east", "west"]
    unread = invoke("export", "mosaiks_rcf", "--rasters", pattern, f"{run}2", "--bands", "B2,B3")
    assert unread.exit_code == 1 and "BandMismatch" in unread.output
    misused(
        invoke("export", "mosaiks_rcf", "--rasters", pattern, run, "--year", "2017"), "leave out the options of a TABLE"
    )
    misused(invoke("export", "mosaiks_rcf", "plots.csv", run, "--offset", "-1000"), "describe --rasters")
    misused(invoke("export", "mosaiks_rcf", "plots.csv"), "give TABLE and RUN, or --rasters and RUN")
    misused(invoke("export", "mosaiks_rcf", "plots.csv", run, "--rasters", pattern), "give TABLE and RUN, or --rasters")


def test_a_changed_knob_is_refused_with_both_values(plots):
    export(plots)
    refused(export(plots, "--set", "patch_size=4"), "StorageError", "patch_size: 8 -> 4")


def test_what_is_no_run_is_refused(tmp_path):
    for words in (("status",), ("retry",), ("similar", "--id", "a")):
        refused(invoke(words[0], tmp_path, *words[1:]), "StorageError", str(tmp_path))


def test_options_that_make_no_sense_are_usage_errors(plots):
    misused(export(plots, "--year", "2020", "--start", "2020-01-01", "--end", "2020-02-01"), "give either --year or")
    refused(export(plots, "--format", "csv"), "SpecError", "geoparquet", "'csv'")
    refused(export(plots, "--output", "grid", "--format", "csv"), "SpecError", "cog, zarr, netcdf, npz", "'csv'")


def test_a_table_that_cannot_be_read_names_its_rows(plots):
    plots.write_text("id,lon,lat\na,12.9,47.7\nb,12.9,97.7\n")
    refused(export(plots), "SpecError", "row 1 (id 'b')", "97.7")


@pytest.mark.slow
def test_help_of_all_commands_imports_nothing_heavy():
    code = (
        "import sys\nfrom rs_embed.cli.main import app\n"
        "try: app(['export', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'rasterio', 'pandas', 'geopandas', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
