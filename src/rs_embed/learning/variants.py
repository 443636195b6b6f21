"""What is compared: models, each with its knobs, alone or several side by side."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import short
from rs_embed.core.specs import InputPrep, OutputSpec, Pooling
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import SpecError
from rs_embed.pipeline.request import KnobValue, Modalities

Knobs = Mapping[str, KnobValue]
Model: TypeAlias = "str | ModelCard | tuple[str | ModelCard, Knobs]"
Models: TypeAlias = "Model | Sequence[Model] | Mapping[str, Model | NDArray[np.floating]]"
"""One model or several. A model is an id, a card, or either with its knobs: `("thor", {"layers": [5, 11]})`. Two ids
joined by "+" are one vector; ":" adds knobs: "thor:layers=5,11". A mapping gives names, also to vectors of your own."""
_OF_REQUEST = ("pooling", "modality", "input_prep")
"""Words beside the knobs that a variant may set."""


@dataclass(frozen=True, eq=False)
class Part:
    """One model with its knobs."""

    card: ModelCard
    knobs: Knobs
    pooling: Pooling = "mean"
    modality: Modalities = None
    input_prep: InputPrep = "auto"

    @property
    def output(self) -> OutputSpec:
        """The vector."""
        return OutputSpec.pooled(self.pooling)


@dataclass(frozen=True, eq=False)
class Variant:
    """What one row of the comparison is: the vectors of its parts side by side, or vectors of the user's own."""

    name: str
    parts: tuple[Part, ...] = ()
    own: NDArray[np.floating] | None = None


def variants_of(models: Models) -> list[Variant]:
    """Read what is to be compared.

    Raises:
        SpecError: It is no model, or two have the same name.
        UnknownModelError: A model does not exist.
    """
    if isinstance(models, Mapping):
        found = [_named(str(name), one) for name, one in models.items()]
    elif isinstance(models, str | ModelCard) or _is_pair(models):
        found = [_variant(cast("Model", models))]
    elif isinstance(models, Sequence):
        found = [_variant(one) for one in cast("Sequence[Model]", models)]
    else:
        raise SpecError(f"Expected models, got {short(models)}.", fix='for example ["thor_1_0_tiny", "mosaiks_rcf"]')
    names = [one.name for one in found]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SpecError(
            f"Expected each model once, got {', '.join(doubled)} twice.", fix="name variants: {'a': ..., 'b': ...}"
        )
    return found


def split_models(text: str) -> list[str]:
    """Split "a,b:layers=5,11,c+d" at the commas between models."""
    return [one.strip() for one in re.split(r",(?!\s*-?\d+\s*(?:,|:|\+|$))", text) if one.strip()]


def _is_pair(given: object) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)


def _named(name: str, given: "Model | NDArray[np.floating]") -> Variant:
    if isinstance(given, np.ndarray):
        if given.ndim != 2:
            raise SpecError(
                f"Expected vectors [N, D] for {name!r}, got the shape {given.shape}.", fix="one row per place"
            )
        return Variant(name, own=given)
    return Variant(name, _variant(given).parts)


def _variant(given: Model) -> Variant:
    if _is_pair(given):
        model, knobs = cast("tuple[str | ModelCard, Knobs]", given)
        part = _part(model, knobs)
        told = ", ".join(f"{name}={_told(value)}" for name, value in knobs.items())
        return Variant(f"{part.card.id} ({told})" if told else part.card.id, (part,))
    if isinstance(given, ModelCard):
        return Variant(given.id, (_part(given, {}),))
    if not isinstance(given, str):
        raise SpecError(f"Expected a model, got {short(given)}.", fix='an id, a card, or ("thor", {"layers": [5, 11]})')
    each = []
    for text in [given] if given.endswith(".safetensors") else given.split("+"):
        model, *knobs_text = [text] if text.endswith(".safetensors") else text.strip().split(":")
        pairs = [knob.partition("=") for knob in knobs_text]
        if any(not equals for _, equals, _ in pairs):
            raise SpecError(f"Expected knobs as name=value, got {text!r}.", fix='for example "thor:layers=5,11"')
        each.append(_variant((model, {name.strip(): value.strip() for name, _, value in pairs})))
    return Variant(" + ".join(one.name for one in each), tuple(part for one in each for part in one.parts))


def _part(model: str | ModelCard, knobs: Knobs) -> Part:
    words = {name: value for name, value in knobs.items() if name in _OF_REQUEST}
    modality = words.get("modality")
    if isinstance(modality, str) and "+" in modality:
        words["modality"] = modality.split("+")
    rest = {name: value for name, value in knobs.items() if name not in words}
    return Part(get_card(model), rest, **words)  # type: ignore[arg-type]


def _told(value: KnobValue) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
