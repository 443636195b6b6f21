"""An encoder with its trained weights, or with random ones where they were asked for."""

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
        # Not `to_empty`: for tensors without values torch imports sympy, which takes longer than torch itself.
        module._apply(lambda one: torch.empty(one.shape, dtype=one.dtype, device="cpu"))  # type: ignore[no-untyped-call]
        module.init_random(RANDOM_SEED)
        module.eval().requires_grad_(False)
        return Network(module, f"random:{RANDOM_SEED}", RANDOM_NOTE, settings.kernels)
    file = locate(card.weights, ckpt=knobs.ckpt, offline=settings.offline, cache_dir=settings.cache_dir)
    note = _load(module, file, layout, keep=settings.keep_converted)
    return Network(module, file.id, note, settings.kernels)


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


def load_picked(module: nn.Module, file: WeightsFile, state: dict[str, Tensor], layout: Layout) -> str | None:
    """Give a module its tensors out of those of a file; what there is to say of them.

    Raises:
        WeightsError: Corrupt, or those of another model.
    """
    picked = pick(state, list(module.state_dict()), layout, str(file.path))
    load_strict(module, picked.tensors, source=str(file.path))
    return picked.note


def _load(module: nn.Module, file: WeightsFile, layout: Layout, *, keep: bool) -> str | None:
    """From the converted tensors of an earlier start, else from the file itself, which is then converted."""
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
