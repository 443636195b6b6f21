"""Which commit and hash the published weights have, as `scripts/pin_weights.py` found them on a hub.

The hub could not be asked where the cards were written, so what they leave open is filled in from a file. A pinned
checkpoint is refused if its bytes are others.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files

from rs_embed.embedders.card import ModelCard, Weights

FILE = files("rs_embed") / "data" / "pins.json"


@dataclass(frozen=True)
class Pin:
    """What the hub says of a file."""

    revision: str
    """Commit."""
    sha256: str | None
    """`None`: the hub keeps it in git, which has another hash."""
    size_bytes: int


def name_of(weights: Weights) -> str:
    """What a file is called in the list of pins."""
    return f"{weights.hub}:{weights.file}"


def read_pins() -> dict[str, Pin]:
    """All of them, by `name_of`."""
    return {name: Pin(**facts) for name, facts in json.loads(FILE.read_text("utf-8")).items()}


def pinned(cards: Iterable[ModelCard]) -> tuple[ModelCard, ...]:
    """The cards with what is known of their weights; what a card says itself comes first."""
    pins = read_pins()
    return tuple(_pinned(card, pins) for card in cards)


def _pinned(card: ModelCard, pins: dict[str, Pin]) -> ModelCard:
    weights = card.weights
    if not isinstance(weights, Weights):
        return card
    pin = pins.get(name_of(weights))
    if pin is None or weights.revision is not None:
        return card
    sha256, size_bytes = weights.sha256 or pin.sha256, weights.size_bytes or pin.size_bytes
    return replace(card, weights=replace(weights, revision=pin.revision, sha256=sha256, size_bytes=size_bytes))
