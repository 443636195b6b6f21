"""The facts of a card as plain data, for users, the CLI and the generated tables of the documentation."""

from typing import TypedDict

from rs_embed.core.bands import bands_of
from rs_embed.core.settings import describe_knobs
from rs_embed.embedders.card import Modality, ModelCard
from rs_embed.embedders.choosing import download_mb
from rs_embed.embedders.licences import strictest


class ModalityDescription(TypedDict):
    """One kind of input of a model."""

    name: str
    collection: str
    bands: list[str]
    units: list[str]
    derived: list[str]
    scale_m: float
    cloudy_pct: float
    composite: str
    fill_value: float | str
    image_px: int
    patch_px: int


class KnobDescription(TypedDict):
    """One knob of a model: its environment variable, keyword, default and effect."""

    variable: str
    keyword: str
    default: str
    effect: str


class ModelDescription(TypedDict):
    """The catalog's description of a model.

    `type` is "on-the-fly" (a network runs on the imagery of the request) or "precomputed" (embeddings are fetched).
    `default_backend` is the card's own ("gee-or-published": Earth Engine if it is set up, else the public store), else
    "auto" (Earth Engine if it is set up, else STAC), or "none" for a model that takes only a location. `licence_class`
    is "permissive", "conditions", "non-commercial", "gated" or "unknown"; the middle three must be accepted
    (`accept_licence`). `parameters_m` is in millions, `dim` is the length of a pooled vector. `download_mb` is the size
    of the weights on the hub; unless `download_known`, it is estimated from the number of parameters.
    """

    id: str
    title: str
    kind: str
    type: str
    default_backend: str
    aliases: list[str]
    model_key: str
    parameters_m: float
    dim: int
    revision: int
    input_prep: str
    outputs: list[str]
    modalities: list[ModalityDescription]
    default_modalities: list[str]
    place_modalities: list[str]
    knobs: list[KnobDescription]
    weights: str
    download_mb: float
    download_known: bool
    licence: str
    licence_class: str
    citation: str
    extra: str | None


def describe(card: ModelCard) -> ModelDescription:
    """Return the facts of a card as plain data."""
    weights, (size_mb, size_known) = card.weights, download_mb(card)
    return {
        "id": card.id,
        "title": card.title,
        "kind": card.kind,
        "type": "precomputed" if card.kind == "precomputed" else "on-the-fly",
        "default_backend": card.default_backend,
        "aliases": list(card.aliases),
        "model_key": card.model_key,
        "parameters_m": card.parameters_m,
        "dim": card.dim,
        "revision": card.revision,
        "input_prep": card.input_prep,
        "outputs": ["pooled", "grid"],
        "modalities": [_modality(modality) for modality in card.modalities],
        "default_modalities": list(card.default_names),
        "place_modalities": list(card.place_modalities),
        "knobs": [
            {"variable": variable, "keyword": keyword, "default": default, "effect": effect}
            for variable, keyword, default, effect in describe_knobs(card.knobs)
        ],
        "weights": f"{weights.source} / {weights.file} ({weights.licence})" if weights else _without_weights(card),
        "download_mb": size_mb,
        "download_known": size_known,
        "licence": card.licence,
        "licence_class": strictest(card).kind,
        "citation": card.citation,
        "extra": card.extra,
    }


def _without_weights(card: ModelCard) -> str:
    return "precomputed" if card.kind == "precomputed" else "bundled"


def _modality(modality: Modality) -> ModalityDescription:
    sensor = modality.sensor
    return {
        "name": modality.name,
        "collection": sensor.collection,
        "bands": list(sensor.bands),
        "units": [str(band.unit) for band in bands_of(sensor.collection, sensor.bands)],
        "derived": [band.name for band in modality.derived],
        "scale_m": sensor.scale_m,
        "cloudy_pct": sensor.cloudy_pct,
        "composite": sensor.composite,
        "fill_value": sensor.fill_value,
        "image_px": modality.image_px,
        "patch_px": modality.patch_px,
    }
