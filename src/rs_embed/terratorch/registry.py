"""Names of our backbones in TerraTorch's registry."""

from collections.abc import Callable
from functools import wraps

from torch import nn

from rs_embed._terratorch import load_terratorch
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.cards import anysat, thor
from rs_embed.terratorch.anysat import build_anysat
from rs_embed.terratorch.thor import build_thor


def register() -> tuple[str, ...]:
    """Add `thor_v1_tiny|small|base|large` and `anysat_base`; again does no harm.

    Returns:
        Their names.

    Raises:
        MissingDependency: TerraTorch is not installed.
    """
    registry = load_terratorch().own_backbones
    builders = [_named(card, build_thor) for card in thor.CARDS]
    builders += [_named(card, build_anysat) for card in anysat.CARDS]
    for builder in builders:
        registry.register(builder)
    return tuple(builder.__name__ for builder in builders)


def _named(card: ModelCard, build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The registry goes by the name of the function."""

    @wraps(build)
    def named(**options: object) -> nn.Module:
        return build(card, **options)

    named.__name__ = card.model_key
    return named
