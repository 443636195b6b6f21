"""From a card's `Weights` to a module that holds them: locate, read, filter, load strictly."""

import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rs_embed.embedders._hashes import NOTES, remembered_sha256, sha256_of
from rs_embed.embedders._hub import Retry, obtain
from rs_embed.embedders.card import Weights
from rs_embed.errors import WeightsCorrupt, WeightsMismatch, WeightsNotFound

PATIENT = Retry()
SHOWN = 5
"""Names listed of each kind of mismatch."""
READ_ERRORS = (
    *(pickle.UnpicklingError, SafetensorError, struct.error, EOFError, OSError, MemoryError),
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError),
)
"""What torch.load and safetensors raised on 8,000 damaged files."""
REFETCH = "fetch the file again, or name another by RS_EMBED_<MODEL>_CKPT or `ckpt=`"
RESAVE = (
    "if you trust the file, save its tensors alone, where it was made: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)


@dataclass(frozen=True)
class WeightsFile:
    """A checkpoint on this disk, and how to know it again."""

    path: Path
    origin: Literal["ckpt", "hub"]
    sha256: str
    hub: str | None = None
    """Repository, where it came from the hub."""
    revision: str | None = None
    """Commit, where it came from the hub."""
    file: str = ""
    """Path inside the repository, or the file's own name."""
    notes: Path | None = None
    """Where we may keep what was found out about it."""

    @property
    def id(self) -> str:
        """For metadata: `hub:<repository>@<commit>:<file>#sha256:<hex>` or `ckpt:<file>#sha256:<hex>`."""
        place = "ckpt" if self.hub is None else f"hub:{self.hub}@{self.revision}"
        return f"{place}:{self.file}#sha256:{self.sha256}"


def locate(
    weights: Weights,
    *,
    ckpt: str | Path | None,
    offline: bool,
    cache_dir: Path | None,
    endpoint: str | None = None,
    retry: Retry = PATIENT,
) -> WeightsFile:
    """The checkpoint: the file named by `ckpt`, else the hub's cache, else the hub.

    A cached file is used without asking anybody. Whatever is used has been hashed, at the latest when it was last
    changed; a file from the hub is compared with the card's sha256, or with the hub's own where the card has none.

    Args:
        weights: What the card says.
        ckpt: A file to use instead; its hash is recorded, not compared.
        offline: Never ask the hub; HF_HUB_OFFLINE says the same.
        cache_dir: None is the hub client's own cache (HF_HOME, HF_HUB_CACHE); then nothing is noted of `ckpt`.
        endpoint: None is the hub client's own (HF_ENDPOINT).
        retry: How patiently the hub is asked.

    Raises:
        WeightsNotFound: No such file here, or no such repository, revision or file on the hub.
        WeightsUnreachable: The hub refused, failed, or may not be asked.
        WeightsCorrupt: Not a file, or a file of another hash than it should have.
    """
    if ckpt is not None:
        path = Path(ckpt).expanduser()
        _sniff(path)
        notes = None if cache_dir is None else Path(cache_dir).expanduser() / NOTES
        digest = sha256_of(path) if notes is None else remembered_sha256(path, notes, wanted=None)
        return WeightsFile(path, "ckpt", digest, file=path.name, notes=notes)
    found = obtain(weights, offline=offline, cache_dir=cache_dir, endpoint=endpoint, retry=retry)
    return WeightsFile(found.path, "hub", found.sha256, weights.hub, found.commit, weights.file, found.notes)


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, from the top level or from under "state_dict".

    Tensors of the zip format and of safetensors are mapped, not read: they need the file until they are
    copied, as `load_strict` does. No code in a pickle is ever run.

    Args:
        file: What torch.save or safetensors wrote; told by content, not by suffix.

    Raises:
        WeightsNotFound: No such file.
        WeightsCorrupt: Anything else than tensors by name.
    """
    kind = _sniff(file)
    try:
        if kind == "safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=kind == "zip")
    except READ_ERRORS as error:
        unsafe = isinstance(error, pickle.UnpicklingError)
        found = f"{type(error).__name__}: {(str(error) or 'no more said').splitlines()[0][:200]}"
        fix = f"{REFETCH}; {RESAVE}" if unsafe else REFETCH
        raise _unreadable(file, found, fix) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    return _tensors_only(content, file)


def strip_prefix(state: Mapping[str, Tensor], prefix: str, ignored: Sequence[str]) -> dict[str, Tensor]:
    """The tensors under `prefix`, renamed without it; if no name has it, all of them, as already stripped.

    A tensor beside the prefix keeps a name that no module has, so that strict loading reports it.

    Args:
        state: Tensors by name.
        prefix: Such as "encoder.".
        ignored: Patterns for whole names (after stripping) that are dropped: what the family does not use.
    """
    if not any(name.startswith(prefix) for name in state):
        prefix = ""
    return {
        name.removeprefix(prefix) if name.startswith(prefix) else f"{name} (not under {prefix!r})": tensor
        for name, tensor in state.items()
        if not any(re.fullmatch(pattern, name.removeprefix(prefix)) for pattern in ignored)
    }


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, source: str, copy: bool = True) -> None:
    """Give `module` these tensors, as frozen float32 copies, and put it into eval mode.

    Args:
        module: Built on the meta device; nothing may be left there.
        state: Exactly the names and shapes of `module`, every value finite.
        source: For the message: which checkpoint this is.
        copy: False takes float32 tensors as they are: mapped from a file that nobody writes to.

    Raises:
        WeightsMismatch: Another name, shape or kind of number, or a tensor that no checkpoint holds.
        WeightsCorrupt: A value that is not finite.
    """
    _match(module.state_dict(), state, source)
    checked = {name: _checked(name, state[name], source, copy=copy) for name in state}
    module.load_state_dict(checked, assign=True)
    stranded = [
        name
        for tensors in (module.named_parameters(), module.named_buffers())
        for name, tensor in tensors
        if tensor.is_meta
    ]
    if stranded:
        raise WeightsMismatch(
            f"{len(stranded)} tensors of {type(module).__name__} got no values.",
            no_values=_listed(stranded),
            source=source,
            fix="a buffer that is computed, not stored, must be computed outside of the meta device",
        )
    module.requires_grad_(False).eval()


def is_pickled(file: Path) -> bool:
    """Whether torch.save wrote it; safetensors are mapped as they are."""
    return _sniff(file) != "safetensors"


def _sniff(file: Path) -> Literal["zip", "pickle", "safetensors"]:
    """What the first bytes say, so that a web page or an LFS pointer is called by its name."""
    if file.is_dir():
        raise _unreadable(file, "a folder", "name the file inside of it")
    if not file.exists():
        fix = "correct RS_EMBED_<MODEL>_CKPT (or `ckpt=`), or leave it out to use the hub's file"
        raise WeightsNotFound(f"There is no checkpoint at {str(file)!r}.", fix=fix)
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError as error:
        raise _unreadable(file, str(error), "make the file readable") from error
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80"):
        return "pickle"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size:
        return "safetensors"
    if not head:
        found = "an empty file"
    elif head.startswith(b"version https://git-lfs"):
        raise _unreadable(file, "a git-LFS pointer, not the file itself", "run `git lfs pull` where you cloned it")
    else:
        found = f"neither torch.save's format nor safetensors; it starts with {head[:40]!r}"
    raise _unreadable(file, found, REFETCH)


def _unreadable(file: Path, found: str, fix: str) -> WeightsCorrupt:
    return WeightsCorrupt(f"{str(file)!r} is not a checkpoint that can be read.", found=found, fix=fix)


def _tensors_only(content: object, file: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not content:
        raise _unreadable(file, f"a {type(content).__name__} where tensors by name were wanted", RESAVE)
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    others = [f"{name!r} ({type(value).__name__})" for name, value in content.items() if name not in tensors]
    if others:
        raise _unreadable(file, f"beside {len(tensors)} tensors: {_listed(others)}", RESAVE)
    return tensors


def _match(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    other = [
        f"{name} {_described(state[name])}, wanted {_described(tensor)}"
        for name, tensor in wanted.items()
        if name in state and _described(state[name]) != _described(tensor)
    ]
    if missing or unexpected or other:
        raise WeightsMismatch(
            f"The checkpoint is not one of this model: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {len(other)} of another shape.",
            missing=_listed(missing) or None,
            unexpected=_listed(unexpected) or None,
            other_shape=_listed(other, "\n") or None,
            source=source,
            fix="use the checkpoint that belongs to this card, or the card that belongs to this checkpoint",
        )


def _described(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{list(tensor.shape)}{kind}"


def _checked(name: str, tensor: Tensor, source: str, *, copy: bool) -> Tensor:
    """Finite float32; a copy, since a mapped tensor would change, or crash the process, when its file is saved over."""
    if not tensor.is_floating_point():
        return tensor.clone() if copy else tensor
    copied = tensor.to(torch.float32, copy=copy)
    # A sum is finite only if all its terms are, and takes one pass and no memory (isfinite: 5 times slower).
    if not copied.sum().isfinite() and not copied.isfinite().all():
        raise WeightsCorrupt(
            f"{name!r} holds values that are not finite.",
            found=f"{int((~copied.isfinite()).sum())} of {copied.numel()} are NaN or infinite",
            source=source,
            fix=REFETCH,
        )
    return copied


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = [f"... and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return between.join([*names[:SHOWN], *more])
