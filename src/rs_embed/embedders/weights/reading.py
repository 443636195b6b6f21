"""Read a checkpoint file into tensors by name, without running code from it.

The format is detected by content, and the checksums in the file are verified.
"""

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
"""Number of names to list of each kind."""
DEPTH = 3
"""Greatest depth of tensors in nested dictionaries: `{"checkpoint": {"model": {"state_dict": ...}}}`."""
READ_ERRORS = (
    *(pickle.UnpicklingError, SafetensorError, struct.error, zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)
"""The exceptions that torch.load, safetensors and zipfile raised on 8,000 damaged files."""
REFETCH = "download the file again, or set RS_EMBED_<MODEL>_CKPT or `ckpt=` to another one"
RESAVE = (
    "if you trust the file, save only its tensors, where it was made: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)
_OBJECT = re.compile(r"(?:GLOBAL|global:?|class|type) ([A-Za-z_][\w.]+\.[\w.]+)")
"""How torch.load names objects that would require running code."""


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, on the CPU; names of nested dictionaries are joined by dots.

    Tensors of the zip format and of safetensors are memory-mapped: they need the file until they are copied, as
    `load_strict` does. No code in a pickle is ever run. The checksums of the zip format are verified (0.5 s per
    gigabyte); the other formats have none.

    Args:
        file: A file written by torch.save or safetensors, detected by content rather than suffix.

    Raises:
        WeightsNotFound: The file does not exist.
        WeightsCorrupt: The file holds anything but tensors by name, or a checksum of the zip format does not match.
    """
    kind = sniff(file)
    try:
        if kind == "safetensors":
            return load_file(file)
        damaged = _damaged_entry(file) if kind == "zip" else None
        if damaged is not None:
            raise unreadable(file, f"damaged: the CRC-32 of {damaged!r} does not match", REFETCH)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=kind == "zip")
    except READ_ERRORS as error:
        objects = _OBJECT.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if objects:
            raise unreadable(file, f"it holds Python objects other than tensors: {objects[1]}", RESAVE) from None
        found = f"{type(error).__name__}: {_first_line(error)}"
        raise unreadable(file, found, REFETCH) from error
    return _tensors_of(content, file)


def is_pickled(file: Path) -> bool:
    """Return whether torch.save wrote the file, and not safetensors."""
    return sniff(file) != "safetensors"


def sniff(file: Path) -> Literal["zip", "pickle", "safetensors"]:
    """Detect the format by the first bytes, with a clear error for a web page or a git-LFS pointer.

    Raises:
        WeightsNotFound: The file does not exist.
        WeightsCorrupt: The path is a folder, or the file has none of the three formats.
    """
    if file.is_dir():
        raise unreadable(file, "a folder", "pass the path of the file inside it")
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
    """Return the error for a file that is not a readable checkpoint."""
    return WeightsCorrupt(f"{str(file)!r} is not a readable checkpoint.", found=found, fix=fix)


def listed(names: Sequence[str], between: str = ", ") -> str:
    """Join the first few names, and say how many more there are."""
    more = [f"... and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return between.join([*names[:SHOWN], *more])


def _first_line(error: Exception) -> str:
    """Return the first line of a reader's message, without torch's advice to run the code of pickles."""
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip() or "no message"
    return message.splitlines()[0][:200]


def _damaged_entry(file: Path) -> str | None:
    """Return the first entry of a zip whose checksum does not match, else `None`.

    Files saved with `torch.serialization.set_crc32_options(False)` have only zeros as checksums and are not checked.
    """
    with zipfile.ZipFile(file) as archive:
        return archive.testzip() if any(entry.CRC for entry in archive.infolist()) else None


def _tensors_of(content: object, file: Path) -> dict[str, Tensor]:
    """Return the tensors of a plain state dict, or of a dictionary of state dicts."""
    if not isinstance(content, dict) or not content:
        raise unreadable(file, f"a {type(content).__name__} instead of tensors by name", RESAVE)
    nested = dict(_nested(content, DEPTH))
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    others = [f"{name!r} ({type(value).__name__})" for name, value in content.items() if name not in tensors]
    if others and not nested:
        raise unreadable(file, f"beside {len(tensors)} tensors: {listed(others)}", RESAVE)
    return tensors | nested


def _nested(content: Mapping[object, object], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the state dicts in `content`: dictionaries that hold only tensors by name."""
    for outer, value in content.items():
        if not isinstance(outer, str) or not isinstance(value, dict) or not depth:
            continue
        inner = {name: one for name, one in value.items() if isinstance(name, str) and isinstance(one, Tensor)}
        found = inner.items() if len(inner) == len(value) else _nested(value, depth - 1)
        yield from ((f"{outer}.{name}", one) for name, one in found)
