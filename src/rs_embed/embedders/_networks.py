"""An encoder with its trained weights, or with random ones where they were asked for."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rs_embed.embedders._weights import load_strict, locate, read_state_dict
from rs_embed.embedders.base import ModelRequest, Network
from rs_embed.encoders.layers import Encoder
from rs_embed.errors import WeightsNotFound
from rs_embed.settings import LibrarySettings, WeightsKnobs

RANDOM_SEED = 0
RANDOM_NOTE = "random weights: shapes only"


KeyFilter = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""How the tensors of a family's published files become the encoder's."""


def build_network(
    make: Callable[[], Encoder], request: ModelRequest, settings: LibrarySettings, keys: KeyFilter
) -> Network:
    """The encoder with the weights that knobs and card name.

    It is built on the meta device, so no time goes into values that are replaced at once.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or those of another model.
    """
    card, knobs = request.card, request.knobs
    if card.weights is None or not isinstance(knobs, WeightsKnobs):
        raise WeightsNotFound(f"The card of {card.id} names no weights.", fix="add `weights` to the card")
    with torch.device("meta"):
        module = make()
    if not knobs.pretrained:
        module.to_empty(device="cpu")
        module.init_random(RANDOM_SEED)
        module.eval().requires_grad_(False)
        return Network(module, f"random:{RANDOM_SEED}", RANDOM_NOTE)
    file = locate(card.weights, ckpt=knobs.ckpt, offline=settings.offline, cache_dir=settings.cache_dir)
    state = keys(read_state_dict(file.path))
    load_strict(module, state, source=str(file.path))
    return Network(module, file.id)
