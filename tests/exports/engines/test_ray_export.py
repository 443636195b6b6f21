"""Exports on a cluster: the same files as here, bounded memory, and clear words for what cannot be."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from canary import CANARY, LINK
from doomed import faltering
from echo import CARD as ECHO
from engines_help import table_without_times, vectors
from export_worker import MODEL, LoggedField, asked, export, pairs
from sample_cuts import cut
from store_server import Store

from rs_embed import OutputSpec, PointBuffer, download_run, export_embeddings, open_run, raster_places
from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.core.settings import RaySettings
from rs_embed.errors import EngineError, NoImagery, SpecError, StorageError
from rs_embed.exports.engines.ray.engine import share_out
from rs_embed.exports.engines.ray.limiter import gate
from rs_embed.exports.status import retry_export
from rs_embed.testing import FieldProvider

pytestmark = pytest.mark.slow

ROWS, UNIT_ROWS = 60, 10


@pytest.fixture(scope="module", autouse=True)
def limiter(nodes):
    """Else each run here would start one of its own."""
    return gate()


class Picky(FieldProvider):
    """Has nothing for some places, and says so in an error of the library."""

    def fetch(self, query):
        x, _ = query.geobox.affine @ (0, 0)
        if int(x) % 7 == 0:
            raise NoImagery("Expected scenes, got none.", fix="widen the window", where=f"{x:.0f}")
        return super().fetch(query)


class Careless(Picky):
    """Fails also with a signed link in its words."""

    def fetch(self, query):
        x, _ = query.geobox.affine @ (0, 0)
        if int(x) % 7 == 1:
            raise OSError(f"cannot open {LINK}")
        return super().fetch(query)


def every_other_at_first(key, times):
    return times == 1 and int(key.split()[1]) // 100 % 2 == 0


class Bulk(FieldProvider):
    """Large chips, made in no time."""

    def fetch(self, query):
        bands = bands_of(query.sensor.collection, query.sensor.bands)
        values = np.ones((1, len(bands), *query.geobox.shape), np.float32)
        return Chip(values, bands, query.geobox, (None,), Source(self.name, query.sensor.collection))


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
    assert report.ok == 120  # 240 MB of chips through two stores of 80 MB
    assert not nodes.spilled()


@pytest.mark.parametrize(
    ("asked_for", "cpus", "gpus", "wanted"),
    [
        ({}, 16, 0, (8, 1.0)),  # half of the cores are left for fetching
        ({}, 1, 0, (1, 0.5)),
        ({"worker_cpus": 4.0}, 16, 0, (2, 4.0)),
        ({}, 8, 8, (8, 0.75)),  # as many GPUs as cores
        ({"workers": 2}, 2, 0, (2, 0.75)),
        ({"workers": 3, "worker_cpus": 0.7}, 3, 0, (3, 0.7)),
        ({"workers": 9}, 2, 0, (9, 1.0)),  # more nodes may come
    ],
)
def test_beside_every_worker_there_is_room_to_fetch(asked_for, cpus, gpus, wanted):
    assert share_out(RaySettings.read(asked_for), cpus, gpus) == wanted


def test_a_cluster_that_does_not_answer_is_said_so(nodes, tmp_path):
    with pytest.raises(EngineError, match="this process is connected to the one at"):
        export(tmp_path / "run", tmp_path / "log", engine="ray", address="192.0.2.1:6379")


def test_a_backend_that_cannot_travel_is_refused_before_anything_starts(tmp_path):
    import threading

    backend = FieldProvider()
    backend.lock = threading.Lock()
    with pytest.raises(SpecError, match="can be sent to other machines"):
        export(tmp_path / "run", tmp_path / "log", engine="ray", backend=backend)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"engine": "dask"}, "Expected engine"), ({"address": "auto"}, "Expected no address")],
)
def test_engines_that_cannot_be_meant_are_refused(tmp_path, options, said):
    with pytest.raises(SpecError, match=said):
        export(tmp_path / "run", tmp_path / "log", **options)
    assert not (tmp_path / "run").exists()


def test_without_ray_the_extra_is_named(tmp_path):
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ray" else find(name, *rest)
from rs_embed.exports.engines import check_engine
from rs_embed.errors import MissingDependency
check_engine("local", None)
try:
    check_engine("ray", None)
except MissingDependency as error:
    print(error.fix)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "pip install 'eo-rs-embed[ray]'"


def test_processes_that_only_fetch_load_neither_torch_nor_tables_and_workers_no_pandas():
    code = """
import sys, rs_embed.exports.engines.ray.fetch
print(sorted({"torch", "pyarrow", "geopandas"} & set(sys.modules)))
import rs_embed.exports.engines.ray.worker
print(sorted({"torch", "xarray", "pandas", "geopandas"} & set(sys.modules)))"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["[]", "[]"]


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
