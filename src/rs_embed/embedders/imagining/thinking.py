"""TerraMind that thinks in modalities: it imagines tokens of what was not given, then reads them beside what was.

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
from rs_embed.embedders.cards.terramind import TerraMindKnobs
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
    """Our encoder, and the authors' encoder and decoder that imagine what it reads; of the same weights.

    Args:
        encoder: Takes the tokens of what is imagined, too.
        imagination: Frozen.
    """

    def __init__(self, encoder: Encoder, imagination: Imagination) -> None:
        super().__init__()
        self.encoder = encoder
        self.imagination = imagination

    def think(self, given: Mapping[str, Tensor], sampling: Sampling) -> dict[str, Tensor]:
        """The input of a batch, and after it the token ids `[batch, row, col]` of what is imagined.

        Every item is imagined by itself, with the same seed: what else is in the batch changes nothing.
        """
        batch = len(next(iter(given.values())))
        items = [{name: values[number] for name, values in given.items()} for number in range(batch)]
        imagined = [self.imagination.imagine(item, sampling) for item in items]
        names = {name: TOKENS[name].encoder_name for name in self.imagination.outputs}
        return {**given, **{names[name]: torch.stack([one[name] for one in imagined]) for name in names}}


def imagined_names(request: ModelRequest) -> tuple[str, ...]:
    """What is imagined, by the names of the encoder."""
    knobs = cast("TerraMindKnobs", request.knobs)
    return tuple(TOKENS[name].encoder_name for name in knobs.tim_modalities or ())


def sampling_of(knobs: TerraMindKnobs) -> Sampling:
    """How the knobs want tokens drawn."""
    return Sampling(knobs.tim_seed, knobs.tim_decoding_steps, knobs.tim_temperature, knobs.tim_top_p, knobs.tim_top_k)


def thinking_facts(request: ModelRequest) -> dict[str, JsonValue]:
    """For the metadata: what was imagined, and whose code imagined it."""
    imagined = imagined_names(request)
    return {"imagined": list(imagined), "terratorch": version("terratorch")} if imagined else {}


def check_thinking(request: ModelRequest) -> None:
    """Refuse what the model that imagines was not trained for.

    Raises:
        SpecError: No decoder, or a modality that is given and imagined.
        BandMismatch: Some bands only: the imagination takes all of them.
        MissingDependency: TerraTorch is not installed.
    """
    imagined = cast("TerraMindKnobs", request.knobs).tim_modalities
    if imagined is None:
        return
    require_generative(request.card, "thinking in modalities")
    both = [name for name in imagined if name in request.modality_names]
    if both:
        raise SpecError(
            f"Expected modalities that are given or imagined, got both: {', '.join(both)}.",
            fix="leave them out of tim_modalities, or of modality",
        )
    require_all_bands(request, "Thinking in modalities")


def build_thinking(
    make: Callable[[], Encoder], request: ModelRequest, settings: LibrarySettings, layout: Layout
) -> Network:
    """Encoder and imagination with the weights that knobs and card name; see `build_network`.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or those of another model.
    """
    card, knobs = request.card, cast("TerraMindKnobs", request.knobs)
    found = published_state(request, settings)
    with torch.device("meta"):
        encoder = make()
    imagined = imagined_names(request)
    given = [name for name in (*card.modality_names, *request.places) if name not in imagined]
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
