"""Large places are fetched only as far ahead as the encoder needs."""

import threading
import time

import numpy as np
import pytest
import torch
from echo import CARD, SENSOR, EchoEmbedder

from rs_embed import PointBuffer, TemporalSpec
from rs_embed.core.settings import LibrarySettings, ModelKnobs
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.base import ModelRequest, NetworkCache
from rs_embed.pipeline.pace import Pace
from rs_embed.pipeline.plan import Job, Workload, plan_items
from rs_embed.pipeline.run import run_together
from rs_embed.testing import FieldProvider

pytestmark = pytest.mark.slow

YEAR = TemporalSpec.year(2022)
PLACES = [PointBuffer(12.0 + i / 100, 47.0, 480) for i in range(6)]


class Slow(FieldProvider):
    """Takes so long for each chip, and counts them."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.begun, self.lock = seconds, 0, threading.Lock()

    def fetch(self, query):
        with self.lock:
            self.begun += 1
        time.sleep(self.seconds)
        return super().fetch(query)


def ran(provider: Slow, encode_s: float, *, sparing: bool, memory_gb: float = 4.0) -> tuple[list, list[int]]:
    """The vectors, and how many places were fetched or being fetched before each of them was done."""
    knobs = ModelKnobs.read({"fetch_workers": 8})
    embedder = EchoEmbedder(
        ModelRequest(CARD, knobs, ((CARD.modalities[0], SENSOR),)), torch.device("cpu"), NetworkCache()
    )
    items = plan_items(Job(embedder, provider, OutputSpec.pooled(), "crop"), PLACES, [YEAR] * len(PLACES))
    settings = LibrarySettings.read().model_copy(update={"memory_gb": memory_gb})
    vectors, ahead = [], []
    for _, (result,) in run_together([Workload(items.job, items.items)], settings=settings, sparing=sparing):
        time.sleep(encode_s)  # the next one is not encoded before
        ahead.append(provider.begun - len(vectors))
        vectors.append(result.data)
    return vectors, ahead


def test_beside_the_place_that_is_encoded_one_is_fetched_if_that_is_enough():
    vectors, ahead = ran(Slow(0.0), 0.15, sparing=True)
    assert max(ahead) == 2
    others, before = ran(Slow(0.0), 0.15, sparing=False)
    assert max(before) == 6
    np.testing.assert_array_equal(vectors, others)


def test_the_slower_the_archive_the_more_are_fetched_at_the_same_time_as_memory_allows():
    _, ahead = ran(Slow(0.4), 0.0, sparing=True)
    assert 2 < max(ahead) <= 6
    chip_bytes = 96 * 96 * len(SENSOR.bands) * 4
    _, ahead = ran(Slow(0.4), 0.0, sparing=True, memory_gb=3 * 2.5 * chip_bytes / 1e9)
    assert max(ahead) == 2


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (2, 2), (8, 2)])
def test_before_anything_was_measured_two_are_asked_for_or_what_memory_allows(most, expected):
    assert Pace(most).ahead == expected


def test_a_place_that_fails_to_prepare_raises_its_error():
    with pytest.raises(ZeroDivisionError):
        Pace(4).prepare(lambda: 1 / 0)
