"""Room on a disk and in memory: asked for before a library, or the system, would end the process for want of it."""

import errno
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryFile

from rs_embed.errors import OutOfMemory

SPARE_BYTES = 100_000
"""Room for metadata beside the values."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS = ("No space left", "File too large", "Disk quota exceeded")
_CANNOT_RESERVE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV}


def is_about_space(error: OSError) -> bool:
    """Whether a disk or quota is full, or a file as large as it may be (libraries may tell in words alone)."""
    return error.errno in _FULL or any(text in str(error) for text in _FULL_TEXTS)


def require_room(folder: Path, size: int) -> None:
    """Raise what the disk would, before a library writes that much.

    GDAL tells of a full disk in an error of its own, and HDF5 takes the process with it (h5py 3.16, signal 11). A file
    without a name is reserved for a moment, because free bytes say nothing of quotas and limits.
    """
    if shutil.disk_usage(folder).free < size + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if sys.platform != "linux":  # others cannot reserve
        return
    with TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size + SPARE_BYTES)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise


def require_memory(size: int, what: str) -> None:
    """Raise `OutOfMemory` for what is larger than the memory of the machine: Linux kills a process without a word."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise OutOfMemory(
            f"Expected imagery that fits into memory, got {what}, which takes {size / 1e9:.0f} GB.",
            machine=f"{memory / 1e9:.0f} GB",
            fix="use a smaller buffer_m, or split the area into places and call get_embeddings or export_embeddings",
        )
