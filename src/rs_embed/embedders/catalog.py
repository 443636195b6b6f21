"""The catalog: every model, by id or alias. Listing it imports no torch."""

from fnmatch import fnmatchcase

from rs_embed._checks import short
from rs_embed.bands import did_you_mean
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


def list_cards(pattern: str = "*") -> tuple[ModelCard, ...]:
    """Cards whose id or an alias matches a shell-style pattern, in catalog order."""
    if not isinstance(pattern, str):
        raise UnknownModelError(f"Expected a pattern of ids, got {short(pattern)}.", fix='for example "thor*"')
    return tuple(card for card in CARDS if any(fnmatchcase(name, pattern) for name in (card.id, *card.aliases)))


def get_card(model_id: str | ModelCard) -> ModelCard:
    """The card of an id or alias; a card of one's own is taken as it is.

    Raises:
        UnknownModelError: There is none; the nearest name is suggested.
    """
    if isinstance(model_id, ModelCard):
        return model_id
    if not isinstance(model_id, str):
        raise UnknownModelError(f"Expected the id of a model, got {short(model_id)}.", fix="see list_models()")
    for card in CARDS:
        if model_id == card.id or model_id in card.aliases:
            return card
    names = [name for card in CARDS for name in (card.id, *card.aliases)]
    raise UnknownModelError(
        f"Wanted a model of the catalog, found {model_id!r}.",
        known=", ".join(names),
        fix=did_you_mean(str(model_id), names),
    )


def card_of_key(model_key: str) -> ModelCard:
    """The card of the authors' own name of a variant (knobs admit only names that exist)."""
    return next(card for card in CARDS if card.model_key == model_key)
