"""A licence that is not permissive is accepted before anything is downloaded, and results say so."""

import json
import pickle
from dataclasses import replace

import pytest
from command_line import invoke, refused

from rs_embed import (
    Embedding,
    PointBuffer,
    TemporalSpec,
    describe_model,
    embed_region,
    export_embeddings,
    get_embedding,
    get_embeddings,
    inspect_chip,
    open_run,
    plan_embedding,
    register_model,
    retry_export,
)
from rs_embed.core.specs import BBox
from rs_embed.embedders import catalog
from rs_embed.embedders.card import Weights
from rs_embed.embedders.catalog import CARDS, get_card
from rs_embed.embedders.licences import LICENCES, licence_of, require_known, to_accept
from rs_embed.errors import LicenceNotAccepted, SpecError, WeightsUnreachable
from rs_embed.exports.order import ExportOrder
from rs_embed.exports.request import ExportRequest
from rs_embed.testing import FieldProvider

PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=160)
YEAR = TemporalSpec.year(2022)
ID = "olmoearth-artifact"
ASKING = {card.id for card in CARDS if card.id.startswith(("olmoearth", "dinov3"))}
"""The models of the catalog whose licence must be accepted."""


TERMS = replace(get_card("galileo_1_0_nano"), licence="dinov3", weights=Weights("nobody/none", "a.pt", licence="MIT"))
"""A model with weights on a hub."""


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(catalog, "_REGISTERED", {})


@pytest.fixture
def bound():
    """A model without a download that has the terms of another."""
    card = replace(get_card("mosaiks_rcf"), id="bound", model_key="bound", aliases=(), licence=f"{ID}: terms of Ai2")
    register_model(card)
    return card.id


class Untouched(FieldProvider):
    """Imagery that nobody may ask for."""

    def fetch(self, query):
        raise AssertionError(f"{query} was fetched")


def test_only_models_with_terms_ask():
    assert {card.id for card in CARDS if to_accept(card)} == ASKING
    assert licence_of(get_card("terramind_0_1_base").licence).kind == "unknown"  # its hub asks for itself
    assert {licence_of(card.licence).kind for card in CARDS if card.id not in ASKING} == {"permissive", "unknown"}


def test_every_call_refuses_before_it_asks_for_anything(bound, tmp_path):
    ground = Untouched()
    calls = [
        lambda: plan_embedding(bound, PLACE, YEAR, backend=ground),
        lambda: get_embedding(bound, PLACE, YEAR, backend=ground),
        lambda: get_embeddings(["mosaiks_rcf", bound], [PLACE], YEAR, backend=ground),
        lambda: export_embeddings(bound, [PLACE], tmp_path / "run", temporal=YEAR, backend=ground),
        lambda: embed_region(bound, BBox(12.94, 47.77, 12.95, 47.78), YEAR, tmp_path / "map", backend=ground),
    ]
    for call in calls:
        with pytest.raises(
            LicenceNotAccepted, match=f"Expected accept_licence='{ID}' for bound, got nothing"
        ) as caught:
            call()
        assert caught.value.facts["forbids"] == LICENCES[ID].forbids
        assert f'pass accept_licence="{ID}" or set RS_EMBED_ACCEPT_LICENCE={ID}' in caught.value.fix
    assert not any(tmp_path.iterdir())


def test_another_licence_does_not_count(bound):
    with pytest.raises(LicenceNotAccepted, match="got dinov3"):
        get_embedding(bound, PLACE, YEAR, backend=Untouched(), accept_licence="dinov3")
    with pytest.raises(SpecError, match="Expected the id of a licence, got 'olmoearth'") as caught:
        get_embedding(bound, PLACE, YEAR, backend=Untouched(), accept_licence="olmoearth")
    assert ID in caught.value.fix
    with pytest.raises(SpecError, match="Expected ids of licences, got 3"):
        get_embedding(bound, PLACE, YEAR, backend=Untouched(), accept_licence=3)


@pytest.mark.parametrize("given", [ID, [ID], f"dinov3, {ID}"])
def test_a_result_says_what_was_accepted_also_in_its_file(bound, given, tmp_path):
    plan = plan_embedding(bound, PLACE, YEAR, backend=FieldProvider(), accept_licence=given)
    (made,) = pickle.loads(pickle.dumps(plan)).run()
    for found in (made, Embedding.load(made.save(tmp_path / "one.npz"))):
        assert (found.meta.licence, found.meta.accepted_licence) == (f"{ID}: terms of Ai2", ID)
    free = get_embedding("mosaiks_rcf", PLACE, YEAR, backend=FieldProvider(), accept_licence=given)
    assert free.meta.accepted_licence is None
    assert free.meta.licence == get_card("mosaiks_rcf").licence
    assert made.data.tobytes() == free.data.tobytes()


def test_the_variable_accepts_for_all_calls(bound, monkeypatch):
    monkeypatch.setenv("RS_EMBED_ACCEPT_LICENCE", f"CC-BY-NC-4.0,{ID}")
    found = get_embeddings(bound, [PLACE], YEAR, backend=FieldProvider(), progress=False)
    assert found[0].meta.accepted_licence == ID
    monkeypatch.setenv("RS_EMBED_ACCEPT_LICENCE", "everything")
    with pytest.raises(SpecError, match="got 'everything'"):
        get_embedding(bound, PLACE, YEAR, backend=Untouched())


def test_pixels_may_be_looked_at_and_random_weights_belong_to_nobody(bound):
    assert inspect_chip(bound, PLACE, YEAR, backend=FieldProvider()).chips
    plan_embedding(TERMS, PLACE, YEAR, backend=FieldProvider(), pretrained=False)


def test_a_file_of_the_weights_has_their_licence(tmp_path):
    for given in ({}, {"ckpt": tmp_path / "mine.pt"}):
        with pytest.raises(LicenceNotAccepted, match="dinov3"):
            get_embedding(TERMS, PLACE, YEAR, backend=Untouched(), **given)


def test_the_licence_comes_before_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("RS_EMBED_OFFLINE", "1")
    with pytest.raises(LicenceNotAccepted):
        get_embedding(TERMS, PLACE, YEAR, backend=Untouched())
    with pytest.raises(WeightsUnreachable):
        get_embedding(TERMS, PLACE, YEAR, backend=Untouched(), accept_licence="dinov3")


def test_an_export_keeps_the_consent_for_its_retry_and_its_workers(bound, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(LicenceNotAccepted):
        export_embeddings(bound, [PLACE], run, backend="sample", progress=False)
    export_embeddings(bound, [PLACE], run, backend="sample", progress=False, accept_licence=ID)
    assert retry_export(run, progress=False).ok == 1
    assert json.loads((run / "run.json").read_text())["command"]["accept_licence"] == [ID]
    assert open_run(run).header(bound).extra["accepted_licence"] == ID
    request = ExportRequest(models=bound, backend="sample", accept_licence=ID)
    assert pickle.loads(pickle.dumps(ExportOrder(request, run))).set_up("cpu").jobs


def test_the_command_line_accepts_too(bound, tmp_path):
    words = ("embed", bound, "--backend", "sample", "--lon", 12.94, "--lat", 47.77, "--buffer", 160, "--json")
    refused(invoke(*words), "LicenceNotAccepted", f"--accept-licence {ID} or set RS_EMBED_ACCEPT_LICENCE={ID}")
    assert json.loads(invoke(*words, "--accept-licence", ID).stdout)["accepted_licence"] == ID
    words = (
        "region",
        bound,
        "--bbox",
        12.94,
        47.77,
        12.95,
        47.78,
        tmp_path / "map",
        "--backend",
        "sample",
        "--dry-run",
    )
    refused(invoke(*words), "LicenceNotAccepted")
    assert invoke(*words, "--accept-licence", ID).exit_code == 0


def test_a_card_of_this_package_names_a_known_licence_and_one_of_yours_need_not():
    odd = replace(get_card("mosaiks_rcf"), id="odd", model_key="odd", aliases=(), licence="WTFPL")
    with pytest.raises(SpecError, match="Expected a known licence for odd, got 'WTFPL'"):
        require_known([odd])
    register_model(odd)
    assert describe_model("odd")["licence_class"] == "unknown"
    assert "read it" in licence_of("WTFPL").forbids
    assert get_embedding(odd, PLACE, YEAR, backend=FieldProvider()).meta.accepted_licence is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MIT", "permissive"),
        ("CC-BY-4.0: produced by Google", "permissive"),
        ("Apache-2.0 (filters of others)", "permissive"),
        ("CC-BY-NC-4.0", "non-commercial"),
        ("CC-BY-SA-4.0, share alike", "conditions"),
        ("CC-BY", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_text_of_a_card_begins_with_the_licence(text, kind):
    assert licence_of(text).kind == kind
