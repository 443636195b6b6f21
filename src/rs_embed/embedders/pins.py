"""Commits and hashes of the published weights, as `scripts/pin_weights.py` found them on the hub.

The cards were written without access to the hub, so missing revisions and hashes are filled in from a file. A pinned
checkpoint with other content is refused.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files

from rs_embed.embedders.card import ModelCard, Weights

FILE = files("rs_embed") / "data" / "pins.json"


@dataclass(frozen=True)
class Pin:
    """The facts of a file on the hub."""

    revision: str
    """Commit of the repository."""
    sha256: str | None
    """Hash of the file; `None` for files kept in git, for which the hub gives no sha256."""
    size_bytes: int


def name_of(weights: Weights) -> str:
    """Return the key of a file in the list of pins."""
    return f"{weights.hub}:{weights.file}"


def read_pins() -> dict[str, Pin]:
    """Read all pins, keyed by `name_of`."""
    return {name: Pin(**facts) for name, facts in json.loads(FILE.read_text("utf-8")).items()}


def pinned(cards: Iterable[ModelCard]) -> tuple[ModelCard, ...]:
    """Return the cards with pins filled in. A card's own values take precedence."""
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
