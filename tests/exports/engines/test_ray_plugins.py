"""A model and a backend that a package brings run on a cluster: its processes find them by themselves."""

import numpy as np
import pytest
from engines_help import Nodes
from plugins import TINY_PATCHES, install

from rs_embed import PointBuffer, TemporalSpec, export_embeddings, open_run

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster_with_the_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(install(TINY_PATCHES, tmp_path / "site"))  # the nodes inherit the search path
    nodes = Nodes()
    yield nodes
    nodes.close()


def test_a_package_s_model_and_backend_run_on_a_cluster_by_name(cluster_with_the_package, tmp_path):
    places = [PointBuffer(lon=7 + i / 50, lat=51, buffer_m=320) for i in range(4)]
    call = {"temporal": TemporalSpec.year(2022), "backend": "stripes", "progress": False, "pretrained": False}
    for engine in ("ray", "local"):
        report = export_embeddings("tiny", places, tmp_path / engine, unit_rows=2, engine=engine, **call)
        assert (report.ok, report.failed) == (4, 0)
    far, here = (open_run(tmp_path / engine).matrix() for engine in ("ray", "local"))
    np.testing.assert_array_equal(far, here)
