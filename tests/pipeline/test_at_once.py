"""Chips of one place are fetched at the same time, each once, with the errors of one after another."""

import threading
import time

import numpy as np
import pytest
from earth import earth_engine, routes
from gee_server import PLACES, EarthEngineServer, default_world
from test_absent import EAST, WEST, YEAR, Apart, Radar, card, embed

from rs_embed import PointBuffer, export_embeddings, get_embedding, get_embeddings, inspect_chip
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import NoImagery, ReadError

LON, LAT = PLACES["toulouse"]


class Meeting(Radar):
    """Answers nobody until so many have asked."""

    def __init__(self, parties: int, **options):
        super().__init__(**options)
        self.barrier = threading.Barrier(parties, timeout=20)

    def fetch(self, query):
        self.barrier.wait()
        return super().fetch(query)


def test_the_modalities_of_a_place_are_fetched_at_the_same_time():
    provider = Meeting(2)
    np.testing.assert_allclose(embed(EAST, provider).data, [700, 1, -9, 1])
    assert sorted(query.modality for query in provider.queries) == ["s1", "s2"]
    assert list(inspect_chip(card(), EAST, YEAR, Meeting(2), modality="s2+s1").chips) == ["s2", "s1"]


def test_in_a_batch_no_more_chips_than_workers_are_fetched_at_the_same_time():
    class Counting(Radar):
        lock, inside, most = threading.Lock(), 0, 0

        def fetch(self, query):
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            time.sleep(0.02)
            try:
                return super().fetch(query)
            finally:
                with self.lock:
                    self.inside -= 1

    for workers in (1, 3):
        provider = Counting()
        call = {"backend": provider, "modality": "s2+s1", "progress": False, "fetch_workers": workers}
        found = get_embeddings(card(), [EAST, WEST] * 4, YEAR, **call)
        np.testing.assert_allclose(np.stack([one.data for one in found])[:, 3], [1, 0] * 4)
        assert provider.most == workers and len(provider.queries) == 16


class Faulty(Radar):
    """Both modalities fail, each in its own way; the first is the slower one."""

    def fetch(self, query):
        if query.modality == "s1":
            raise ReadError("Expected radar, got half of it.", fix="try again")
        time.sleep(0.1)
        raise NoImagery("Expected optical scenes, got none.", fix="widen the window")


def test_of_several_errors_the_first_in_the_order_of_the_request_is_raised():
    with pytest.raises(NoImagery, match="optical"):
        embed(EAST, Faulty(), card=card(s2=False))
    with pytest.raises(ReadError, match="radar"):
        embed(EAST, Faulty())  # s2 may be absent, so the error of s1 counts


def test_a_chip_that_two_models_share_is_fetched_once_though_the_first_model_fails(tmp_path):
    provider = Meeting(2)
    done = export_embeddings(
        [card(s1=False), card(Apart)], [WEST], tmp_path, temporal=YEAR, backend=provider, modality="s2+s1",
        share_reads=False, progress=False,
    )  # fmt: skip
    assert done.failed == 1
    assert sorted(query.modality for query in provider.queries) == ["s1", "s2"]


def test_earth_engine_is_asked_for_two_modalities_at_the_same_time_and_as_often():
    place, june = PointBuffer(LON, LAT, 160), TemporalSpec.range("2022-06-01", "2022-07-01")
    with EarthEngineServer(default_world(), latency_s=0.3) as server:
        both = {"backend": earth_engine(server), "pretrained": False, "input_prep": "crop"}
        get_embedding("terramind_1_0_tiny", place, june, modality="S2L2A+S1GRD", **both)
        assert sorted(routes(server)) == ["pixels", "pixels", "value", "value"]
        assert server.high_water == 2
