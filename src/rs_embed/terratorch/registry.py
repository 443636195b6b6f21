"""Register the backbones of this package in TerraTorch's registry."""

from collections.abc import Callable
from functools import wraps

from torch import nn

from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.cards import anysat, thor
from rs_embed.embedders.runtime.terratorch import load_terratorch
from rs_embed.terratorch.anysat import build_anysat
from rs_embed.terratorch.thor import build_thor


def register() -> tuple[str, ...]:
    """Register `thor_v1_tiny|small|base|large` and `anysat_base`. Repeated calls have no effect.

    Returns:
        The names of the backbones.

    Raises:
        MissingDependency: TerraTorch is not installed.
    """
    for card in thor.CARDS:
        register_card(card, build_thor)
    for card in anysat.CARDS:
        register_card(card, build_anysat)
    return tuple(card.model_key for card in (*thor.CARDS, *anysat.CARDS))


def register_card(card: ModelCard, build: Callable[..., nn.Module]) -> None:
    """Register one card under its authors' name.

    Args:
        card: A card, for example of a variant of your own.
        build: `build_thor` or `build_anysat`.

    Raises:
        MissingDependency: TerraTorch is not installed.
    """

    @wraps(build)
    def named(**options: object) -> nn.Module:
        return build(card, **options)

    named.__name__ = card.model_key
    load_terratorch().own_backbones.register(named)
