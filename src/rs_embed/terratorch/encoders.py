"""What both backbones are built with: an encoder to be trained, and options that are words."""

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
    """The encoder in training mode, every parameter wanting a gradient.

    Args:
        make: Builds it without values.
        card: Says where its weights live.
        layout: Of the family's files.
        pretrained: Without, values are random, and the same each time.
        ckpt: A file to use in place of the card's.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or those of another model.
    """
    knobs = card.knobs.read({"pretrained": pretrained, "ckpt": ckpt})
    network = build_network(make, ModelRequest(card, knobs, inputs=()), LibrarySettings.read(), layout)
    return cast("Trained", network.module.train().requires_grad_(True))


def one_of(name: str, found: object, known: Sequence[Word]) -> Word:
    """The option, if it is one of the words that there are.

    Raises:
        SpecError: It is another.
    """
    for word in known:
        if word == found:
            return word
    raise SpecError(
        f"Expected {name} as one of {', '.join(map(str, known))}, got {found!r}.", fix=f"{name}={known[0]!r}"
    )
