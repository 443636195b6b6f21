"""What of a checkpoint is the encoder: found under whatever wraps it, told from what lies beside it, never guessed.

Authors save more than an encoder: heads and decoders of the pre-training, a copy averaged over its steps, all of it
under the names that their training gave it. The encoder is found by the names of its own tensors. Under its own parts
(blocks, embeddings, norms) nothing may be missing or left over: that is another size, or another model. What lies
beside them is left, and named.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import Logger

import torch
from torch import Tensor

from rs_embed.embedders.weights.reading import listed
from rs_embed.errors import WeightsMismatch
from rs_embed.redact import logger

log: Logger = logger(__name__)
WRAPPERS = frozenset(
    {
        *("state_dict", "model_state_dict", "model_state", "current_model_state", "weights"),  # of files
        *("module", "_orig_mod", "_forward_module"),  # of DataParallel, torch.compile, Lightning
        *("model", "net", "network", "backbone", "encoder", "base_encoder", "online_encoder", "student"),  # attributes
        "location",  # of SatCLIP: the encoder that is not shown the image
    }
)
"""Names under which a training keeps the module that it trains."""
AVERAGED = frozenset(
    {
        *("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema"),
        *("ema_encoder", "encoder_ema", "averaged_model", "averaged_model_state", "average_model", "swa_model"),
        *("teacher", "target_encoder", "momentum_encoder"),
    }
)
"""Names of copies that are averaged over the steps of a training. None of our authors loads one."""
SHOWN = 24
"""Parts named of what is left: more than any of our families has."""


@dataclass(frozen=True)
class Layout:
    """What a family says of its files, beyond the names of its tensors."""

    within: str = ""
    """Prefix of the encoder in our module, which files do not have."""
    containers: tuple[str, ...] = ()
    """Parts whose members are parts: of embeddings by modality, a file may hold more than are asked for."""
    foreign: tuple[str, ...] = ()
    """Parts that another build of the same encoder has and that change its numbers, so that they are not left."""
    complete: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    """Adds or replaces what is computed rather than trained."""

    def part_of(self, name: str) -> str:
        """The part of the encoder that a tensor belongs to."""
        first, _, rest = name.partition(".")
        return f"{first}.{rest.partition('.')[0]}" if first in self.containers else first


@dataclass(frozen=True)
class Picked:
    """The encoder's tensors by its own names, and what there is to say of them."""

    tensors: dict[str, Tensor]
    note: str | None


def pick(state: Mapping[str, Tensor], wanted: Sequence[str], layout: Layout, source: str) -> Picked:
    """The tensors of a file that are the encoder's: all under its own parts, those it does not know included.

    Args:
        state: Of the file, by its own names.
        wanted: Names of the encoder's tensors.
        source: Which file, for messages.

    Raises:
        WeightsMismatch: None that is known, or two tensors for one name.
    """
    names = [name.removeprefix(layout.within) for name in wanted]
    found = find_roots(state, names, source)
    root, copies = found[0], tuple(found[1:])
    own = {layout.part_of(name) for name in names} | set(layout.foreign)
    tensors, beside = dict[str, Tensor](), Counter[str]()
    for name, tensor in state.items():
        rest = name.removeprefix(root)
        if name.startswith(root) and layout.part_of(rest) in own:
            tensors[layout.within + rest] = tensor
        elif name.startswith(copies):
            continue
        elif any(layout.part_of(inner) in own for _, inner in _splits(rest)):
            tensors[name] = tensor  # of a second encoder, or of another half of this one: strict loading reports it
        else:
            beside[[*_splits(rest)][-1][1].partition(".")[0]] += 1
    remarks = [*_left(beside), *_averaging(root, copies), *_widened(tensors)]
    if remarks:
        log.info("%s: %s", source, "; ".join(remarks))
    return Picked(layout.complete(tensors), "; ".join(remarks) or None)


def find_roots(state: Mapping[str, Tensor], wanted: Iterable[str], source: str) -> list[str]:
    """The prefix under which these tensors lie, such as "model.encoder."; after it those of whole averaged copies.

    Averaged weights come first only where there are no others.

    Raises:
        WeightsMismatch: There is none, or two prefixes have a tensor in common.
    """
    known, found = dict.fromkeys(wanted), dict[str, set[str]]()
    for name in state:
        for prefix, rest in _splits(name, WRAPPERS | AVERAGED):
            if rest in known:
                found.setdefault(prefix, set()).add(rest)
    if not found:
        raise WeightsMismatch(
            f"Expected tensors such as {next(iter(known))!r}, got none of {len(known)}.",
            in_the_file=listed(list(state)),
            source=source,
            fix="use the checkpoint that belongs to this card, or the card that belongs to this checkpoint",
        )
    live = {root: names for root, names in found.items() if not _is_averaged(root)}
    roots = live or found
    best, *others = sorted(roots, key=lambda root: -len(roots[root]))
    for other in others:
        both = sorted(roots[best] & roots[other])
        if both:
            raise WeightsMismatch(
                f"Expected one tensor of each name, got two of {len(both)}.",
                found=f"{best}{both[0]} and {other}{both[0]}",
                source=source,
                fix="save the one that you mean by itself: torch.save(model.state_dict(), 'model.pt')",
            )
    return [best, *(root for root, names in found.items() if root not in roots and names == roots[best])]


def _splits(name: str, wrappers: frozenset[str] = WRAPPERS) -> Iterator[tuple[str, str]]:
    """The name with nothing taken off, then without its first wrapper, and so on: what was taken off, and the rest."""
    prefix, rest = "", name
    yield prefix, rest
    while "." in rest and rest.partition(".")[0] in wrappers:
        first, _, rest = rest.partition(".")
        prefix += f"{first}."
        yield prefix, rest


def _is_averaged(root: str) -> bool:
    return not AVERAGED.isdisjoint(root.split("."))


def _left(beside: Counter[str]) -> list[str]:
    named = [f"{part} ({count})" for part, count in sorted(beside.items())]
    more = [f"{len(named) - SHOWN} more"] if len(named) > SHOWN else []
    return [f"beside the encoder, not used: {', '.join([*named[:SHOWN], *more])}"] if named else []


def _averaging(root: str, copies: Sequence[str]) -> list[str]:
    if _is_averaged(root):
        return [f"weights averaged over the training ({root.rstrip('.')}): the file has no others"]
    return [f"weights of the last step, not those averaged ({copy.rstrip('.')})" for copy in copies]


def _widened(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tells of floats that the network does not compute with."""
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} - {torch.float32}
    return [f"stored as {str(kind).removeprefix('torch.')}, used as float32" for kind in sorted(kinds, key=str)]
