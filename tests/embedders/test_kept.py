"""Networks are kept for the next call, and let go when that is asked for."""

import weakref
from dataclasses import replace

import pytest
import torch
from echo import CARD as ECHO
from torch import nn

from rs_embed import PointBuffer, get_embedding, plan_embedding, release_models
from rs_embed.embedders.runtime.kept import KeptNetworks
from rs_embed.testing import FieldProvider

CALL = {"spatial": PointBuffer(lon=7, lat=51, buffer_m=1440), "backend": FieldProvider(), "pretrained": False}


def thor() -> weakref.ref[nn.Module]:
    return weakref.ref(plan_embedding("thor_1_0_tiny", **CALL).job.embedder.network.module)


@pytest.mark.slow
def test_a_network_is_kept_until_it_is_released():
    release_models()
    network = thor()
    get_embedding("thor_1_0_tiny", **CALL)
    assert network() is thor()()
    assert release_models() == 1
    assert network() is None
    assert release_models() == 0


@pytest.mark.slow
def test_what_still_runs_keeps_its_network_until_it_is_done():
    job = plan_embedding("thor_1_0_tiny", **CALL).job
    network = weakref.ref(job.embedder.network.module)
    release_models()
    assert network() is not None
    del job
    release_models()
    assert network() is None


@pytest.mark.slow
def test_networks_of_every_kind_are_released_such_as_those_of_a_generation():
    decoders: KeptNetworks[nn.Module] = KeptNetworks(2)
    decoder = weakref.ref(decoders.get("LULC", lambda: nn.Linear(2, 2)))
    thor()
    assert decoder() is not None
    assert release_models() >= 2
    assert decoder() is None


@pytest.mark.slow
def test_a_gpu_that_was_used_gets_its_memory_back(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    release_models()
    assert not emptied
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    release_models()
    assert emptied


def test_cards_of_one_id_but_another_shape_do_not_share_a_network():
    pair = [
        plan_embedding(replace(ECHO, arch=arch), CALL["spatial"], backend=FieldProvider()) for arch in ({}, {"dim": 3})
    ]
    first, second = (plan.job.embedder.network for plan in pair)
    assert first is not second


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_no_network_stays_on_the_gpu():
    before = torch.cuda.memory_allocated()
    get_embedding("thor_1_0_tiny", **CALL, device="cuda")
    assert torch.cuda.memory_allocated() > before
    release_models()
    assert torch.cuda.memory_allocated() <= before
