"""A cache of the sha256 of files, so that unchanged files need not be hashed again."""

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
"""Name of the folders for cached hashes and converted weights."""
SETTLED_S = 2.0
"""A hash is not cached for a file changed within this time: file system clocks are coarse, so a further change might
not alter its timestamp."""


def remembered_sha256(path: Path, notes: Path, wanted: str | None) -> str:
    """Return the file's sha256, from the cache if the file is unchanged and the cached hash is the expected one.

    A file is unchanged if its size, modification time (mtime) and change time (ctime), which tools cannot set, are the
    same.

    Args:
        path: The file.
        notes: Folder of cached hashes; created if necessary.
        wanted: The hash that the file should have; `None` if unknown.
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
    except OSError as error:  # a read-only cache is not an error
        log.debug("Cannot cache the sha256 of %s: %s", path, error)
    return digest
