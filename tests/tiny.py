"""A small member of a family that is published in one size only: the same code with fewer numbers."""

from dataclasses import replace

from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card

TINY_ANYSAT = replace(
    get_card("anysat_1_0_base"),
    id="anysat_tiny",
    arch={"dim": 64, "depth": 1, "heads": 1},
    dim=64,
    weights=replace(get_card("anysat_1_0_base").weights, hub="nobody/nothing"),
    aliases=(),
)
CARDS = {TINY_ANYSAT.id: TINY_ANYSAT}


def card_of(model_id: str) -> ModelCard:
    """The card of a test or of the catalog."""
    return CARDS.get(model_id) or get_card(model_id)
