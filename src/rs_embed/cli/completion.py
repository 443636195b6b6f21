"""What the Tab key offers: models, knobs, modalities, collections and backends.

A shell waits for each answer, so the names come from a file, and neither the catalogue nor numpy is imported. The file
holds the names of this package; those of other packages are not offered, but work.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import TypedDict

import typer

Offers = list[tuple[str, str]]
"""Words, each with its help."""
FILE = "completion.json"
BACKENDS = {
    "sample": "the scene that comes with the package",
    "stac": "an open STAC catalogue, without an account",
    "gee": "Google Earth Engine",
    "published": "published embeddings: AlphaEarth, TESSERA; without an account",
    "auto": "Earth Engine where it is set up, else STAC",
}


class ModelNames(TypedDict):
    """What the Tab key knows of a model."""

    title: str
    aliases: list[str]
    modalities: list[str]
    knobs: dict[str, str]
    """Keyword -> what it does."""


class Names(TypedDict):
    """The content of the file."""

    models: dict[str, ModelNames]
    collections: list[str]


def collect_names() -> Names:
    """What the file should hold, from the catalogue; `scripts/completion_names.py` writes it."""
    from rs_embed.core.bands import COLLECTIONS
    from rs_embed.embedders.catalog import CARDS
    from rs_embed.embedders.describe import describe

    models: dict[str, ModelNames] = {}
    for card in CARDS:
        facts = describe(card)
        models[card.id] = {
            "title": facts["title"],
            "aliases": facts["aliases"],
            "modalities": [modality["name"] for modality in facts["modalities"]],
            "knobs": {knob["keyword"]: knob["effect"] for knob in facts["knobs"]},
        }
    return {"models": models, "collections": list(COLLECTIONS)}


@cache
def _names() -> Names:
    names: Names = json.loads((files("rs_embed") / "data" / FILE).read_text("utf-8"))
    return names


def _beginning(incomplete: str, offers: Iterable[tuple[str, str]]) -> Offers:
    return [(word, text) for word, text in offers if word.lower().startswith(incomplete.lower())]


def _models() -> Mapping[str, str]:
    """Every id and alias with its title."""
    found = {model_id: facts["title"] for model_id, facts in _names()["models"].items()}
    return found | {alias: facts["title"] for facts in _names()["models"].values() for alias in facts["aliases"]}


def complete_model(incomplete: str) -> Offers:
    """A model."""
    return _beginning(incomplete, _models().items())


def complete_models(incomplete: str) -> Offers:
    """The last of several models, joined by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [(f"{before}{comma}{word}", text) for word, text in complete_model(last)]


def complete_backend(incomplete: str) -> Offers:
    """A backend that has a name."""
    return _beginning(incomplete, BACKENDS.items())


def complete_collection(incomplete: str) -> Offers:
    """A collection of imagery."""
    return _beginning(incomplete, [(name, "") for name in _names()["collections"]])


def _chosen(ctx: typer.Context) -> list[ModelNames]:
    """The models on the command line so far; all, where there is none."""
    words = [*ctx.args, str(ctx.params.get("model")), str(ctx.params.get("models"))]  # unread arguments, and read ones
    given = [name for word in words for name in word.split(",")]
    models = _names()["models"]
    chosen = [facts for name, facts in models.items() if name in given or set(facts["aliases"]) & set(given)]
    return chosen or list(models.values())


def complete_modality(ctx: typer.Context, incomplete: str) -> Offers:
    """A modality of the models on the command line, the last of several joined by a plus sign."""
    before, plus, last = incomplete.rpartition("+")
    names = dict.fromkeys(name for model in _chosen(ctx) for name in model["modalities"])
    return [(f"{before}{plus}{word}", "") for word, _ in _beginning(last, [(name, "") for name in names])]


def complete_knob(ctx: typer.Context, incomplete: str) -> Offers:
    """A knob of the models on the command line."""
    knobs = {f"{knob}=": effect for model in _chosen(ctx) for knob, effect in model["knobs"].items()}
    return _beginning(incomplete, knobs.items())
