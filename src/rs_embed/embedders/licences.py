"""The licences of the models: what each one forbids, and whether it must be accepted before a model runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rs_embed.core.bands import did_you_mean
from rs_embed.embedders.card import ModelCard
from rs_embed.errors import LicenceNotAccepted, SpecError

LicenceClass = Literal["permissive", "conditions", "non-commercial", "gated", "unknown"]
"""The class of a licence:

- "permissive": any use, with credit at most.
- "conditions": some uses are forbidden, or derivatives must keep the licence.
- "non-commercial": no commercial use.
- "gated": the authors give access only to those who accept their terms.
- "unknown": `rs_embed` does not know the terms.
"""
_FREE = ("permissive", "unknown")
"""Classes that need not be accepted. Whoever adds a model with other terms has to read them."""


@dataclass(frozen=True)
class Licence:
    """A licence, and what follows from it for a user."""

    id: str
    kind: LicenceClass
    forbids: str
    """What it forbids or requires, in a sentence."""

    @property
    def must_be_accepted(self) -> bool:
        """Whether a model with this licence runs only after the user accepted it."""
        return self.kind not in _FREE


_NOTICE = "Nothing is forbidden; copies keep the notice."
_CREDIT = "Nothing is forbidden; give credit to the authors."
_ALIKE = "Adapted works must have the same licence; give credit to the authors."
_LICENCES = (
    Licence("MIT", "permissive", _NOTICE),
    Licence("Apache-2.0", "permissive", _NOTICE),
    Licence("BSD-2-Clause", "permissive", _NOTICE),
    Licence("BSD-3-Clause", "permissive", _NOTICE),
    Licence("CC0-1.0", "permissive", "Nothing is forbidden."),
    Licence("CC-BY-4.0", "permissive", _CREDIT),
    Licence("CDLA-Permissive-1.0", "permissive", _NOTICE),
    Licence("ODC-BY-1.0", "permissive", _CREDIT),
    Licence("CC-BY-SA-4.0", "conditions", _ALIKE),
    Licence(
        "olmoearth-artifact",
        "conditions",
        "No military, defence, intelligence, human surveillance or policing use, and no use for the extraction of oil, "
        "gas, minerals or other raw materials; derivatives pass on both bans.",
    ),
    Licence("CC-BY-NC-4.0", "non-commercial", "No commercial use; give credit to the authors."),
    Licence("CC-BY-NC-SA-4.0", "non-commercial", f"No commercial use. {_ALIKE}"),
    Licence(
        "dinov3",
        "gated",
        "No military, weapons, nuclear or espionage use, no use under ITAR, no reverse engineering; copies pass on the "
        "licence, publications acknowledge DINOv3.",
    ),
)
# Sources: OlmoEarth Artifact License and DINOv3 License (19 August 2025), as published with the models.
LICENCES = {one.id: one for one in _LICENCES}
"""The known licences by id. The licence of a card is such an id, or starts with one: "CC-BY-4.0: credit ..."."""
_ELSEWHERE = Licence(
    "see page", "unknown", "The authors state their terms on the model's page, and grant access there."
)


def licence_of(text: str) -> Licence:
    """Return the licence that a card's text names; one of class "unknown" if it is none of the known ones."""
    return _known(text) or Licence(text, "unknown", "rs_embed does not know this licence: read it.")


def _known(text: str) -> Licence | None:
    name = (text.split() or [""])[0].rstrip(":,;")
    return _ELSEWHERE if name == "see" else LICENCES.get(name)


def require_known(cards: Iterable[ModelCard]) -> None:
    """Check the cards of this package.

    Raises:
        SpecError: A card names a licence that is not in the table.
    """
    for card in cards:
        for text in _texts(card):
            if _known(text) is None:
                raise SpecError(
                    f"Expected a known licence for {card.id}, got {text!r}.",
                    known=", ".join(LICENCES),
                    fix="begin the text with an id of embedders/licences.py, or add the licence there",
                )


def to_accept(card: ModelCard) -> tuple[Licence, ...]:
    """Return the licences of a model and its weights that the user must accept."""
    found = {one.id: one for one in map(licence_of, _texts(card)) if one.must_be_accepted}
    return tuple(found.values())


def strictest(card: ModelCard) -> Licence:
    """Return the licence of a model or that of its weights, if it is the one that must be accepted."""
    return next(iter(to_accept(card)), licence_of(card.licence))


def licence_ids(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the ids that `accept_licence` or its variable names.

    Raises:
        SpecError: An id is unknown.
    """
    names = given.split(",") if isinstance(given, str) else given or ()
    ids = tuple(name.strip() for name in names if name.strip())
    for name in ids:
        if name not in LICENCES:
            raise SpecError(
                f"Expected the id of a licence, got {name!r}.",
                known=", ".join(LICENCES),
                fix=did_you_mean(name, LICENCES),
            )
    return ids


def require_accepted(card: ModelCard, accepted: Sequence[str]) -> None:
    """Check that the user accepted the licences of a model.

    Args:
        card: The model.
        accepted: Ids of the accepted licences.

    Raises:
        LicenceNotAccepted: One of them is missing.
    """
    missing = [one for one in to_accept(card) if one.id not in accepted]
    if missing:
        ids = ",".join(one.id for one in missing)
        raise LicenceNotAccepted(
            f"Expected accept_licence={ids!r} for {card.id}, got {', '.join(accepted) or 'nothing'}.",
            forbids="\n".join(one.forbids for one in missing),
            fix=f'read the licence; to accept it, pass accept_licence="{ids}" or set RS_EMBED_ACCEPT_LICENCE={ids}',
        )


def _texts(card: ModelCard) -> tuple[str, ...]:
    return (card.licence, card.weights.licence) if card.weights is not None else (card.licence,)
