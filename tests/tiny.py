"""The families with fewer numbers: the same code, for what a card promises at any size."""

from dataclasses import replace

from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card

SMALL_ARCH = {"dim": 192, "depth": 4, "heads": 3, "band_dim": 32}
"""Three blocks have something before and behind them, and four layers can be asked for by number."""


def shrunken(model_id: str, **arch: int) -> ModelCard:
    """The card of a model, of a network that is quick with random weights; everything else is the model's own."""
    card = get_card(model_id)
    small = {name: arch.get(name, value) for name, value in card.arch.items()}
    # Not its id: networks of equal ids are one for the cache.
    return replace(card, id=f"{card.id}_shrunken", arch=small, dim=small.get("dim", card.dim), aliases=())


TINY_ANYSAT = replace(
    shrunken("anysat_1_0_base", dim=64, depth=1, heads=1),
    id="anysat_tiny",
    weights=replace(get_card("anysat_1_0_base").weights, hub="nobody/nothing"),
)
CARDS = {TINY_ANYSAT.id: TINY_ANYSAT}


def card_of(model_id: str) -> ModelCard:
    """The card of a test, or a shrunken one of the catalog."""
    return CARDS.get(model_id) or shrunken(model_id, **SMALL_ARCH)
