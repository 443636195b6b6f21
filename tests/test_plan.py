"""A plan is plain data: it asks no provider, pickles, prints, runs, and knows itself again."""

import inspect
import pickle

import numpy as np
import pytest

import rs_embed
from rs_embed import (
    EmbeddingRequest,
    OutputSpec,
    Plan,
    PointBuffer,
    TemporalSpec,
    get_embedding,
    get_embeddings,
    plan_embedding,
)
from rs_embed.core import settings
from rs_embed.embedding.batch import Failure
from rs_embed.errors import InputError, SpecError
from rs_embed.testing import FieldProvider

PLACE, YEAR = PointBuffer(12.94, 47.77, 320), TemporalSpec.year(2017)


class Unasked(FieldProvider):
    """Answers nobody."""

    def identity(self):
        raise AssertionError("asked who it is")

    def require(self, modality, sensor):
        raise AssertionError("asked what it has")

    def native_geobox(self, query):
        raise AssertionError("asked where it is")


@pytest.mark.parametrize("place", [PLACE, None])
def test_planning_asks_no_provider(place):
    plan = plan_embedding("mosaiks_rcf", place, backend=Unasked())
    assert "mosaiks_rcf: 1 item," in str(plan)


@pytest.mark.parametrize("backend", ["gee", "stac", "auto", "missing.tif"])
def test_planning_opens_no_backend(backend):
    assert plan_embedding("mosaiks_rcf", PLACE, YEAR, backend=backend).request.backend == backend


def test_planning_reads_the_environment_once(monkeypatch):
    read = []
    variables = settings.set_variables
    plan_embedding("mosaiks_rcf", PLACE)  # what is loaded by now is not counted
    monkeypatch.setattr(settings, "set_variables", lambda: (read.append(1), variables())[1])
    plan_embedding("mosaiks_rcf", PLACE)
    per_family = len(read)
    read.clear()
    settings.LibrarySettings.read()
    assert per_family == len(read)  # one family: the knobs


def test_knobs_in_force_are_those_of_the_planning(monkeypatch):
    monkeypatch.setenv("RS_EMBED_MOSAIKS_FETCH_WORKERS", "3")
    plan = plan_embedding("mosaiks_rcf", PLACE, backend="sample")
    monkeypatch.delenv("RS_EMBED_MOSAIKS_FETCH_WORKERS")
    assert pickle.loads(pickle.dumps(plan)).job.request.knobs.fetch_workers == 3


def test_a_plan_that_travelled_gives_the_same_numbers_as_the_call():
    plan = pickle.loads(pickle.dumps(plan_embedding("mosaiks_rcf", PLACE, backend="sample", output=OutputSpec.grid())))
    (found,) = plan.run()
    direct = get_embedding("mosaiks_rcf", PLACE, backend="sample", output=OutputSpec.grid())
    np.testing.assert_array_equal(found.data, direct.data)
    assert found.meta.fingerprint == direct.meta.fingerprint


def test_a_request_of_many_places_runs_as_get_embeddings_does_failures_among_them():
    request = EmbeddingRequest(model_id="mosaiks_rcf", backend="sample")
    places = [(12.94, 47.77), (20.0, 47.8), (12.95, 47.78)]
    results = list(Plan.of(request, places, buffer_m=160).run())
    assert [isinstance(one, Failure) for one in results] == [False, True, False]
    kept = get_embeddings("mosaiks_rcf", places, buffer_m=160, backend="sample", on_error="keep", progress=False)
    np.testing.assert_array_equal(results[2].data, kept[2].data)


def test_without_a_place_everything_there_is_is_run():
    plan = plan_embedding("mosaiks_rcf", backend="sample")
    assert "everything there is" in str(plan) and plan.items[0].queries[0].geobox is None
    (found,) = plan.run()
    assert found.geobox is not None


def test_equal_plans_have_one_fingerprint_and_others_another():
    def fingerprint(**changed):
        return plan_embedding(
            **{"model_id": "thor_1_0_tiny", "spatial": PLACE, "backend": "sample"} | changed
        ).fingerprint()

    first = fingerprint()
    assert fingerprint(fetch_workers=3) == first
    others = [
        {"spatial": PointBuffer(12.94, 47.77, 640)},
        {"temporal": YEAR},
        {"patch_size": 8},
        {"ckpt": "mine.pt"},
        {"backend": "gee"},
        {"precision": "bf16"},
        {"output": OutputSpec.grid()},
        {"model_id": "thor_1_0_small"},
    ]
    assert len({first, *(fingerprint(**one) for one in others)}) == len(others) + 1


def test_a_fingerprint_loads_no_weights():
    plan = plan_embedding("thor_1_0_base", PLACE, backend="sample", ckpt="missing.pt")
    assert len(plan.fingerprint()) == 64


@pytest.mark.parametrize("backend", ["geee", 3, FieldProvider])
def test_what_is_no_backend_is_refused_by_the_plan(backend):
    with pytest.raises(SpecError, match="Expected a backend"):
        plan_embedding("mosaiks_rcf", PLACE, backend=backend)


def test_dates_that_a_series_lacks_are_missed_by_the_plan():
    with pytest.raises(InputError, match="date of each frame"):
        plan_embedding("anysat", PLACE, input_chw=np.zeros((10, 64, 64), np.float32), modality="s2")


@pytest.mark.parametrize("name", ["get_embedding", "plan_embedding", "get_embeddings", "export_embeddings"])
def test_help_shows_every_option(name):
    shown = inspect.signature(vars(rs_embed).get(name) or getattr(rs_embed, name)).parameters
    shared = {field for field in EmbeddingRequest.model_fields if field not in ("model_id", "knobs")}
    assert shared <= set(shown) and "knobs" in shown
