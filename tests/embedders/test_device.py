"""On another device: torch's fake tensors have one, without hardware. Shapes, types and places are real, numbers not.

A fake tensor on "cuda" refuses to meet one on the CPU, and to tell its values, which is where a GPU would have to wait.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from echo import CARD, SENSOR, EchoEmbedder
from tiny import card_of
from torch._subclasses.fake_tensor import FakeTensorMode

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding, get_embeddings, plan_embedding
from rs_embed.core.settings import LibrarySettings, ModelKnobs
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, NetworkCache
from rs_embed.embedders.prepare.framing import frame_chip
from rs_embed.embedders.runtime.device import beside_the_network, placed, to_host
from rs_embed.encoders.anysat import attention as anysat_attention
from rs_embed.encoders.thor import patchify as thor_patchify
from rs_embed.pipeline.plan import Job, plan_items
from rs_embed.pipeline.run import run
from rs_embed.testing import FieldProvider

GPU = torch.device("cuda", 0)
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=640)
YEAR = TemporalSpec.year(2022)
CALLS = [
    ("thor_1_0_tiny", {}),
    ("thor_1_0_tiny", {"modality": "s2+s1", "input_prep": "crop"}),
    ("terramind_1_0_tiny", {}),
    ("terramind_1_0_tiny", {"modality": "S2L2A+DEM", "layers": [1, 3]}),
    ("anysat_tiny", {"frames": 2}),
    ("anysat_tiny", {"frames": 2, "modality": "s2+s1-asc", "output": OutputSpec.grid("dense")}),
    ("mosaiks_rcf", {}),
]


def ready(model_id: str, options: dict) -> tuple[Embedder, Job, dict, object]:
    """The adapter for a GPU, and chips that it is to prepare."""
    random = {} if model_id == "mosaiks_rcf" else {"pretrained": False}
    plan = plan_embedding(card_of(model_id), PLACE, YEAR, backend=FieldProvider(), **random, **options)
    here = plan.job.embedder
    chips = {query.modality: plan.job.provider.fetch(query) for query in plan.items[0].queries}
    first, _ = here.request.inputs[0]
    rows, cols = (px // first.grid_px for px in chips[first.name].shape_px)
    frame = frame_chip((rows, cols), plan.job.prep, here.geometry())
    there = type(here)(here.request, GPU, NetworkCache())
    there.network = here.build(here.request, LibrarySettings.read())  # one of its own, to be changed
    return there, plan.job, chips, frame


def move(module: torch.nn.Module) -> None:
    """To the fake GPU; `Module.to` cannot turn a real parameter into a fake one."""
    for part in module.modules():
        for name, tensor in part.named_parameters(recurse=False):
            there = torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)
            part.register_parameter(name, torch.nn.Parameter(there, requires_grad=False))
        for name, tensor in part.named_buffers(recurse=False):
            part.register_buffer(name, torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU))


@pytest.fixture
def fake():
    """Fake tensors; the constants that encoders keep for the whole process must not be among them."""
    kept = (anysat_attention.positions, anysat_attention.relative_index, thor_patchify._resize_matrix)
    for constants in kept:
        constants.cache_clear()
    yield FakeTensorMode()
    for constants in kept:
        constants.cache_clear()


@contextmanager
def half_precision():
    """Autocast as on a GPU; `torch.autocast` itself turns it off where there is none."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor:UserWarning")  # by which casts are kept
@pytest.mark.parametrize(("model_id", "options"), CALLS)
def test_pixels_are_prepared_and_encoded_where_the_network_is(model_id, options, fake):
    embedder, job, chips, frame = ready(model_id, options)
    here = job.embedder.prepare(chips, frame)
    with fake:
        with GPU:
            inputs = embedder.prepare(chips, frame)
        assert [one.signature for one in inputs] == [one.signature for one in here]
        on_gpu = {name for name, tensor in inputs[0].tensors.items() if tensor.device == GPU}
        assert on_gpu >= {name for name, tensor in inputs[0].tensors.items() if tensor.ndim >= 3}
        move(embedder.network.module)
        batch = ModelInput.stack([inputs[0]] * 3)
        tokens = embedder.run(batch)
        with torch.inference_mode(), half_precision():
            halved = embedder.encode(batch.to(GPU))
    assert (tokens.values.device.type, tokens.values.dtype) == ("cpu", torch.float32)
    assert tokens.values.shape[:2] == (3, tokens.layout.prefix + sum(g.height * g.width for g in tokens.layout.grids))
    assert halved.values.shape == tokens.values.shape
    assert halved.values.device == GPU


def test_here_nothing_is_copied_on_the_way_in_or_out():
    values = np.ones((2, 3), np.float32)
    with beside_the_network(torch.device("cpu")):
        assert placed(values).data_ptr() == values.ctypes.data
    tokens = torch.ones(2, 3)
    assert to_host(tokens) is tokens
    assert to_host(tokens.bfloat16()).dtype == torch.float32


@pytest.mark.slow
def test_inputs_that_were_made_in_other_places_come_together():
    with FakeTensorMode():
        there, here = (ModelInput({"image": torch.empty(2, 3, device=device)}) for device in (GPU, "cpu"))
        assert ModelInput.stack([there, here]).tensors["image"].device == GPU
        assert there.signature == here.signature


def test_a_device_without_room_for_inputs_leaves_them_on_the_host():
    class Full(EchoEmbedder):
        asked = 0

        def prepare(self, chips, frame):
            self.asked += 1
            if self.asked == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().prepare(chips, frame)

    request = ModelRequest(CARD, ModelKnobs.read(), ((CARD.modalities[0], SENSOR),))
    full = Full(request, torch.device("cpu"), NetworkCache())
    ((_, result),) = run(plan_items(Job(full, FieldProvider(), OutputSpec.pooled(), "crop"), [PLACE], [YEAR]))
    assert np.isfinite(result.data).all()
    assert full.asked == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")
@pytest.mark.parametrize(("model_id", "options"), CALLS)
def test_a_gpu_gives_the_numbers_of_the_cpu(model_id, options):
    random = {} if model_id == "mosaiks_rcf" else {"pretrained": False}
    call = {"spatial": PLACE, "temporal": YEAR, "backend": FieldProvider()} | random | options
    here, there = (get_embedding(card_of(model_id), **call, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.data, here.data, atol=2e-3)
    assert there.meta.device.startswith("cuda")
    assert there.meta.fingerprint == here.meta.fingerprint


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("prep", ["resize", "tile"])
@pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")
def test_many_threads_that_prepare_beside_the_network_mix_nothing_up(prep):
    places = [PointBuffer(lon=12.94 + i / 50, lat=47.77, buffer_m=640 + 160 * (i % 3)) for i in range(60)]
    call = {"temporal": YEAR, "backend": FieldProvider(), "pretrained": False, "input_prep": prep, "fetch_workers": 16}
    here, there = (get_embeddings("terramind_1_0_tiny", places, device=device, **call) for device in ("cpu", "cuda"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other.data, one.data, atol=2e-3)
