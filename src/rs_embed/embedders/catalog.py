"""The catalog of models, by id or alias. Listing it does not import torch.

Cards come from three sources, in this order: this package, installed packages (entry points of the group
`rs_embed.models`), and `register_model` in this process.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import short
from rs_embed.core.plugins import MODELS, Plugin, plugins
from rs_embed.embedders.banks import load_mosaiks
from rs_embed.embedders.card import ModelCard, is_file_id
from rs_embed.embedders.cards import (
    alphaearth,
    anysat,
    clay,
    copernicusfm,
    croma,
    dinov3,
    dofa,
    galileo,
    locations,
    mosaiks,
    olmoearth,
    panopticon,
    presto,
    prithvi,
    ssl4eo,
    terrafm,
    terramind,
    tessera,
    thor,
)
from rs_embed.embedders.licences import require_known
from rs_embed.embedders.pins import pinned
from rs_embed.errors import PluginWarning, SpecError, UnknownModelError, warn

_WRITTEN: tuple[ModelCard, ...] = (
    *thor.CARDS,
    *terramind.CARDS,
    *anysat.CARDS,
    *galileo.CARDS,
    *prithvi.CARDS,
    *clay.CARDS,
    *dofa.CARDS,
    *copernicusfm.CARDS,
    *ssl4eo.CARDS,
    *croma.CARDS,
    *panopticon.CARDS,
    *terrafm.CARDS,
    *presto.CARDS,
    *olmoearth.CARDS,
    *dinov3.CARDS,
    *alphaearth.CARDS,
    *tessera.CARDS,
    *mosaiks.CARDS,
    *locations.CARDS,
)
CARDS = pinned(_WRITTEN)
"""The cards of this package."""
require_known(CARDS)
_REGISTERED: dict[str, ModelCard] = {}
"""Id -> card registered in this process."""

ALIKE = 6
"""Names that an error shows of those that resemble an unknown one; the catalog is too long to be shown."""
GENERATED = "call rs_embed.generate, which generates missing modalities with the tokenizers of the same release"
VARIANTS = {
    r"(terramind_v(?:1|01)_[a-z]+)_tim": 'use {!r} with tim_modalities="LULC" to think in land cover',
    r"(terramind_v(?:1|01)_[a-z]+)_(?:generate|encdec)": GENERATED,
    r"terramind_v1_tokenizer_\w+": GENERATED,
}
"""Pattern of authors' names that are not separate models here -> what to use instead."""


def names_of(card: ModelCard) -> tuple[str, ...]:
    """Return all names of a model: its id, its aliases and the authors' name."""
    return tuple(dict.fromkeys((card.id, *card.aliases, card.model_key)))


def register_model(card: ModelCard, *, replace: bool = False) -> None:
    """Add a model of your own to the catalog of this process.

    Workers of a cluster take it over. Other processes, such as a later `retry_export`, must register it too. An
    installed package adds models by an entry point of the group `rs_embed.models` instead.

    Args:
        card: The model.
        replace: Whether to replace a card registered earlier under the same id, for example in a notebook cell that
            you run again.

    Raises:
        SpecError: `card` is not a `ModelCard`, or another model has one of its names.
    """
    if not isinstance(card, ModelCard):
        raise SpecError(f"Expected a ModelCard, got {short(card)}.", fix="pass rs_embed.ModelCard(id=..., ...)")
    others = [other for other in _all_cards() if not (replace and _REGISTERED.get(card.id) is other)]
    taken = _taken(card, others)
    if taken is not None and _REGISTERED.get(card.id) != card:
        raise SpecError(
            f"Expected new names for a model, got {taken!r}, which is taken.",
            names=", ".join(names_of(card)),
            fix="choose another id and other aliases" + (", or replace=True" if card.id in _REGISTERED else ""),
        )
    _REGISTERED[card.id] = card


def registered_among(models: Iterable[str | ModelCard]) -> tuple[ModelCard, ...]:
    """Return the cards of these models that were registered in this process."""
    cards = {card.id: card for card in map(get_card, models)}
    return tuple(card for card in cards.values() if _REGISTERED.get(card.id) is card)


def _taken(card: ModelCard, others: Iterable[ModelCard]) -> str | None:
    """Return a name of the card that one of the others has too, else `None`."""
    known = {name for other in others for name in names_of(other)}
    return next((name for name in names_of(card) if name in known), None)


def _all_cards() -> tuple[ModelCard, ...]:
    return (*CARDS, *_installed(tuple(sys.path)), *_REGISTERED.values())


@lru_cache(maxsize=8)
def _installed(path: tuple[str, ...]) -> tuple[ModelCard, ...]:
    """Return the cards of installed packages. Unusable ones are left out with a warning."""
    found: list[ModelCard] = []
    for plugin in plugins(MODELS):
        for card in _cards_of(plugin):
            taken = _taken(card, (*CARDS, *found))
            if taken is None:
                found.append(card)
            else:
                warn(
                    f"{plugin.package}: the model {card.id!r} is ignored because the name {taken!r} is taken.",
                    PluginWarning,
                )
    return tuple(found)


def _cards_of(plugin: Plugin) -> tuple[ModelCard, ...]:
    try:
        value = plugin.load()
    except Exception as error:  # noqa: BLE001  (third-party code must not break the catalog)
        why = f"{type(error).__name__}: {error}"
        warn(f"{plugin.package}: the models of {plugin.name!r} are ignored, as loading failed. {why}", PluginWarning)
        return ()
    cards = value if isinstance(value, list | tuple) else (value,)
    wrong = next((one for one in cards if not isinstance(one, ModelCard)), None)
    if wrong is None:
        return tuple(cards)
    text = f"the models of {plugin.name!r} are ignored: expected cards, got {short(wrong)}."
    warn(f"{plugin.package}: {text}", PluginWarning)
    return ()


def list_cards(pattern: str = "*") -> tuple[ModelCard, ...]:
    """Return the cards with a name that matches a shell-style pattern, in catalog order."""
    if not isinstance(pattern, str):
        raise UnknownModelError(
            f"Expected a pattern of ids, got {short(pattern)}.", fix='pass a pattern, for example "thor*"'
        )
    return tuple(card for card in _all_cards() if any(fnmatchcase(name, pattern) for name in names_of(card)))


def get_card(model_id: str | ModelCard) -> ModelCard:
    """Return the card of an id, an alias, an authors' name or the path of a filter bank; a card is returned as it is.

    Raises:
        UnknownModelError: No model has this name; the error suggests the nearest.
        WeightsError: The file (`.safetensors`) is not a filter bank.
    """
    if isinstance(model_id, ModelCard):
        return model_id
    if not isinstance(model_id, str):
        raise UnknownModelError(
            f"Expected the id of a model, got {short(model_id)}.", fix="choose one of list_models()"
        )
    if is_file_id(model_id):
        return load_mosaiks(model_id)
    # Look in this package first, so that its models load no third-party code.
    found = _named(model_id, CARDS) or _named(model_id, _all_cards())
    if found is not None:
        return found
    shown = [name for card in _all_cards() for name in (card.id, *card.aliases)]
    alike = get_close_matches(model_id, shown, n=ALIKE, cutoff=0.4)
    raise UnknownModelError(
        f"Expected a model of the catalog, got {model_id!r}.",
        alike=", ".join(alike) or None,
        fix=_variant(model_id) or (did_you_mean(model_id, alike) if alike else "choose one of list_models()"),
    )


def _named(name: str, cards: Sequence[ModelCard]) -> ModelCard | None:
    by_id = next((card for card in cards if card.id == name), None)
    return by_id or next((card for card in cards if name in names_of(card)), None)


def _variant(name: str) -> str | None:
    for pattern, fix in VARIANTS.items():
        found = re.fullmatch(pattern, name)
        if found:
            return fix.format(*found.groups())
    return None
