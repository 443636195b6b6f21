"""What the engines refuse before they start, and what processes of a cluster load and share out: without a cluster."""

import subprocess
import sys
import threading

import pytest
from export_worker import export

from rs_embed.core.settings import RaySettings
from rs_embed.errors import SpecError
from rs_embed.exports.engines.ray.engine import share_out
from rs_embed.testing import FieldProvider

pytestmark = pytest.mark.slow


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


def test_a_backend_that_cannot_travel_is_refused_before_anything_starts(tmp_path):
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
