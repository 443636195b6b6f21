"""The file of a head, its origin, and what it refuses."""

import json
from dataclasses import replace

import made_heads
import numpy as np
import pytest
from made_heads import KNOWN, MADE, labels, region
from safetensors.numpy import save_file

from rs_embed.errors import ChoiceWarning, SpecError, StorageError
from rs_embed.learning.fit import fit
from rs_embed.learning.head import load_head

pytestmark = pytest.mark.slow


def test_a_head_comes_back_from_its_file_with_the_same_numbers(head, tmp_path):
    path = head.save(tmp_path / "cover.safetensors")
    again = load_head(path)
    tokens = np.random.default_rng(0).uniform(1, 30, (50, 4))
    np.testing.assert_array_equal(again.fitted.proba(tokens), head.fitted.proba(tokens))
    assert again.facts == head.facts
    assert repr(again) == repr(head)
    assert path.stat().st_size < 20_000


def test_a_head_says_what_it_is_and_how_well_it_does(head):
    text = repr(head)
    assert "forest & co " in text and "tokens of 80 m" in text and "plain, revision 1, 4 dimensions" in text
    assert head.classes == ("forest & co", "meadow", "water")
    assert head.facts.colours[2] == "#0000ff" and len(set(head.facts.colours)) == 3
    assert sum(head.facts.support.values()) == head.facts.places == head.facts.vectors == 150
    name, (value, low, high) = next(iter(head.validation.scores.items()))
    assert name == "balanced accuracy" and 0.8 < low <= value <= high <= 1
    assert np.sum(head.validation.confusion) == 150
    assert any("blocks are" in note for note in head.validation.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_id": "other"}, "another model: other, not plain"),
        ({"card_revision": 2}, "another revision of the model: 2, not 1"),
        ({"weights": "hub:plain#sha256:9999"}, "another weights: hub:plain#sha256:9999, not hub:plain#sha256:1234"),
        ({"gsd_m": 20.0}, "another pixel size that the model sees, metres: 20.0, not 10.0"),
        ({"source_data": ("LANDSAT",)}, "another collections"),
        ({"extra": {**KNOWN.extra, "knobs": {"image_size": 224}}}, "another knob image_size: 224, not 96"),
        ({"extra": {**KNOWN.extra, "bands": ["s2:B2", "s2:B4"]}}, "another bands"),
        ({"extra": {**KNOWN.extra, "debiased": False}}, "another position offsets subtracted: False, not True"),
    ],
)
def test_a_head_refuses_vectors_of_another_origin_and_names_the_difference(head, tmp_path, change, said):
    other = region(tmp_path, replace(MADE, header=replace(KNOWN, **change)))
    with pytest.raises(SpecError, match="same origin") as caught:
        head.map(other)
    assert said in str(caught.value)
    with pytest.raises(SpecError, match="same origin"):
        head.predict([(13.0, 47.8)], region=other)


@pytest.mark.parametrize("unknown", [{"weights": None}, {"extra": {"knobs": KNOWN.extra["knobs"]}}])
def test_what_a_map_does_not_record_is_no_difference(head, tmp_path, unknown):
    assert head.map(region(tmp_path, replace(MADE, header=replace(KNOWN, **unknown)))).read().any()


def test_another_number_of_fetch_workers_is_no_difference(head, tmp_path):
    extra = {**KNOWN.extra, "knobs": {"image_size": 96, "fetch_workers": 2, "layers": None}}
    assert head.map(region(tmp_path, replace(MADE, header=replace(KNOWN, extra=extra)))).read().any()


def test_random_weights_speak_up_in_training_in_the_head_and_in_its_maps(tmp_path):
    made = replace(MADE, header=replace(KNOWN, weights="random:7", weights_note="random weights, seed 7"))
    with pytest.warns(ChoiceWarning, match="random"):
        head = fit(labels(60), "cover", region=region(tmp_path, made))
    assert "warning:     random weights, seed 7" in repr(head)
    assert "random weights, seed 7" in repr(head.map(region(tmp_path / "again", made)))


def test_files_that_are_no_head_are_refused(head, tmp_path):
    with pytest.raises(StorageError, match=r"Expected a head at .*none.safetensors'"):
        load_head(tmp_path / "none.safetensors")
    save_file({"filters": np.zeros(3, np.float32)}, tmp_path / "bank.safetensors")
    with pytest.raises(StorageError, match="tells of no head"):
        load_head(tmp_path / "bank.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(head.save(tmp_path / "h.safetensors").read_bytes()[:500])
    with pytest.raises(StorageError, match="SafetensorError"):
        load_head(tmp_path / "torn.safetensors")
    with pytest.raises(StorageError, match=r"Expected a .safetensors"):
        head.save(tmp_path / "head.pkl")


def test_arrays_of_other_shapes_and_later_formats_are_refused(head, tmp_path):
    from safetensors import safe_open

    path = head.save(tmp_path / "h.safetensors")
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()["rs_embed_head"]
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    narrow = {name: array[..., :2] for name, array in arrays.items()}
    save_file(narrow, tmp_path / "narrow.safetensors", metadata={"rs_embed_head": text})
    with pytest.raises(StorageError, match="Expected arrays"):
        load_head(tmp_path / "narrow.safetensors")
    later = json.dumps(json.loads(text) | {"version": 2})
    save_file(arrays, tmp_path / "later.safetensors", metadata={"rs_embed_head": later})
    with pytest.raises(StorageError, match="later version"):
        load_head(tmp_path / "later.safetensors")


def test_colours_must_be_of_a_class_and_readable(tmp_path):
    for colours, said in (({"sea": "#000000"}, "got one of 'sea'"), ({"water": "blue"}, "#rrggbb for 'water'")):
        with pytest.raises(SpecError, match=said):
            fit(labels(60), "cover", region=made_heads.region(tmp_path / said[:4]), colours=colours)
