"""From a checkpoint file to its tensors by name: told by content, checked against its own sums, no code ever run."""

import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rs_embed.errors import WeightsCorrupt, WeightsNotFound

SHOWN = 5
"""Names listed of each kind."""
DEPTH = 3
"""How deep tensors may lie in dictionaries: `{"checkpoint": {"model": {"state_dict": ...}}}`."""
READ_ERRORS = (
    *(pickle.UnpicklingError, SafetensorError, struct.error, zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)
"""What torch.load, safetensors and zipfile raised on 8,000 damaged files."""
REFETCH = "fetch the file again, or name another by RS_EMBED_<MODEL>_CKPT or `ckpt=`"
RESAVE = (
    "if you trust the file, save its tensors alone, where it was made: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)
_OBJECT = re.compile(r"(?:GLOBAL|global:?|class|type) ([A-Za-z_][\w.]+\.[\w.]+)")
"""How torch.load names what it would have to run code for."""


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU; those in dictionaries under the names on the way to them.

    Tensors of the zip format and of safetensors are mapped, not read: they need the file until they are
    copied, as `load_strict` does. No code in a pickle is ever run. The zip format is compared with the checksums in it
    (0.5 s a gigabyte); the others have none.

    Args:
        file: What torch.save or safetensors wrote; told by content, not by suffix.

    Raises:
        WeightsNotFound: No such file.
        WeightsCorrupt: Anything else than tensors by name, or a zip whose checksums say that it was changed.
    """
    kind = sniff(file)
    try:
        if kind == "safetensors":
            return load_file(file)
        damaged = _damaged_entry(file) if kind == "zip" else None
        if damaged is not None:
            raise unreadable(file, f"damaged: {damaged!r} has another CRC-32 than when it was written", REFETCH)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=kind == "zip")
    except READ_ERRORS as error:
        objects = _OBJECT.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if objects:
            raise unreadable(file, f"it holds Python objects other than tensors: {objects[1]}", RESAVE) from None
        found = f"{type(error).__name__}: {_first_line(error)}"
        raise unreadable(file, found, REFETCH) from error
    return _tensors_of(content, file)


def is_pickled(file: Path) -> bool:
    """Whether torch.save wrote it; safetensors are mapped as they are."""
    return sniff(file) != "safetensors"


def sniff(file: Path) -> Literal["zip", "pickle", "safetensors"]:
    """What the first bytes say, so that a web page or an LFS pointer is called by its name.

    Raises:
        WeightsNotFound: No such file.
        WeightsCorrupt: A folder, or none of the three.
    """
    if file.is_dir():
        raise unreadable(file, "a folder", "name the file inside of it")
    if not file.exists():
        fix = "correct RS_EMBED_<MODEL>_CKPT (or `ckpt=`), or leave it out to use the hub's file"
        raise WeightsNotFound(f"There is no checkpoint at {str(file)!r}.", fix=fix)
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError as error:
        raise unreadable(file, str(error), "make the file readable") from error
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80"):
        return "pickle"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size:
        return "safetensors"
    if not head:
        found = "an empty file"
    elif head.startswith(b"version https://git-lfs"):
        raise unreadable(file, "a git-LFS pointer, not the file itself", "run `git lfs pull` where you cloned it")
    else:
        found = f"neither torch.save's format nor safetensors; it starts with {head[:40]!r}"
    raise unreadable(file, found, REFETCH)


def unreadable(file: Path, found: str, fix: str) -> WeightsCorrupt:
    """The error of a file that is no checkpoint."""
    return WeightsCorrupt(f"{str(file)!r} is not a checkpoint that can be read.", found=found, fix=fix)


def listed(names: Sequence[str], between: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = [f"... and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return between.join([*names[:SHOWN], *more])


def _first_line(error: Exception) -> str:
    """What a reader said; torch begins what it says of pickles with advice to run their code."""
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip() or "no more said"
    return said.splitlines()[0][:200]


def _damaged_entry(file: Path) -> str | None:
    """The first entry of a zip whose content is not what its checksum says.

    Whoever saved it with `torch.serialization.set_crc32_options(False)` left all sums at zero: then nothing is known.
    """
    with zipfile.ZipFile(file) as archive:
        return archive.testzip() if any(entry.CRC for entry in archive.infolist()) else None


def _tensors_of(content: object, file: Path) -> dict[str, Tensor]:
    """The tensors of a plain state dict, or of all that lie in a dictionary of such."""
    if not isinstance(content, dict) or not content:
        raise unreadable(file, f"a {type(content).__name__} where tensors by name were expected", RESAVE)
    nested = dict(_nested(content, DEPTH))
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    others = [f"{name!r} ({type(value).__name__})" for name, value in content.items() if name not in tensors]
    if others and not nested:
        raise unreadable(file, f"beside {len(tensors)} tensors: {listed(others)}", RESAVE)
    return tensors | nested


def _nested(content: Mapping[object, object], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors of the state dicts in `content`: dictionaries that hold tensors by name, and nothing else."""
    for outer, value in content.items():
        if not isinstance(outer, str) or not isinstance(value, dict) or not depth:
            continue
        inner = {name: one for name, one in value.items() if isinstance(name, str) and isinstance(one, Tensor)}
        found = inner.items() if len(inner) == len(value) else _nested(value, depth - 1)
        yield from ((f"{outer}.{name}", one) for name, one in found)
