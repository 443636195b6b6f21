"""Check for free disk and memory beforehand, where a library or the system would otherwise kill the process."""

import errno
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryFile

from rs_embed.errors import OutOfMemory

SPARE_BYTES = 100_000
"""Space for metadata, bytes."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS = ("No space left", "File too large", "Disk quota exceeded")
_CANNOT_RESERVE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV}


def is_about_space(error: OSError) -> bool:
    """Whether a disk or quota is full, or a file has its maximum size (some libraries say so only in the message)."""
    return error.errno in _FULL or any(text in str(error) for text in _FULL_TEXTS)


def require_room(folder: Path, size: int) -> None:
    """Raise the disk's own error before a library writes `size` bytes.

    GDAL reports a full disk with an error of its own, and HDF5 kills the process (h5py 3.16, signal 11). An unnamed
    file of that size is reserved for a moment, because free bytes do not account for quotas and limits.
    """
    if shutil.disk_usage(folder).free < size + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if sys.platform != "linux":  # other systems cannot reserve space
        return
    with TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size + SPARE_BYTES)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise


def require_memory(size: int, what: str) -> None:
    """Raise `OutOfMemory` for more bytes than the machine's memory: Linux would kill the process silently."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise OutOfMemory(
            f"Expected imagery that fits into memory, got {what}, which takes {size / 1e9:.0f} GB.",
            machine=f"{memory / 1e9:.0f} GB",
            fix="use a smaller buffer_m, or split the area into places and call get_embeddings or export_embeddings",
        )
