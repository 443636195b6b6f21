"""An encoder with its trained weights, or with random ones where they were asked for."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rs_embed.embedders._converted import Converted
from rs_embed.embedders._weights import WeightsFile, is_pickled, load_strict, locate, read_state_dict
from rs_embed.embedders.base import ModelRequest, Network
from rs_embed.encoders.layers import Encoder
from rs_embed.errors import ChoiceWarning, WeightsNotFound, warn
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
        if knobs.ckpt is not None:
            warn(f"pretrained=False (keyword or variable): {str(knobs.ckpt)!r} is not read.", ChoiceWarning)
        module.to_empty(device="cpu")
        module.init_random(RANDOM_SEED)
        module.eval().requires_grad_(False)
        return Network(module, f"random:{RANDOM_SEED}", RANDOM_NOTE, settings.kernels)
    file = locate(card.weights, ckpt=knobs.ckpt, offline=settings.offline, cache_dir=settings.cache_dir)
    _load(module, file, keys, keep=settings.keep_converted)
    return Network(module, file.id, kernels=settings.kernels)


def published_state(request: ModelRequest, settings: LibrarySettings) -> tuple[WeightsFile, dict[str, Tensor]] | None:
    """The file that knobs and card name, and its tensors; `None` where random ones are asked for.

    For networks of packages that are slow to import: what is wrong with the file is told before that.

    Raises:
        WeightsError: The file is missing, unreachable or corrupt.
    """
    card, knobs = request.card, request.knobs
    if card.weights is None or not isinstance(knobs, WeightsKnobs):
        raise WeightsNotFound(f"The card of {card.id} names no weights.", fix="add `weights` to the card")
    if not knobs.pretrained:
        return None
    file = locate(card.weights, ckpt=knobs.ckpt, offline=settings.offline, cache_dir=settings.cache_dir)
    return file, read_state_dict(file.path)


def _load(module: nn.Module, file: WeightsFile, keys: KeyFilter, *, keep: bool) -> None:
    """From the converted tensors of an earlier start, else from the file itself, which is then converted."""
    converted = None
    if keep and file.notes is not None and is_pickled(file.path):
        converted = Converted.of(module, file.sha256, file.notes)
    state = None if converted is None else converted.read()
    if state is not None:
        load_strict(module, state, source=f"{file.path}, converted", copy=False)
        return
    load_strict(module, keys(read_state_dict(file.path)), source=str(file.path))
    if converted is not None:
        converted.write(module.state_dict())
