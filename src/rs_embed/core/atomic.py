"""Atomic files that survive a power cut, and locks that reserve a folder for one process."""

import errno
import json
import os
import re
import secrets
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from pydantic import JsonValue

from rs_embed.core.resources import is_about_space
from rs_embed.errors import StorageError

_HAS_LOCKS = find_spec("fcntl") is not None
if _HAS_LOCKS:
    import fcntl

PART = ".part-"
"""Prefix of the name of a file that is still being written."""
LOCK = ".lock"
_OURS = re.compile(rf"{re.escape(PART)}[0-9a-f]{{7,}}-.+")
"""Names that `part_of` makes; a file with any other name is not ours."""
_LOCK_WORDS = "process "
"""The first characters of our lock files, unless they are empty."""
_LOCK_BYTES = 1000
_WRITER = secrets.token_hex(3)
"""Part of the names of unfinished files, with the thread's id, so that no two threads share one, on any machine."""
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn any error of the disk into a `StorageError` that says why."""
    try:
        yield
    except OSError as error:
        raise storage_error(folder, error) from error


def storage_error(folder: Path, error: OSError) -> StorageError:
    """Describe an error of the disk as a `StorageError`."""
    fix = "check the folder and the disk"
    if is_about_space(error):
        fix = "free some space"
    elif error.errno in _FORBIDDEN:
        fix = "choose a folder that you may write to"
    return StorageError(
        f"Expected to write to {str(folder)!r}, got: {error}.",
        fix=f"{fix}, then run the same command again; finished work is kept",
    )


def part_of(path: Path) -> Path:
    """Return the temporary path of a file: in the same folder, so that renaming it is atomic."""
    return path.with_name(f"{PART}{_WRITER}{threading.get_native_id():x}-{path.name}")


def publish(part: Path, path: Path) -> None:
    """Sync a finished file or folder to disk and give it its name. An existing folder is not replaced."""
    for file in [part] if part.is_file() else sorted(part.rglob("*")):
        _sync(file)
    os.replace(part, path)
    _sync(path.parent)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to; rename it to `path` when the block ends, and remove it if the block fails.

    Args:
        path: The final path of the file or folder.
        durable: Whether to sync it to disk (8 ms). Otherwise it may be lost in a power cut.
    """
    part = part_of(path)
    try:
        yield part
        publish(part, path) if durable else os.replace(part, path)
    except BaseException:
        # Zarr's threads may still write into it after Ctrl-C; that must not hide the interrupt. The next run clears it.
        with suppress(OSError):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        raise


def read_text(path: Path) -> str:
    """Read a small file.

    Raises:
        OSError: It is not a regular file: a pipe, for example, might block.
        UnicodeDecodeError: It is not UTF-8.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_text("utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with replacing(path) as part:
        part.write_text(text, "utf-8")


def write_json(path: Path, value: JsonValue) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder and its parents so that they survive a power cut."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def remove_parts(folder: Path, of: Callable[[str], bool] = lambda name: True) -> None:
    """Remove half-written files that a killed process of ours left in a folder. Symbolic links are left alone.

    Args:
        folder: The folder.
        of: Takes the final name of a file and says whether to remove it; other processes may be writing the rest.
    """
    if folder.is_symlink():
        return
    for part in folder.glob(f"{PART}*"):
        if _OURS.fullmatch(part.name) and of(part.name.removeprefix(PART).partition("-")[2]):
            remove(part)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _sync(path: Path) -> None:
    if os.name == "nt":  # Windows neither opens folders nor syncs a file that was opened to be read
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def used_by(folder: Path) -> str | None:
    """Name the processes that hold locks in a run folder; `None` if there are none."""
    holders = [holder for path in sorted(folder.glob(f"{LOCK}*")) if (holder := _holder_of(path)) is not None]
    return ", ".join(dict.fromkeys(holders)) or None


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock."""
    return _holder_of(path) is not None


def _holder_of(path: Path) -> str | None:
    if not _HAS_LOCKS:
        return None
    try:
        with _open_lock(path, os.O_RDONLY) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(file)
    except (OSError, StorageError):  # no lock file, or one without read permission
        return None
    return None


@contextmanager
def locked(folder: Path, name: str = LOCK, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Lock a run folder against other processes. The lock is released when the process ends, however it ends.

    Args:
        folder: The run folder.
        name: Name of the lock file.
        shared: Take a shared lock, which keeps out only processes that want an exclusive one.
        wait: Wait until the lock is free.

    Raises:
        StorageError: Another process holds the lock, the file system has no locks, or the path of the lock is taken by
            something else, which is left as it is.
    """
    if not _HAS_LOCKS:
        raise StorageError(
            "Expected a system with POSIX file locks, got one without.",
            fix="on Windows, export within the Windows Subsystem for Linux",
        )
    with storing(folder):
        file = _open_lock(folder / name, os.O_RDWR | os.O_CREAT)
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise StorageError(
                f"Expected {str(folder)!r} to be free, got a folder in use by another process.",
                used_by=used_by(folder) or _holder(file),
                fix="wait until it has ended, or export to another folder",
            ) from error
        except OSError as error:
            raise storage_error(folder, error) from error
        if not shared:
            with storing(folder):
                file.truncate(0)
                file.write(f"{_LOCK_WORDS}{os.getpid()} on {socket.gethostname()}\n")
                file.flush()
        yield


def _open_lock(path: Path, flags: int) -> TextIO:
    """Open the lock file if it is one of ours. Symbolic links and pipes are refused."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise _foreign_lock(path) from error
        raise
    said = os.pread(handle, _LOCK_BYTES, 0) if stat.S_ISREG(os.fstat(handle).st_mode) else b"none"
    if said and not said.startswith(_LOCK_WORDS.encode()):
        os.close(handle)
        raise _foreign_lock(path)
    return os.fdopen(handle, "r" if flags == os.O_RDONLY else "r+", encoding="utf-8", errors="replace")


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read(_LOCK_BYTES).strip() or "an unknown process"


def _foreign_lock(path: Path) -> StorageError:
    return StorageError(
        f"Expected the lock of an export, or nothing, at {str(path)!r}, got something else.",
        fix="choose another folder, or move that file away",
    )
