"""Files that are whole or not there, even after a power cut, and a folder that belongs to one process at a time."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

from rs_embed._room import is_about_space
from rs_embed.errors import StorageError

PART = ".part-"
"""Before the name of a file that is still being written."""
LOCK = ".lock"
_WRITER = secrets.token_hex(3)
"""With the process id, in the names of unfinished files: two processes, on two machines, never share one."""
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
        f"Wanted to write to {str(folder)!r}, found: {error}.",
        fix=f"{fix}, then run the same command again: what is finished is kept",
    )


def part_of(path: Path) -> Path:
    """Where a file is written before it gets its name: the same folder, so that renaming it is one step."""
    return path.with_name(f"{PART}{_WRITER}{os.getpid():x}-{path.name}")


def publish(part: Path, path: Path) -> None:
    """Give a finished file or folder its name, once its content is on the disk."""
    for file in [part] if part.is_file() else sorted(part.rglob("*")):
        _sync(file)
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(part, path)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small file in one step."""
    part = part_of(path)
    part.write_text(text, "utf-8")
    publish(part, path)


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


def remove_parts(folder: Path) -> None:
    """Remove what a killed process left half-written in this folder."""
    for part in folder.glob(f"{PART}*"):
        remove(part)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Of a file, or of all files of a folder by name."""
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
        if file != path:
            total.update(str(file.relative_to(path)).encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def used_by(folder: Path) -> str | None:
    """The process that has the lock of a run folder; `None` if nobody has."""
    try:
        with (folder / LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "a process that has not said its name"
    except OSError:  # no lock file, or one that we may not read
        return None
    return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the lock goes with the process, however it ends.

    Raises:
        StorageError: Another process has it, or the file system knows no locks.
    """
    with storing(folder):
        file = (folder / LOCK).open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise StorageError(
                f"Wanted {str(folder)!r} for this process, found it in use.",
                used_by=file.read().strip() or "a process that has not said its name",
                fix="wait until it has ended, or export to another folder",
            ) from error
        except OSError as error:
            raise storage_error(folder, error) from error
        with storing(folder):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield
