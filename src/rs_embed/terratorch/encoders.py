"""Functions shared by both backbones: build a trainable encoder, and check options."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import ModelRequest
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import Encoder
from rs_embed.errors import SpecError

Trained = TypeVar("Trained", bound=Encoder)
Word = TypeVar("Word")


def trainable(
    make: Callable[[], Trained],
    card: ModelCard,
    layout: Layout,
    *,
    pretrained: bool,
    ckpt: str | Path | None,
) -> Trained:
    """Build an encoder in training mode, with all parameters trainable.

    Args:
        make: Builds the encoder without weights.
        card: The card with the location of the weights.
        layout: The layout of the family's files.
        pretrained: Whether to load the weights; otherwise they are random with a fixed seed.
        ckpt: A file to use instead of the card's.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    knobs = card.knobs.read({"pretrained": pretrained, "ckpt": ckpt})
    network = build_network(make, ModelRequest(card, knobs, inputs=()), LibrarySettings.read(), layout)
    return cast("Trained", network.module.train().requires_grad_(True))


def one_of(name: str, found: object, known: Sequence[Word]) -> Word:
    """Return an option if it is one of the known values.

    Raises:
        SpecError: The value is unknown.
    """
    for word in known:
        if word == found:
            return word
    raise SpecError(
        f"Expected {name} as one of {', '.join(map(str, known))}, got {found!r}.", fix=f"set {name}={known[0]!r}"
    )
