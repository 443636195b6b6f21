"""A note of the sha256 of a file, so that a file that did not change is not read again to know it."""

import hashlib
import re
import time
from logging import Logger
from pathlib import Path

from rs_embed.core.hashing import sha256_of
from rs_embed.redact import logger

log: Logger = logger(__name__)
SHA256 = re.compile(r"[0-9a-f]{64}")
NOTES = ".rs_embed"
"""Name of the folders in which we note hashes and keep converted weights."""
SETTLED_S = 2.0
"""A file changed more recently may change once more without its time telling: clocks of file systems are coarse."""


def remembered_sha256(path: Path, notes: Path, wanted: str | None) -> str:
    """The file's hash, from a note of an earlier run if the file is unchanged and the note is as wanted.

    Unchanged means the same size, time of change of content, and time of change of the entry, which no tool sets.

    Args:
        path: The file.
        notes: Folder of the notes; made if need be.
        wanted: The hash that it should have, if somebody says so.
    """
    state = path.stat()
    key = f"{path.absolute()}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}"
    note = notes / hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        noted = note.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        noted = ""
    if SHA256.fullmatch(noted) and wanted in (None, noted):
        return noted
    digest = sha256_of(path)
    if wanted is None and time.time() - state.st_ctime < SETTLED_S:
        return digest
    try:
        notes.mkdir(parents=True, exist_ok=True)
        note.write_text(digest, "ascii")
    except OSError as error:  # a cache that cannot be written is still a cache
        log.debug("no note of the sha256 of %s: %s", path, error)
    return digest
