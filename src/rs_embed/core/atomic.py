"""Files that are whole or not there, even after a power cut, and a folder that belongs to one process at a time."""

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
"""Before the name of a file that is still being written."""
LOCK = ".lock"
_OURS = re.compile(rf"{re.escape(PART)}[0-9a-f]{{7,}}-.+")
"""What `part_of` makes; a file with another name is somebody else's."""
_LOCK_WORDS = "process "
"""What a lock file of ours begins with, if anything is in it."""
_LOCK_BYTES = 1000
_WRITER = secrets.token_hex(3)
"""With the thread's id, in the names of unfinished files: two threads, on two machines, never share one."""
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Whatever the disk refuses becomes one `StorageError` that says why."""
    try:
        yield
    except OSError as error:
        raise storage_error(folder, error) from error


def storage_error(folder: Path, error: OSError) -> StorageError:
    """A refusal of the disk in words."""
    fix = "check the folder and the disk"
    if is_about_space(error):
        fix = "make room"
    elif error.errno in _FORBIDDEN:
        fix = "choose a folder that you may write to"
    return StorageError(
        f"Expected to write to {str(folder)!r}, got: {error}.",
        fix=f"{fix}, then run the same command again: what is finished is kept",
    )


def part_of(path: Path) -> Path:
    """Where a file is written before it gets its name: the same folder, so that renaming it is one step."""
    return path.with_name(f"{PART}{_WRITER}{threading.get_native_id():x}-{path.name}")


def publish(part: Path, path: Path) -> None:
    """Give a finished file or folder its name, once its content is on the disk. A folder there is not replaced."""
    for file in [part] if part.is_file() else sorted(part.rglob("*")):
        _sync(file)
    os.replace(part, path)
    _sync(path.parent)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Where to write a file or folder, which gets its name when the block ends, and is gone if that fails.

    Args:
        path: Its name.
        durable: Whether it survives a power cut from then on, which takes 8 ms; without, it may not be there.
    """
    part = part_of(path)
    try:
        yield part
        publish(part, path) if durable else os.replace(part, path)
    except BaseException:
        # Zarr's threads may still write into it after Ctrl-C; that must not hide what happened. The next run clears it.
        with suppress(OSError):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        raise


def read_text(path: Path) -> str:
    """The content of a small file.

    Raises:
        OSError: It is none, such as a pipe that would be waited for.
        UnicodeDecodeError: It is no UTF-8.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_text("utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a small file in one step."""
    with replacing(path) as part:
        part.write_text(text, "utf-8")


def write_json(path: Path, value: JsonValue) -> None:
    """Write JSON in one step, for people as well."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder that survives a power cut, with its parents."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def remove_parts(folder: Path, of: Callable[[str], bool] = lambda name: True) -> None:
    """Remove what a killed process of ours left half-written in this folder, unless it is a link to another.

    Args:
        folder: Where.
        of: By the name that a file was to get; others may be at work on those that are left.
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
    """Bytes of a file, or of all files of a folder."""
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
    """The processes that have locks of a run folder; `None` if nobody has."""
    holders = [holder for path in sorted(folder.glob(f"{LOCK}*")) if (holder := _holder_of(path)) is not None]
    return ", ".join(dict.fromkeys(holders)) or None


def is_locked(path: Path) -> bool:
    """Whether a process has that lock."""
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
    except (OSError, StorageError):  # no lock file, or one that we may not read
        return None
    return None


@contextmanager
def locked(folder: Path, name: str = LOCK, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a run folder; the lock goes with the process, however it ends.

    Args:
        folder: Of the run.
        name: Of the lock.
        shared: Keep out only who would have it alone.
        wait: Until it is free.

    Raises:
        StorageError: Another process has it, the file system knows no locks, or the name of the lock is taken by
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
                f"Expected {str(folder)!r} for this process, got one that is in use.",
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
    """The lock file, if it is a file of ours: no link is followed, and no pipe waited for."""
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
    return file.read(_LOCK_BYTES).strip() or "a process that has not said its name"


def _foreign_lock(path: Path) -> StorageError:
    return StorageError(
        f"Expected the lock of an export, or nothing, at {str(path)!r}, got something else.",
        fix="choose another folder, or move it away",
    )
