"""Tables for a terminal, and the numbers in them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from rs_embed.core.display import parameters_text
from rs_embed.embedders.choosing import OTHER, download_mb, download_text, sensors_of
from rs_embed.embedders.licences import strictest, to_accept

if TYPE_CHECKING:
    from rs_embed.embedders.card import ModelCard
    from rs_embed.embedding.embedding import Embedding

_MOST_SENSORS = 3
"""Shown for each model; a sign says that there are more."""


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> Table:
    """The columns named, or all, of rows with equal keys."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns or rows[0]:
        drawn.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        cells = [row[name] for name in columns or row]
        drawn.add_row(*(", ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in cells))
    drawn.columns[0].style, drawn.columns[0].no_wrap = "cyan", True
    return drawn


def embedding_row(embedding: "Embedding", seconds: float) -> dict[str, object]:
    """What a table says of an embedding; the norm of a grid is the mean over its tokens."""
    import numpy as np  # only a table of results needs it

    meta = embedding.meta
    return {
        "model": meta.model_id,
        "output": meta.output,
        "shape": " x ".join(map(str, embedding.data.shape)),
        "norm": f"{np.nanmean(np.linalg.norm(embedding.data, axis=0)):.4g}",
        "valid": f"{meta.valid_fraction:.0%}",
        "gsd_m": f"{meta.gsd_m:.4g}",
        "input_prep": meta.input_prep,
        "seconds": f"{seconds:.2f}",
        "weights": meta.warning or meta.weights.partition("#")[0].removesuffix(".safetensors"),
    }


def source_line(embedding: "Embedding") -> str:
    """Whose pixels they were, and of which days."""
    chips = [
        ", ".join([f"{one.collection} via {one.provider}", *(day[:10] for day in one.scene_times[:3])])
        for one in embedding.meta.inputs
    ]
    return f"{'; '.join(chips) or 'No imagery'}, as {embedding.meta.model_id} sees it:"


def models_table(cards: "Sequence[ModelCard]") -> Table:
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
        notes.append(f"With the extra {extra}: {', '.join(card.id for card in cards if card.extra == extra)}")
    for licence in {one.id: one for card in cards for one in to_accept(card)}.values():
        notes.append(f"Accept with --accept-licence {licence.id} ({licence.kind}): {licence.forbids}")
    if any(not download_mb(card)[1] for card in cards):
        notes.append("~: estimated from the number of parameters")
    drawn.caption, drawn.caption_justify, drawn.caption_style = "\n".join(notes) or None, "left", ""
    return drawn


def _line(card: "ModelCard") -> dict[str, object]:
    licence = strictest(card)
    return {
        "id": card.id,
        "sensors": _sensors(card),
        "params": parameters_text(card.parameters_m),
        "dim": card.dim,
        "download": download_text(card),
        "licence": licence.kind if licence.must_be_accepted or licence.kind == "unknown" else licence.id,
    }


def _sensors(card: "ModelCard") -> str:
    found = sensors_of(card)
    names = [name for name in found if name != OTHER]
    return ", ".join(names[:_MOST_SENSORS]) + (", ..." if len(found) > len(names[:_MOST_SENSORS]) else "")


def finite(value: object) -> object:
    """The same with `None` for NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
