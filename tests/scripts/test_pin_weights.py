"""One command pins every checkpoint, and a pinned one is held to its hash."""

import hashlib
import importlib
import json
from dataclasses import replace

import pytest
from hub_server import HubServer, commit_of
from pages import ROOT

from rs_embed.embedders import pins
from rs_embed.embedders.catalog import CARDS, get_card
from rs_embed.embedders.pins import Pin, pinned


@pytest.fixture
def pin_weights(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("pin_weights")


def test_the_hub_is_asked_for_every_file_and_what_it_lacks_is_named(pin_weights, tmp_path, monkeypatch, capsys):
    thor = get_card("thor_1_0_tiny").weights
    body = {thor.file: b"weights"}
    with HubServer({thor.hub: {"main": body}}) as hub:
        monkeypatch.setattr(pin_weights, "hf_hub_url", lambda repo, file: f"{hub.endpoint}/{repo}/resolve/main/{file}")
        assert pin_weights.main(str(tmp_path / "pins.json")) == 1
    written = json.loads((tmp_path / "pins.json").read_text())
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert written == {f"{thor.hub}:{thor.file}": {"revision": commit_of(body), "sha256": sha256, "size_bytes": 7}}
    files = {pins.name_of(card.weights) for card in CARDS if card.weights is not None}
    assert capsys.readouterr().out.count("not pinned") == len(files) - 1


def test_cards_take_what_was_pinned_and_keep_what_they_say(monkeypatch):
    plain = get_card("thor_1_0_tiny")
    own = replace(plain, weights=replace(plain.weights, revision="mine", sha256=None))
    pin = Pin("0" * 40, "f" * 64, 7)
    monkeypatch.setattr(pins, "read_pins", lambda: {pins.name_of(plain.weights): pin})
    first, second = pinned([replace(plain, weights=replace(plain.weights, revision=None)), own])
    assert (first.weights.revision, first.weights.sha256, first.weights.size_bytes) == (pin.revision, pin.sha256, 7)
    assert second == own
