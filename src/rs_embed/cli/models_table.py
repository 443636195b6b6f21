"""The table of models. This module loads the catalog, so that only the command that prints it imports it."""

from collections.abc import Sequence

from rich.table import Table

from rs_embed.cli.tables import table
from rs_embed.core.display import parameters_text
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.choosing import OTHER, download_mb, download_text, sensors_of
from rs_embed.embedders.licences import strictest, to_accept

_MOST_SENSORS = 2
"""Shown for each model, and how many more there are."""


def models_table(cards: Sequence[ModelCard]) -> Table:
    """A line for each model, 80 columns wide at most; notes stand below."""
    drawn = table([_line(card) for card in cards])
    for name in ("params", "dim", "download"):
        next(column for column in drawn.columns if column.header == name).justify = "right"
    for column in drawn.columns:
        column.no_wrap = True
    notes = [f"{alias} = {card.id}" for card in cards for alias in card.aliases]
    notes = [f"Aliases: {', '.join(notes)}"] if notes else []
    for kind in ("baseline", "precomputed"):
        ids = [card.id for card in cards if card.kind == kind]
        notes += [f"{kind.capitalize()}: {', '.join(ids)}"] if ids else []
    for extra in dict.fromkeys(card.extra for card in cards if card.extra):
        notes.append(f"With the extra {extra}: {_together([card.id for card in cards if card.extra == extra])}")
    for licence in {one.id: one for card in cards for one in to_accept(card)}.values():
        notes.append(f"Accept with --accept-licence {licence.id} ({licence.kind}): {licence.forbids}")
    if any(not download_mb(card)[1] for card in cards):
        notes.append("~: estimated from the number of parameters")
    drawn.caption, drawn.caption_justify, drawn.caption_style = "\n".join(notes) or None, "left", ""
    return drawn


def _together(ids: Sequence[str]) -> str:
    """Ids of one family as a pattern, else one by one."""
    family = ids[0].partition("_")[0]
    return f"{family}_*" if len(ids) > 2 and all(one.startswith(family) for one in ids) else ", ".join(ids)


def _line(card: ModelCard) -> dict[str, object]:
    licence = strictest(card)
    return {
        "id": card.id,
        "sensors": _sensors(card),
        "params": parameters_text(card.parameters_m),
        "dim": card.dim,
        "download": download_text(card),
        "licence": licence.kind if licence.must_be_accepted or licence.kind == "unknown" else licence.id,
    }


def _sensors(card: ModelCard) -> str:
    found = sensors_of(card)
    names = [name for name in found if name != OTHER]
    shown = names[:_MOST_SENSORS]
    return ", ".join(shown + [f"+{len(found) - len(shown)}"] * (len(found) > len(shown)))
