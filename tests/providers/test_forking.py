"""Processes forked after a first call, as the workers of a DataLoader: what they ask is answered, not waited for."""

import warnings

import numpy as np
import pytest
import torch
import warm
from earth import QUICK, SUMMER
from gee_server import PLACES, EarthEngineServer, default_world
from stac_server import serving
from torch.utils.data import DataLoader, Dataset

import rs_embed
from rs_embed import PointBuffer, get_embedding
from rs_embed.providers.base import Provider
from rs_embed.testing import FieldProvider

PATIENCE_S = 120
"""A worker that answers nothing for so long hangs."""


class Embedded(Dataset):
    """An embedding for each index, made by who is asked for it."""

    def __init__(self, backend: Provider | str, model: str = "mosaiks_rcf", **options: object) -> None:
        self.backend, self.model, self.options = backend, model, options

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> np.ndarray:
        lon, lat = PLACES["toulouse"]
        place = PointBuffer(lon + 0.001 * index, lat, 320)
        return get_embedding(self.model, place, SUMMER, backend=self.backend, **self.options).data


def workers_agree(dataset: Embedded) -> None:
    """What the parent says, after it, two workers say, too."""
    here = [dataset[index] for index in range(len(dataset))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # that is what is tried
        loader = DataLoader(dataset, batch_size=None, num_workers=2, timeout=PATIENCE_S, multiprocessing_context="fork")
        there = list(loader)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def site():
    with serving() as server:
        yield server.site("earth-search", applied=True)


@pytest.mark.alone
def test_a_provider_without_connections_works_in_workers():
    workers_agree(Embedded(FieldProvider()))


@pytest.mark.alone
def test_stac_works_in_workers_after_it_was_used_here(site):
    workers_agree(Embedded(rs_embed.Stac(site.catalog, timeout_s=20, waits=QUICK)))


@pytest.mark.alone
def test_earth_engine_works_in_workers_after_it_was_used_here():
    with EarthEngineServer(default_world()) as server:
        backend = rs_embed.EarthEngine(host=server.url, project="test-project", credentials="none", waits=QUICK)
        workers_agree(Embedded(backend))


@pytest.mark.alone
def test_the_bundled_scene_and_local_files_work_in_workers(tmp_path):
    class Here(Embedded):
        def __getitem__(self, index: int) -> np.ndarray:
            place = PointBuffer(12.94 + 0.0005 * index, 47.77, 320)
            return get_embedding("mosaiks_rcf", place, backend=self.backend).data

    workers_agree(Here("sample"))


@pytest.mark.alone
def test_chips_kept_on_disk_are_shared_with_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("RS_EMBED_CHIP_CACHE", str(tmp_path))
    workers_agree(Embedded(FieldProvider()))
    assert list(tmp_path.glob("*/*.npz"))


@pytest.mark.alone
def test_a_transformer_runs_in_workers_after_it_ran_here_on_several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        options = {"pretrained": False, "input_prep": "tile"}
        workers_agree(Embedded(FieldProvider(), "thor_1_0_tiny", **options))
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_transformer_runs_in_a_process_that_somebody_else_forked():
    code = """
import os, sys, time, torch, warnings
warnings.simplefilter("ignore")
torch.set_num_threads(2)
from rs_embed import get_embedding
ask = lambda: get_embedding("thor_1_0_tiny", backend="sample", pretrained=False, input_prep="tile")
ask()
child = os.fork()
if child == 0:
    ask()
    os._exit(7)
deadline = time.monotonic() + float(sys.argv[1])
while (found := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
    time.sleep(0.1)
if found[0] == 0:
    os.kill(child, 9)
sys.exit(os.waitstatus_to_exitcode(found[1]) if found[0] else "the child hangs")
"""
    done = warm.run(code, str(PATIENCE_S))
    assert done.returncode == 7, done.stderr
