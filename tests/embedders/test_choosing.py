"""Models are found by what they take, by licence, by what they need and by the size of their download."""

import json

import pytest
from command_line import invoke, refused

from rs_embed import describe_model, list_models
from rs_embed.embedders.catalog import CARDS, get_card
from rs_embed.embedders.choosing import download_mb, download_text, megabytes, sensors_of
from rs_embed.errors import SpecError


def test_filters_can_be_combined_and_sorted():
    found = list_models(sensor="s2", licence="permissive", no_extra=True, max_mb=100, sort="size")
    assert found[:3] == ["mosaiks_rcf", "presto_1_0", "galileo_1_0_nano"]
    cards = [get_card(model_id) for model_id in found]
    assert [card for card in cards if card.extra or "S2" not in sensors_of(card)] == []
    sizes = [download_mb(card)[0] for card in cards]
    assert sizes == sorted(sizes) and sizes[-1] <= 100
    others = set(list_models(sensor="s2")) - set(found)
    assert {"terramind_0_1_base", "thor_1_0_base", "clay_1_0_base"} <= others  # licence, size, extra


@pytest.mark.parametrize(
    ("sensor", "some", "none_of"),
    [
        ("Sentinel-1", "galileo_1_0_nano", "clay_1_0_base"),
        ("landsat", "prithvi_eo_2_0_300", "thor_1_0_base"),
        ("L8", "anysat_1_0_base", "mosaiks_rcf"),
        ("location", "geoclip_location", "presto_1_0"),
        ("alphaearth", "alphaearth_v1", "presto_1_0"),
    ],
)
def test_a_sensor_has_several_names(sensor, some, none_of):
    found = list_models(sensor=sensor)
    assert some in found and none_of not in found


def test_a_licence_is_a_class_or_an_id():
    assert set(list_models(licence="unknown")) == {"terramind_0_1_base"}
    assert set(list_models(licence="MIT")) < set(list_models(licence="permissive"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sensor": "s4"}, "Expected a sensor, got 's4'"),
        ({"licence": "free"}, "a class or the id of a licence, got 'free'"),
        ({"max_mb": 0}, "max_mb"),
        ({"sort": "beauty"}, "sort"),
    ],
)
def test_an_unknown_filter_is_refused(given, said):
    with pytest.raises(SpecError, match=said):
        list_models(**given)


def test_a_size_that_is_not_known_is_called_an_estimate():
    assert download_text(get_card("galileo_1_0_nano")) == "4.2 MB"
    assert download_text(get_card("thor_1_0_large")) == "~1.3 GB"
    texts = {name: download_text(get_card(name)) for name in ("mosaiks_rcf", "geoclip_location", "alphaearth_v1")}
    assert texts == {"mosaiks_rcf": "bundled", "geoclip_location": "package", "alphaearth_v1": "none"}
    facts = describe_model("thor_1_0_large")
    assert (facts["download_mb"], facts["download_known"]) == (1256, False)


@pytest.mark.parametrize(("text", "mb"), [("100M", 100), ("1.5 GB", 1500), ("800k", 0.8), ("30", 30)])
def test_sizes_are_read_as_people_write_them(text, mb):
    assert megabytes(text) == pytest.approx(mb)


def test_the_command_line_has_the_same_filters():
    words = ("--sensor", "s2", "--licence", "permissive", "--no-extra", "--max-size", "100M", "--sort", "size")
    found = json.loads(invoke("models", *words, "--json").stdout)
    assert [one["id"] for one in found] == list_models(
        sensor="s2", licence="permissive", no_extra=True, max_mb=100, sort="size"
    )
    refused(invoke("models", "--max-size", "small"), "SpecError", "Expected a size")
    refused(invoke("models", "--sensor", "s22"), "SpecError", "did you mean 'S2'")
    assert invoke("models", "--sensor", "aerial", "--max-size", "1k").stderr.startswith("No model fits")


def test_every_collection_of_a_default_input_has_a_short_name():
    assert {card.id for card in CARDS if card.modalities and sensors_of(card)[0] == "more"} == set()
