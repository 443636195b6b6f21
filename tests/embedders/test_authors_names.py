"""Names and keywords that users bring from the authors' pages mean the same here, or are answered with what does."""

import inspect

import pytest

import rs_embed
from rs_embed import describe_model, list_models, plan_embedding
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.catalog import CARDS, get_card, names_of
from rs_embed.errors import KnobError, UnknownModelError
from rs_embed.providers.earthengine.settings import EarthEngineSettings


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("thor_v1_tiny", "thor_1_0_tiny"),
        ("thor_v1_base", "thor_1_0_base"),
        ("terramind_v1_base", "terramind_1_0_base"),
        ("terramind_v01_base", "terramind_0_1_base"),
        ("anysat_base", "anysat_1_0_base"),
        ("prithvi_eo_v2_300_tl", "prithvi_eo_2_0_300_tl"),
        ("clay_v1_base", "clay_1_0_base"),
        ("dofa_base_patch16_224", "dofa_1_0_base"),
    ],
)
def test_the_authors_name_of_a_model_is_one_of_ours(theirs, ours):
    assert describe_model(theirs)["id"] == ours
    assert list_models(theirs) == [ours]


def test_no_name_means_two_models():
    names = [name for card in CARDS for name in names_of(card)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("terramind_v1_base_tim", "'terramind_v1_base' with tim_modalities=\"LULC\""),
        ("terramind_v1_large_tim", "'terramind_v1_large' with tim_modalities"),
        ("terramind_v1_base_generate", "rs_embed.generate"),
        ("terramind_v1_tokenizer_s2l2a", "rs_embed.generate"),
        ("thor_v1_bse", "did you mean 'thor"),
    ],
)
def test_a_name_of_what_is_no_model_of_its_own_says_how_it_is_asked_for(name, says):
    with pytest.raises(UnknownModelError) as caught:
        describe_model(name)
    assert says in caught.value.fix
    if "with" in says:
        assert get_card(caught.value.fix.split("'")[1]).model_key == name.removesuffix("_tim")


@pytest.mark.parametrize(
    ("model_id", "keyword", "value", "says"),
    [
        ("thor", "ouput", 1, "did you mean 'output'?"),
        ("thor", "bakend", "gee", "did you mean 'backend'?"),
        ("thor", "temporl", 1, "did you mean 'temporal'?"),
        ("thor", "scale", 10, "SensorSpec(collection, bands, scale_m=...)"),
        ("thor", "cloudy_pct", 10, "SensorSpec(collection, bands, cloudy_pct=...)"),
        ("thor", "merge_method", "mean", "group_merge"),
        ("thor", "ground_cover", 2880, "img x scale_m"),
        ("thor", "flash_attn", False, "leave it out"),
        ("thor", "lon", 7, "PointBuffer"),
        ("thor", "checkpoint", "x.pt", 'ckpt="model.pt"'),
        ("thor", "patchsize", 8, "did you mean 'patch_size'?"),
        ("terramind", "patch_size", 16, "fixed"),
        ("terramind", "modalities", ["S2L2A"], 'modality=["S2L2A", "S1GRD"]'),
        ("terramind", "out_indices", [2], "layers="),
        ("anysat", "flash_attn", False, "equals the authors' with flash_attn=False"),
        ("anysat", "scale", 4, "patch_size_m"),
        ("mosaiks", "pooling", "max", "OutputSpec.pooled"),
    ],
)
def test_a_keyword_from_elsewhere_is_answered_with_what_says_the_same(model_id, keyword, value, says):
    with pytest.raises(KnobError, match=f"Expected a known keyword, got '{keyword}'") as caught:
        plan_embedding(model_id, backend="sample", **{keyword: value})
    assert says in caught.value.fix


def test_anysat_s_patch_size_is_the_authors_metres():
    plan = plan_embedding("anysat", backend="sample", patch_size=20)
    assert plan.job.embedder.geometry().patch_px == 2
    assert "another name of patch_size_m" in [knob["effect"] for knob in describe_model("anysat")["knobs"]]


def test_none_keeps_the_modalities_of_terramind_apart_as_the_authors_page_says():
    def merged(**knobs: object) -> str:
        return plan_embedding("terramind", backend="sample", **knobs).job.embedder.knobs_in_force()["merge_method"]

    assert merged() == "mean"
    assert merged(merge_method=None) == merged(merge_method="none") == "none"


def test_none_does_not_silently_average_the_groups_of_thor():
    with pytest.raises(KnobError, match="group_merge to be 'mean', 'sum' or 'concat'"):
        plan_embedding("thor", backend="sample", group_merge=None)


def test_none_of_other_keywords_is_their_default():
    assert plan_embedding("thor", backend="sample", patch_size=None).job.embedder.geometry().patch_px == 16


def test_settings_of_the_library_suggest_no_argument_of_a_call():
    for family in (LibrarySettings, EarthEngineSettings):
        with pytest.raises(KnobError) as caught:
            family.read({"ouput": 1})
        assert "output" not in caught.value.fix


def test_describing_names_the_type_and_the_default_backend():
    kinds = {model_id: describe_model(model_id)["type"] for model_id in list_models()}
    assert [model_id for model_id, kind in kinds.items() if kind == "precomputed"] == ["alphaearth_v1", "tessera_v1_1"]
    assert set(kinds.values()) == {"on-the-fly", "precomputed"}
    default = inspect.signature(rs_embed.get_embedding).parameters["backend"].default
    backends = {model_id: describe_model(model_id)["default_backend"] for model_id in list_models()}
    assert (backends.pop("alphaearth_v1"), backends.pop("tessera_v1_1")) == ("gee-or-published", "published")
    needless = {model_id for model_id in backends if describe_model(model_id)["kind"] == "location"}
    assert {backends.pop(model_id) for model_id in needless} == {"none"}
    assert set(backends.values()) == {default}
