"""Thinking in modalities: TerraMind generates tokens of missing modalities, then encodes them with the given ones.

Source: terratorch 1.2.11, models/backbones/terramind/model/terramind_tim.py; paper arXiv:2504.11171.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import ModelRequest, Network
from rs_embed.embedders.cards.terramind import MAP_NAMES, TerraMindKnobs
from rs_embed.embedders.cards.terramind_tokens import TOKENS
from rs_embed.embedders.imagining.sampler import (
    Imagination,
    Sampling,
    pick_state,
    random_values,
    require_all_bands,
    require_generative,
)
from rs_embed.embedders.runtime.random_numbers import own_random_numbers
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.load import load_strict
from rs_embed.embedders.weights.networks import RANDOM_NOTE, RANDOM_SEED, load_picked, published_state
from rs_embed.encoders.layers import Encoder
from rs_embed.errors import SpecError


class Thinking(nn.Module):
    """The encoder of this package, with the authors' encoder and decoder to generate modalities, all of one checkpoint.

    Args:
        encoder: The encoder, which also takes the generated tokens.
        imagination: The generator, frozen.
    """

    def __init__(self, encoder: Encoder, imagination: Imagination) -> None:
        super().__init__()
        self.encoder = encoder
        self.imagination = imagination

    def think(self, given: Mapping[str, Tensor], sampling: Sampling) -> dict[str, Tensor]:
        """Return the inputs of a batch, followed by token ids `[batch, row, col]` of the generated modalities.

        Every item is generated on its own with the same seed, so the rest of the batch has no influence.
        """
        batch = len(next(iter(given.values())))
        items = [{name: values[number] for name, values in given.items()} for number in range(batch)]
        imagined = [self.imagination.imagine(item, sampling) for item in items]
        names = {name: TOKENS[name].encoder_name for name in self.imagination.outputs}
        return {**given, **{names[name]: torch.stack([one[name] for one in imagined]) for name in names}}


def imagined_names(request: ModelRequest) -> tuple[str, ...]:
    """Return the encoder's names of the generated modalities."""
    knobs = cast("TerraMindKnobs", request.knobs)
    return tuple(TOKENS[name].encoder_name for name in knobs.tim_modalities or ())


def encoder_names(request: ModelRequest) -> tuple[str, ...]:
    """Return the modalities of the encoder to build: all imagery of the card, and what `request.places` adds to it."""
    return (*(name for name in request.card.modality_names if name not in MAP_NAMES), *request.places)


def sampling_of(knobs: TerraMindKnobs) -> Sampling:
    """Return the sampling settings of the knobs."""
    return Sampling(knobs.tim_seed, knobs.tim_decoding_steps, knobs.tim_temperature, knobs.tim_top_p, knobs.tim_top_k)


def thinking_facts(request: ModelRequest) -> dict[str, JsonValue]:
    """Return the metadata of thinking: the generated modalities and TerraTorch's version."""
    imagined = imagined_names(request)
    return {"imagined": list(imagined), "terratorch": version("terratorch")} if imagined else {}


def check_thinking(request: ModelRequest) -> None:
    """Check the request for thinking in modalities.

    Raises:
        SpecError: The model has no decoder, or a modality is both given and generated.
        BandMismatch: Some bands are missing; the generator needs all of them.
        MissingDependency: TerraTorch is not installed.
    """
    imagined = cast("TerraMindKnobs", request.knobs).tim_modalities
    if imagined is None:
        return
    require_generative(request.card, "thinking in modalities")
    both = [name for name in imagined if name in request.modality_names]
    if both:
        raise SpecError(
            f"Expected each modality to be given or generated, got both for {', '.join(both)}.",
            fix="leave them out of tim_modalities or of modality",
        )
    require_all_bands(request, "Thinking in modalities")


def build_thinking(
    make: Callable[[], Encoder], request: ModelRequest, settings: LibrarySettings, layout: Layout
) -> Network:
    """Build the encoder and the generator with the weights given by the knobs and the card; see `build_network`.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    card, knobs = request.card, cast("TerraMindKnobs", request.knobs)
    found = published_state(request, settings)
    with torch.device("meta"):
        encoder = make()
    imagined = imagined_names(request)
    given = [name for name in encoder_names(request) if name not in imagined]
    with own_random_numbers(RANDOM_SEED):
        imagination = Imagination(card, given, knobs.tim_modalities or ())
    module = Thinking(encoder, imagination)
    if found is None:
        encoder.to_empty(device="cpu")
        encoder.init_random(RANDOM_SEED)
        random_values(imagination)
        state = {**imagination.model.state_dict(), **encoder.state_dict()}
        load_strict(imagination.model, {name: state[name] for name in imagination.model.state_dict()}, source="random")
        encoder.eval().requires_grad_(False)
        return Network(module, f"random:{RANDOM_SEED}", RANDOM_NOTE, settings.kernels)
    file, state = found
    note = load_picked(encoder, file, state, layout)
    load_strict(imagination.model, pick_state(state, imagination.model, str(file.path)), source=str(file.path))
    return Network(module.requires_grad_(False).eval(), file.id, note, settings.kernels)
