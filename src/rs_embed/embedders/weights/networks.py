"""Build encoders with trained weights, or with random ones on request."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rs_embed.core.settings import LibrarySettings, WeightsKnobs
from rs_embed.embedders.base import ModelRequest, Network
from rs_embed.embedders.weights.converted import Converted
from rs_embed.embedders.weights.layout import Layout, Picked, pick
from rs_embed.embedders.weights.load import WeightsFile, load_strict, locate
from rs_embed.embedders.weights.reading import is_pickled, read_state_dict
from rs_embed.encoders.layers import Encoder
from rs_embed.errors import ChoiceWarning, WeightsNotFound, warn

RANDOM_SEED = 0
RANDOM_NOTE = "random weights: shapes only"


def build_network(
    make: Callable[[], Encoder], request: ModelRequest, settings: LibrarySettings, layout: Layout
) -> Network:
    """Build an encoder with the weights given by the knobs and the card.

    The encoder is built on the meta device, so that no time is spent on initial values that are replaced.

    Raises:
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    card, knobs = request.card, request.knobs
    if card.weights is None or not isinstance(knobs, WeightsKnobs):
        raise WeightsNotFound(f"The card of {card.id} names no weights.", fix="add `weights` to the card")
    with torch.device("meta"):
        module = make()
    if not knobs.pretrained:
        if knobs.ckpt is not None:
            warn(f"{str(knobs.ckpt)!r} is ignored because pretrained=False (keyword or variable).", ChoiceWarning)
        # Not `to_empty`: for tensors without values torch imports sympy, which takes longer than torch itself.
        module._apply(lambda one: torch.empty(one.shape, dtype=one.dtype, device="cpu"))  # type: ignore[no-untyped-call]
        module.init_random(RANDOM_SEED)
        module.eval().requires_grad_(False)
        return Network(module, f"random:{RANDOM_SEED}", RANDOM_NOTE, settings.kernels)
    file = locate(card.weights, ckpt=knobs.ckpt, offline=settings.offline, cache_dir=settings.cache_dir)
    note = _load(module, file, layout, keep=settings.keep_converted)
    return Network(module, file.id, note, settings.kernels)


def published_state(request: ModelRequest, settings: LibrarySettings) -> tuple[WeightsFile, dict[str, Tensor]] | None:
    """Return the file given by the knobs and the card, and its tensors; `None` if random weights are requested.

    Use it for networks of packages that are slow to import, so that errors of the file are raised before the import.

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


def load_picked(module: nn.Module, file: WeightsFile, state: dict[str, Tensor], layout: Layout) -> str | None:
    """Load a module's tensors from those of a file; return the note for the metadata.

    Raises:
        WeightsError: The tensors are corrupt or belong to another model.
    """
    picked = pick(state, list(module.state_dict()), layout, str(file.path))
    load_strict(module, picked.tensors, source=str(file.path))
    return picked.note


def _load(module: nn.Module, file: WeightsFile, layout: Layout, *, keep: bool) -> str | None:
    """Load the converted tensors from the cache if possible, else the file itself, and cache the conversion."""
    converted = None
    if keep and file.notes is not None and is_pickled(file.path):
        converted = Converted.of(module, file.sha256, file.notes)
    kept = None if converted is None else converted.read()
    if kept is not None:
        load_strict(module, kept.tensors, source=f"{file.path}, converted", copy=False)
        return kept.note
    note = load_picked(module, file, read_state_dict(file.path), layout)
    if converted is not None:
        converted.write(Picked(module.state_dict(), note))
    return note
