"""How many inputs go through the network at once: memory decides, and what comes out does not depend on it."""

import logging
import os

import numpy as np
import pytest
import torch
import warm
from echo import CARD, SENSOR, EchoEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import card_of

from rs_embed import PointBuffer, TemporalSpec, get_embeddings, plan_embedding
from rs_embed.core.settings import ModelKnobs
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.base import ModelInput, ModelRequest, NetworkCache
from rs_embed.errors import Failure, OutOfMemory
from rs_embed.pipeline.batching import BATCH_CPU, FIRST_BATCH, LARGEST_BATCH, BatchSizes, CudaMemory, memory_of
from rs_embed.pipeline.plan import Job, Workload, plan_items
from rs_embed.pipeline.run import run_together
from rs_embed.testing import FieldProvider

CPU = torch.device("cpu")
YEAR = TemporalSpec.year(2022)


class Model:
    """A device of so many bytes, on which a batch takes a fixed part and so much an input."""

    def __init__(self, total: float, each: float, fixed: float = 0.0) -> None:
        self.total, self.each, self.fixed = total, each, fixed
        self.peak = self.released = 0

    def free_bytes(self) -> int:
        return int(self.total)

    def begin(self) -> None:
        self.peak = 0

    def peak_bytes(self) -> int:
        return int(self.peak)

    def release(self) -> None:
        self.released += 1

    def take(self, count: int) -> None:
        wanted = self.fixed + count * self.each
        if wanted > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is.\nMore lines.")
        self.peak = max(self.peak, wanted)


class Metered(EchoEmbedder):
    """An echo that takes memory, and knows its batches."""

    def __init__(self, model: Model) -> None:
        super().__init__(ModelRequest(CARD, ModelKnobs.read(), ((CARD.modalities[0], SENSOR),)), CPU, NetworkCache())
        self.model, self.batches = model, []

    def encode(self, batch: ModelInput):
        count = len(batch.tensors["image"])
        self.batches.append(count)
        self.model.take(count)
        return super().encode(batch)


def plan_of(embedder: EchoEmbedder, count: int) -> Workload:
    places = [PointBuffer(lon=12.0 + i / 100, lat=47.0, buffer_m=480) for i in range(count)]
    return plan_items(Job(embedder, FieldProvider(), OutputSpec.pooled(), "crop"), places, [YEAR] * count)


def results_of(model: Model, count: int, *, measured: bool = True) -> tuple[list, Metered]:
    embedder = Metered(model)
    ran = run_together([plan_of(embedder, count)], (lambda device: model) if measured else memory_of)
    return [result for _, (result,) in ran], embedder


def test_after_a_first_batch_as_many_go_together_as_memory_holds():
    results, embedder = results_of(Model(total=4096, each=80), 100)
    # 4096 * 0.8 / 80 = 40.96, of which the power of two below is 32.
    assert embedder.batches == [FIRST_BATCH, 32, 32, 28]
    assert not any(isinstance(one, Failure) for one in results)


@pytest.mark.slow
def test_what_every_batch_takes_anyway_counts_less_once_a_larger_batch_was_seen():
    _, embedder = results_of(Model(total=10_000, each=50, fixed=1600), 260)
    # A first batch of 8 looks like 250 bytes an input, one of 32 like 100, one of 64 like 75.
    assert embedder.batches[:4] == [8, 32, 64, 64]


def test_a_batch_that_does_not_fit_is_halved_and_no_later_one_is_larger():
    model = Model(total=300, each=100)
    results, embedder = results_of(model, 7)
    assert embedder.batches == [7, 3, 2, 2]  # 3 did fit, but 300 bytes are more than four fifths of what there is
    assert not any(isinstance(one, Failure) for one in results)
    assert model.released == 1


def test_numbers_do_not_depend_on_the_batch_or_on_halving():
    plenty, _ = results_of(Model(1e9, 1), 20)
    little, embedder = results_of(Model(250, 100), 20)
    assert len(set(embedder.batches)) > 1
    for one, other in zip(plenty, little, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        assert one.meta.spatial == other.meta.spatial


def test_an_input_that_does_not_fit_alone_fails_by_itself_and_says_what_helps():
    results, embedder = results_of(Model(total=99, each=100), 3)
    assert embedder.batches[-3:] == [1, 1, 1]
    for index, failure in enumerate(results):
        assert isinstance(failure, Failure)
        assert (failure.index, failure.stage) == (index, "encode")
        assert isinstance(failure.error, OutOfMemory)
        assert str(failure.error).startswith("Expected memory to encode 1 input(s) of echo at once, got too little")
        assert "CUDA out of memory. Tried" in str(failure.error)
        assert "More lines" not in str(failure.error)
        assert 'input_prep="tile"' in str(failure.error)
        assert failure.error.__context__ is None  # a traceback would keep the tensors of the batch


def test_on_the_cpu_the_declared_number_holds_and_is_halved_too():
    assert memory_of(CPU) is None
    _, embedder = results_of(Model(1e9, 1), 10, measured=False)
    assert embedder.batches == [BATCH_CPU, BATCH_CPU, 2]
    _, embedder = results_of(Model(250, 100), 10, measured=False)
    assert embedder.batches == [4, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("measured", [True, False])
def test_a_batch_set_by_hand_is_kept_to_until_it_does_not_fit(monkeypatch, measured):
    monkeypatch.setenv("RS_EMBED_BATCH", "5")
    assert results_of(Model(1e9, 1), 12, measured=measured)[1].batches == [5, 5, 2]
    assert results_of(Model(350, 100), 12, measured=measured)[1].batches[:3] == [5, 2, 2]


@pytest.mark.slow
def test_a_batch_set_by_hand_changes_no_number_of_a_real_network(monkeypatch):
    places = [PointBuffer(lon=12.94 + i / 50, lat=47.77, buffer_m=720) for i in range(5)]

    def vectors():
        return get_embeddings(
            "thor_1_0_tiny", places, YEAR, backend=FieldProvider(), pretrained=False, input_prep="crop"
        )

    plain = vectors()
    monkeypatch.setenv("RS_EMBED_BATCH", "1")
    for one, other in zip(plain, vectors(), strict=True):
        np.testing.assert_allclose(one.data, other.data, atol=2e-5)
        assert one.meta.fingerprint == other.meta.fingerprint


def test_two_models_that_share_imagery_have_batches_of_their_own():
    roomy, tight = Metered(Model(1e9, 1)), Metered(Model(250, 100))
    memories = iter([roomy.model, tight.model])
    ran = list(run_together([plan_of(roomy, 12), plan_of(tight, 12)], lambda device: next(memories)))
    assert [index for index, _ in ran] == list(range(12))
    assert not any(isinstance(one, Failure) for _, both in ran for one in both)
    assert max(tight.batches[3:]) == 2 < max(roomy.batches)


def test_errors_that_are_not_of_memory_stay_what_they_are():
    class Broken(Metered):
        def encode(self, batch):
            raise RuntimeError("shapes do not fit")

    ((_, (result,)),) = run_together([plan_of(Broken(Model(1, 1)), 1)])
    assert isinstance(result.error, RuntimeError)
    assert str(result.error) == "shapes do not fit"


def test_the_allocator_of_the_cpu_is_understood_too():
    class Greedy(Metered):
        def encode(self, batch):
            return torch.empty(10**15)

    ((_, (result,)),) = run_together([plan_of(Greedy(Model(1, 1)), 1)])
    assert isinstance(result.error, OutOfMemory)
    assert "DefaultCPUAllocator" in str(result.error)


SHORT_OF_MEMORY = """
import logging, os, resource, warnings
import torch
from rs_embed import PointBuffer, TemporalSpec, get_embeddings
from rs_embed.testing import FieldProvider

logging.basicConfig(format="%(message)s")
warnings.simplefilter("ignore")
torch.set_num_threads(1)

def vectors(count):
    places = [PointBuffer(lon=12.94 + i / 50, lat=47.77, buffer_m=640) for i in range(count)]
    year = TemporalSpec.year(2022)
    options = {"pretrained": False, "fetch_workers": 1, "device": "cpu"}
    options |= {"input_prep": "crop", "img": 96, "patch_size": 4}
    return get_embeddings("thor_1_0_tiny", places, year, backend=FieldProvider(), **options)

(alone,) = vectors(1)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * os.sysconf("SC_PAGE_SIZE") + 150_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
many = vectors(32)
print(len(many), float(abs(many[0].data - alone.data).max()))
"""


@pytest.mark.slow
def test_a_process_that_may_take_no_more_memory_goes_on_with_smaller_batches():
    done = warm.run(SHORT_OF_MEMORY, env=os.environ | {"RS_EMBED_BATCH": "32"})
    assert done.returncode == 0, done.stderr
    assert "inputs did not fit into memory; continuing with" in done.stderr
    count, apart = done.stdout.split()
    assert int(count) == 32
    assert float(apart) < 2e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_of_which_little_may_be_used_goes_on_with_smaller_batches(monkeypatch, caplog):
    monkeypatch.setenv("RS_EMBED_BATCH", "256")
    places = [PointBuffer(lon=12.94 + i / 50, lat=47.77, buffer_m=640) for i in range(256)]
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with caplog.at_level(logging.WARNING):
            many = get_embeddings(
                "thor_1_0_base", places, YEAR, backend=FieldProvider(), pretrained=False, device="cuda"
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "256 inputs did not fit" in caplog.text
    assert len(many) == 256


@settings(deadline=None)
@given(total=st.integers(1, 10**12), each=st.integers(1, 10**9), fixed=st.integers(0, 10**9))
def test_a_size_is_a_power_of_two_that_fits_what_was_measured(total, each, fixed):
    model = Model(total, each, fixed)
    sizes = BatchSizes(model)
    assert sizes.of("a") == sizes.goal == FIRST_BATCH
    with sizes.measured("a", FIRST_BATCH):
        model.peak = fixed + FIRST_BATCH * each
    size = sizes.of("a")
    assert 1 <= size <= LARGEST_BATCH
    assert size & (size - 1) == 0
    assert size < FIRST_BATCH or fixed + size * each <= total
    assert sizes.of("b") == FIRST_BATCH


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_tells_what_is_free_and_what_was_taken():
    memory = CudaMemory(torch.device("cuda"))
    before = memory.free_bytes()
    memory.begin()
    block = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    assert memory.peak_bytes() >= 64 << 20
    assert memory.free_bytes() <= before - (64 << 20) + (2 << 20)
    del block
    memory.release()
    assert memory.free_bytes() >= before - (2 << 20)


@pytest.mark.parametrize("model_id", ["thor_1_0_tiny", "terramind_1_0_tiny", "anysat_tiny", "mosaiks_rcf"])
@pytest.mark.slow
def test_every_model_takes_several_chips_at_once_and_gives_each_what_it_gives_it_alone(model_id, monkeypatch):
    class Counting(Model):
        batches = 0

        def begin(self) -> None:
            self.batches += 1

    random = {} if model_id == "mosaiks_rcf" else {"pretrained": False}
    frames = {"frames": 2} if model_id == "anysat_tiny" else {}
    places = [PointBuffer(lon=12.94 + i / 50, lat=47.77, buffer_m=320) for i in range(FIRST_BATCH)]
    options = {"input_prep": "crop", "output": OutputSpec.grid()} | random | frames
    job = plan_embedding(card_of(model_id), places[0], YEAR, backend=FieldProvider(), **options).job
    plan = plan_items(job, places, [YEAR] * len(places))
    memory = Counting(1e9, 1)
    together = [result for _, (result,) in run_together([plan], lambda device: memory)]
    assert memory.batches == 1
    monkeypatch.setenv("RS_EMBED_BATCH", "1")
    alone = [result for _, (result,) in run_together([plan], lambda device: memory)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.data, other.data, atol=2e-5)
    assert np.abs(together[0].data - together[1].data).max() > 1e-4
