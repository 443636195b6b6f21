"""Load and cache the networks of a generation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import ModelRequest, Network
from rs_embed.embedders.cards.terramind import MAP_NAMES, TerraMindKnobs, TokenModality
from rs_embed.embedders.imagining.maps import load_map_tokenizers
from rs_embed.embedders.imagining.sampler import Imagination, Sampling, pick_state, random_values
from rs_embed.embedders.imagining.tokenizers import Tokenizer, stamp, tokenizer_for
from rs_embed.embedders.runtime.kept import KeptNetworks
from rs_embed.embedders.runtime.random_numbers import own_random_numbers
from rs_embed.embedders.weights.load import load_strict
from rs_embed.embedders.weights.networks import RANDOM_NOTE, RANDOM_SEED, published_state

_SAMPLERS: KeptNetworks[Network] = KeptNetworks(1)


@dataclass(frozen=True)
class Networks:
    """The networks of one generation."""

    sampler: Network
    tokenizers: Mapping[str, Tokenizer]
    """Tokenizers of the outputs, and of inputs given as maps."""

    def imagine(self, given: Mapping[str, Tensor], sampling: Sampling, seed: int) -> dict[str, Tensor]:
        """Generate the token ids `[row, col]` of each output for one window."""
        read = {
            name: self.tokenizers[name].encode(values) if name in MAP_NAMES else values
            for name, values in given.items()
        }
        with self.sampler.lock.here:
            module = cast("Imagination", self.sampler.module)
            ids = module.imagine(read, replace(sampling, seed=seed))
        return {name: values.cpu() for name, values in ids.items()}

    @property
    def weights(self) -> dict[str, str]:
        """Identities of all weights, by "model" and modality."""
        return {"model": self.sampler.weights_id} | {
            name: tokenizer.network.weights_id for name, tokenizer in self.tokenizers.items()
        }

    @property
    def note(self) -> str | None:
        """A warning to keep with the pixels, such as random weights."""
        return self.sampler.note or next(
            (one.network.note for one in self.tokenizers.values() if one.network.note), None
        )


def networks_for(
    request: ModelRequest,
    outputs: Sequence[TokenModality],
    tokenizer_ckpts: Mapping[TokenModality, Path],
    device: torch.device,
) -> Networks:
    """Return the decoder and tokenizers of a request, with their weights.

    Raises:
        WeightsError: Weights are missing, unreachable, corrupt, or belong to another model.
    """
    knobs = cast("TerraMindKnobs", request.knobs)
    key = (request.card.id, request.modality_names, tuple(outputs), knobs.pretrained, stamp(knobs.ckpt), device)
    sampler = _SAMPLERS.get(key, lambda: load_sampler(request, outputs, device))
    tokenizers: dict[str, Tokenizer] = {
        name: tokenizer_for(name, tokenizer_ckpts.get(name), pretrained=knobs.pretrained, device=device)
        for name in outputs
    }
    return Networks(sampler, tokenizers | load_map_tokenizers(request, device))


def load_sampler(request: ModelRequest, outputs: Sequence[TokenModality], device: torch.device) -> Network:
    """Load encoder and decoder as a sampler of the outputs.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    found = published_state(request, LibrarySettings.read())
    with own_random_numbers(RANDOM_SEED):
        module = Imagination(request.card, request.modality_names, outputs)
    if found is None:
        random_values(module)
        return Network(module.to(device), f"random:{RANDOM_SEED}", RANDOM_NOTE)
    file, state = found
    load_strict(module.model, pick_state(state, module.model, str(file.path)), source=str(file.path))
    module.requires_grad_(False).eval()
    return Network(module.to(device), file.id)
