"""Find the encoder in a checkpoint by the names of its tensors.

Authors save more than an encoder: heads and decoders of the pre-training, or a copy averaged over the training steps,
all under the names used in training. The encoder is found by the names of its own tensors. Within its parts (blocks,
embeddings, norms) no tensor may be missing or left over, as that means another size or another model. Other parts are
skipped and listed in a note.
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
"""Names that training code puts in front of the module that it trains."""
AVERAGED = frozenset(
    {
        *("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema"),
        *("ema_encoder", "encoder_ema", "averaged_model", "averaged_model_state", "average_model", "swa_model"),
        *("teacher", "target_encoder", "momentum_encoder"),
    }
)
"""Names of copies averaged over training steps. None of the supported models' authors loads one."""
SHOWN = 24
"""Largest number of skipped parts to list: more than any supported family has."""


@dataclass(frozen=True)
class Layout:
    """What is specific to the files of a model family, beyond the names of the tensors."""

    within: str = ""
    """Prefix of the encoder in the module of this package, which files do not have."""
    containers: tuple[str, ...] = ()
    """Parts whose members count as parts of their own, such as embeddings by modality: a file may hold more of them
    than the request uses."""
    foreign: tuple[str, ...] = ()
    """Parts that another build of the same encoder has and that change its results, so they must not be skipped."""
    complete: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    """Function that adds or replaces tensors that are computed rather than trained."""

    def part_of(self, name: str) -> str:
        """Return the part of the encoder that a tensor belongs to."""
        first, _, rest = name.partition(".")
        return f"{first}.{rest.partition('.')[0]}" if first in self.containers else first


@dataclass(frozen=True)
class Picked:
    """The encoder's tensors under its own names, with a note for the metadata."""

    tensors: dict[str, Tensor]
    note: str | None


def pick(state: Mapping[str, Tensor], wanted: Sequence[str], layout: Layout, source: str) -> Picked:
    """Select the encoder's tensors from a file: all within its parts, including any that it does not know.

    Args:
        state: The tensors of the file, under the file's names.
        wanted: Names of the encoder's tensors.
        layout: What is specific to the files of the family.
        source: Name of the file, for messages.

    Raises:
        WeightsMismatch: The file has none of the tensors, or two for one name.
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
            tensors[name] = tensor  # of a second encoder or another half of this one: strict loading reports it
        else:
            beside[[*_splits(rest)][-1][1].partition(".")[0]] += 1
    remarks = [*_left(beside), *_averaging(root, copies), *_widened(tensors)]
    if remarks:
        log.info("%s: %s", source, "; ".join(remarks))
    return Picked(layout.complete(tensors), "; ".join(remarks) or None)


def find_roots(state: Mapping[str, Tensor], wanted: Iterable[str], source: str) -> list[str]:
    """Return the prefix of the tensors, such as "model.encoder.", followed by the prefixes of complete averaged copies.

    Averaged weights come first only if there are no others.

    Raises:
        WeightsMismatch: No tensor is found, or two prefixes have a tensor in common.
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
                f"Expected one tensor for each name, got two for {len(both)} of them.",
                found=f"{best}{both[0]} and {other}{both[0]}",
                source=source,
                fix="save the model that you want on its own: torch.save(model.state_dict(), 'model.pt')",
            )
    return [best, *(root for root, names in found.items() if root not in roots and names == roots[best])]


def _splits(name: str, wrappers: frozenset[str] = WRAPPERS) -> Iterator[tuple[str, str]]:
    """Yield (prefix, rest) of a name: with no wrapper removed, then with the first removed, and so on."""
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
    """Return a remark on floating-point types that are converted to float32."""
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} - {torch.float32}
    return [f"stored as {str(kind).removeprefix('torch.')}, used as float32" for kind in sorted(kinds, key=str)]
