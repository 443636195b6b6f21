"""A model, a backend and a collection of the user's run on a cluster, whether installed or registered."""

from dataclasses import replace

import numpy as np
import pytest
from plugins import TINY_PATCHES, install

from rs_embed import (
    Band,
    Collection,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    export_embeddings,
    open_run,
    register_collection,
    register_model,
)
from rs_embed.core.bands import Unit
from rs_embed.embedders import catalog
from rs_embed.testing import FieldProvider, hills

pytestmark = pytest.mark.slow


PLACES = [PointBuffer(lon=7 + i / 50, lat=51, buffer_m=320) for i in range(4)]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Installed where the nodes look, which inherit the search path: asked for before them."""
    with pytest.MonkeyPatch.context() as changed:
        changed.syspath_prepend(install(TINY_PATCHES, tmp_path_factory.mktemp("installed") / "site"))
        yield


def test_a_package_s_model_and_backend_run_on_a_cluster_by_name(package, nodes, tmp_path):
    both_engines_agree("tiny", "stripes", tmp_path)


@pytest.fixture
def model_of_a_notebook(monkeypatch):
    """The package's model, defined in `__main__` and registered, on a collection of the user's."""
    monkeypatch.setattr(catalog, "_REGISTERED", {})
    cells = {"__name__": "__main__"}
    for name in ("__init__", "adapter"):
        text = (TINY_PATCHES / "tiny_patches" / f"{name}.py").read_text("utf-8")
        text = text.replace("from tiny_patches import TinyKnobs", "")
        assert "import tiny_patches" not in text and "from tiny_patches" not in text  # which the nodes have
        exec(text, cells)
    bands = tuple(Band(name, unit=Unit.DN, gsd_m=10) for name in ("B4", "B3", "B2"))
    register_collection(Collection("MINE/RGB", bands=bands))
    card = cells["CARD"]
    modality = replace(card.modalities[0], sensor=SensorSpec("MINE/RGB", ("B4", "B3", "B2")))
    names = {"id": "mine", "aliases": (), "model_key": "mine"}
    register_model(replace(card, **names, adapter=cells["TinyEmbedder"], modalities=(modality,)))


def test_what_a_notebook_registered_runs_on_a_cluster_by_name(package, nodes, model_of_a_notebook, tmp_path):
    both_engines_agree("mine", FieldProvider(hills), tmp_path)


def both_engines_agree(model, backend, folder):
    call = {"temporal": TemporalSpec.year(2022), "backend": backend, "progress": False, "pretrained": False}
    for engine in ("ray", "local"):
        report = export_embeddings(model, PLACES, folder / engine, unit_rows=2, engine=engine, **call)
        assert (report.ok, report.failed) == (4, 0)
    far, here = (open_run(folder / engine).matrix() for engine in ("ray", "local"))
    np.testing.assert_array_equal(far, here)
