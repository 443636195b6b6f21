"""The catalog: every model, by id or alias. Listing it imports no torch."""

import re
from fnmatch import fnmatchcase

from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import short
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.cards import alphaearth, anysat, clay, dofa, mosaiks, prithvi, ssl4eo, terramind, thor
from rs_embed.errors import UnknownModelError

CARDS: tuple[ModelCard, ...] = (
    *thor.CARDS,
    *terramind.CARDS,
    *anysat.CARDS,
    *prithvi.CARDS,
    *clay.CARDS,
    *dofa.CARDS,
    *ssl4eo.CARDS,
    *alphaearth.CARDS,
    *mosaiks.CARDS,
)


GENERATED = "rs_embed.generate makes modalities that were not observed, with the tokenizers of the same release"
VARIANTS = {
    r"(terramind_v(?:1|01)_[a-z]+)_tim": '{!r} with tim_modalities="LULC" thinks in land cover',
    r"(terramind_v(?:1|01)_[a-z]+)_(?:generate|encdec)": GENERATED,
    r"terramind_v1_tokenizer_\w+": GENERATED,
}
"""The authors' names of what is no model of its own here -> how it is asked for."""


def names_of(card: ModelCard) -> tuple[str, ...]:
    """What a model is called: its id, the aliases, and the authors' own name."""
    return tuple(dict.fromkeys((card.id, *card.aliases, card.model_key)))


def list_cards(pattern: str = "*") -> tuple[ModelCard, ...]:
    """Cards of which a name matches a shell-style pattern, in catalog order."""
    if not isinstance(pattern, str):
        raise UnknownModelError(f"Expected a pattern of ids, got {short(pattern)}.", fix='for example "thor*"')
    return tuple(card for card in CARDS if any(fnmatchcase(name, pattern) for name in names_of(card)))


def get_card(model_id: str | ModelCard) -> ModelCard:
    """The card of an id, an alias or the authors' name; a card of one's own is taken as it is.

    Raises:
        UnknownModelError: There is none; the nearest name is suggested.
    """
    if isinstance(model_id, ModelCard):
        return model_id
    if not isinstance(model_id, str):
        raise UnknownModelError(f"Expected the id of a model, got {short(model_id)}.", fix="see list_models()")
    for card in CARDS:
        if model_id in names_of(card):
            return card
    shown = [name for card in CARDS for name in (card.id, *card.aliases)]
    raise UnknownModelError(
        f"Expected a model of the catalog, got {model_id!r}.",
        known=", ".join(shown),
        fix=_variant(model_id) or did_you_mean(model_id, shown),
    )


def _variant(name: str) -> str | None:
    for pattern, fix in VARIANTS.items():
        found = re.fullmatch(pattern, name)
        if found:
            return fix.format(*found.groups())
    return None


def card_of_key(model_key: str) -> ModelCard:
    """The card of the authors' own name of a variant (knobs admit only names that exist)."""
    return next(card for card in CARDS if card.model_key == model_key)
