"""Exports on a cluster: the same files as here, bounded memory, and clear words for what cannot be."""

import shutil

import numpy as np
import pytest
import xarray as xr
from canary import CANARY
from doomed import faltering
from echo import CARD as ECHO
from engines_help import table_without_times, vectors
from export_worker import MODEL, LoggedField, asked, export, pairs
from fields import Bulk, Careless, Picky, every_other_at_first
from gee_server import PLACES, EarthEngineServer, default_world, faults
from sample_cuts import cut
from store_server import Store

from rs_embed import (
    EarthEngine,
    OutputSpec,
    PointBuffer,
    TemporalSpec,
    download_run,
    export_embeddings,
    open_run,
    raster_places,
    verify_run,
)
from rs_embed.errors import EngineError, NoImagery, StorageError
from rs_embed.exports.engines.ray.limiter import gate
from rs_embed.exports.status import retry_export
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.testing import FieldProvider

pytestmark = pytest.mark.slow

ROWS, UNIT_ROWS = 60, 10
LON, LAT = PLACES["toulouse"]
SUMMER = TemporalSpec.range("2022-06-01", "2022-07-01")


@pytest.fixture(scope="module", autouse=True)
def limiter(nodes):
    """Else each run here would start one of its own."""
    return gate()


def test_a_cluster_writes_what_this_process_writes_and_either_goes_on_with_the_other_s_run(
    nodes, tmp_path, monkeypatch
):
    here, there, log = tmp_path / "here", tmp_path / "there", tmp_path / "log"
    local = export(here, log, rows=ROWS, unit_rows=UNIT_ROWS)
    with monkeypatch.context() as changed:
        changed.setenv("RS_EMBED_RAY_WORKERS", "2")  # on all cores: they must not wait for chips for ever
        far = export(there, log, rows=ROWS, unit_rows=UNIT_ROWS, engine="ray")
    assert (far.ok, far.failed) == (local.ok, local.failed) == (ROWS, 0)
    assert vectors(there) == vectors(here)
    names = [{str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} for run in (here, there)]
    assert names[0] == names[1]
    for unit in sorted(here.glob(f"{MODEL}/units/*.parquet")):
        assert table_without_times(unit) == table_without_times(there / unit.relative_to(here))
    before = len(asked(log))
    for run, engine in ((here, "ray"), (there, "local")):
        for name in ("units/u000002.parquet", "records/u000002.json"):
            (run / MODEL / name).unlink()
        kept = (run / MODEL / "units/u000000.parquet").stat().st_mtime_ns
        assert export(run, log, rows=ROWS, unit_rows=UNIT_ROWS, engine=engine).ok == ROWS
        assert (run / MODEL / "units/u000000.parquet").stat().st_mtime_ns == kept
    assert len(asked(log)) == before + 2 * UNIT_ROWS
    assert vectors(there) == vectors(here)


def test_rows_that_fail_models_inputs_and_grids_come_out_alike_and_no_secret_that_an_error_quotes_comes_out(
    nodes, tmp_path, capfd, caplog
):
    places = [*(PointBuffer(lon, lat, 120) for lon, lat in pairs(20)), PointBuffer(12.6, 47, 2)]
    models = {MODEL: {"patch_size": 4}, "thor_1_0_tiny": {"pretrained": False}}
    found = []
    for engine in ("local", "ray"):
        run = tmp_path / engine
        report = export_embeddings(models, places, run, backend=Careless(), unit_rows=8, input_prep="tile",
                                   device="cpu", save_inputs=True, output=OutputSpec.grid(), format="npz",
                                   engine=engine, progress=False)  # fmt: skip
        frame = open_run(run).to_frame(MODEL, columns=["id", "row", "status", "stage", "error"]).fillna("")
        files = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
        inputs = {path: data for path, data in files.items() if path.parts[0] == "inputs"}
        grids = {
            name: {key: grid.values.tobytes() for key, grid in open_run(run).grids(name).items()} for name in models
        }
        found.append((report.ok, report.failed, frame.to_dict("records"), set(files), inputs, grids))
        assert frame["error"].str.contains("cannot open").any()
        said = caplog.text + "".join(capfd.readouterr()) + str(report) + frame["error"].str.cat()
        assert CANARY not in said
        assert not [path for path, data in files.items() if CANARY.encode() in data]
    assert inputs and all(grids.values())
    assert {"fetch", "plan"} < set(frame["stage"])
    assert frame["error"].str.contains("got none").any()
    assert found[0] == found[1]


def test_shared_reads_come_out_alike_in_an_object_store(nodes, tmp_path):
    places = [PointBuffer(15 + 0.001 * (i % 8), 47 + 0.001 * (i // 8), 120) for i in range(40)]
    options = {"places": places, "buffer_m": None, "share_reads": True}
    store = Store()
    try:
        for name, engine, out in (("here", "local", tmp_path / "here"), ("there", "ray", store.uri("run"))):
            log = tmp_path / f"{name}.log"
            backend = LoggedField(log, fails=every_other_at_first)
            assert export(out, log, backend=backend, engine=engine, **options).failed > 0
            assert len(asked(log)) < 40
            assert export(out, log, backend=backend, engine=engine, **options).ok == 40
        back = download_run(store.uri("run"), tmp_path / "back")
    finally:
        store.close()
    assert vectors(back.path) == vectors(tmp_path / "here")
    assert sorted(asked(tmp_path / "here.log")) == sorted(asked(tmp_path / "there.log"))


def test_the_first_error_stops_a_run_on_a_cluster_that_is_told_so(nodes, tmp_path):
    with pytest.raises(NoImagery, match="got none") as caught:
        export(tmp_path / "run", tmp_path / "log", backend=Picky(), engine="ray", on_error="raise")
    assert "widen the window" in str(caught.value)


def test_a_disk_that_refuses_is_one_storage_error_also_from_a_cluster(nodes, tmp_path):
    run = tmp_path / "run"
    export(run, tmp_path / "log", rows=20)
    for folder in ("units", "records"):
        shutil.rmtree(run / MODEL / folder)
    (run / MODEL / "units").write_text("in the way")
    with pytest.raises(StorageError, match="Expected to write to"):
        export(run, tmp_path / "log", rows=20, engine="ray")


def test_a_unit_over_which_all_workers_die_is_kept_as_failed_rows_and_the_others_are_done(nodes, tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_RAY_TRIES", "2")
    options = {"models": faltering(tmp_path / "starts"), "engine": "ray", "backend": FieldProvider()}
    report = export(tmp_path / "run", tmp_path / "log", rows=40, **options)
    assert (report.ok, report.failed) == (30, 10)
    # It dies over its unit, at the next start, over its unit, at the next start: two in a row would be the end.
    assert (tmp_path / "starts").read_text() == "....."
    frame = report.open().to_frame()
    assert sorted(frame["row"]) == list(range(40))
    failed = frame[frame["status"] == "failed"]
    assert set(failed["stage"]) == {"worker"}
    assert failed["error"].str.contains("2 workers died while running it").all()


def test_chips_on_their_way_never_fill_the_object_stores(nodes, tmp_path):
    options = {"rows": 120, "unit_rows": 60, "buffer_m": 2500, "models": ECHO, "backend": Bulk(), "engine": "ray"}
    report = export(tmp_path / "run", tmp_path / "log", **options)
    assert report.ok == 120  # 240 MB of chips through two stores of 80 MB, each of which spills when it is 80 % full
    assert not nodes.spilled()


def test_a_cluster_that_does_not_answer_is_said_so(nodes, tmp_path):
    with pytest.raises(EngineError, match="this process is connected to the one at"):
        export(tmp_path / "run", tmp_path / "log", engine="ray", address="192.0.2.1:6379")


def test_relative_paths_lead_workers_where_they_lead_here(nodes, tmp_path, monkeypatch):
    for name, col in (("east", 96), ("west", 0)):
        cut(tmp_path / f"tiles/{name}.tif", col, 0)
    monkeypatch.chdir(tmp_path)  # workers were started elsewhere
    for engine in ("local", "ray"):
        options = {"places": raster_places("tiles/*.tif"), "buffer_m": None, "backend": "tiles/*.tif"}
        assert export(tmp_path / engine, tmp_path / "log", engine=engine, **options).ok == 2
    assert vectors(tmp_path / "ray") == vectors(tmp_path / "local")
    (tmp_path / "local" / MODEL / "records/u000000.json").unlink()
    (tmp_path / "local" / MODEL / "units/u000000.parquet").unlink()
    monkeypatch.chdir(tmp_path.parent)
    assert retry_export(tmp_path / "local", progress=False).ok == 2


def test_a_cluster_makes_the_map_that_this_process_makes(nodes, tmp_path):
    for name, options in (("here", {}), ("there", {"engine": "ray"})):
        export(tmp_path / name, tmp_path / f"{name}.log", map_of_m=1600, **options)
    here, there = (
        xr.open_zarr(next((tmp_path / name).glob("*/map.zarr")), consolidated=False, chunks=None)
        for name in ("here", "there")
    )
    np.testing.assert_array_equal(there.embedding.values, here.embedding.values)
    assert np.isfinite(here.embedding.values).any()
    assert sorted(asked(tmp_path / "here.log")) == sorted(asked(tmp_path / "there.log"))
    assert verify_run(tmp_path / "there", progress=False).ok


def earth_engine(server: EarthEngineServer) -> EarthEngine:
    waits = Waits(Backoff(first_s=0.02, longest_s=0.1))
    return EarthEngine(host=server.url, project="test-project", credentials="none", concurrency=3, waits=waits)


def test_a_cluster_asks_earth_engine_for_no_more_at_once_than_one_process_may(nodes, tmp_path):
    places = [PointBuffer(LON + 0.002 * i, LAT, 160) for i in range(16)]
    options = {"temporal": SUMMER, "unit_rows": 8, "device": "cpu", "progress": False}
    with EarthEngineServer(default_world(), latency_s=0.1) as server:
        backend = earth_engine(server)
        assert export_embeddings("mosaiks_rcf", places, tmp_path / "here", backend=backend, **options).ok == 16
        server.script.queue.append(faults.quota(times=2))
        backend = earth_engine(server)
        report = export_embeddings("mosaiks_rcf", places, tmp_path / "there", backend=backend, engine="ray", **options)
        assert report.ok == 16
        assert server.high_water <= 3
    assert vectors(tmp_path / "here") == vectors(tmp_path / "there")
