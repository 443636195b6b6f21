"""An index in the folder of a run: where it is, what was built, and whether it still matches the run."""

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

from rs_embed.errors import MissingDependency, RSEmbedWarning, StorageError
from rs_embed.exports.results.index import FACTS, IndexFacts
from rs_embed.exports.unit import RECORDS

T = TypeVar("T")
FOLDER = "index"
DIGEST = "records"
"""The field of an index that holds `records_digest` of its run."""


@dataclass(frozen=True)
class IndexReport:
    """What `Run.build_index` or `EmbeddingMap.build_index` built. Printing it gives the summary."""

    folder: Path
    rows: int
    """Number of vectors in the index; failed rows and tokens without a value have none."""
    bytes: int
    recall: float
    """Share of the ten nearest that a search finds, measured on some of the vectors."""
    library: str

    @classmethod
    def of(cls, folder: Path, facts: IndexFacts) -> Self:
        """Return the report of a new index."""
        size = sum(stamp.bytes for stamp in facts.files.values())
        return cls(folder, facts.count, size, facts.recall, facts.library)

    def __str__(self) -> str:
        return (
            f"{self.rows:,} vectors ({self.bytes / 1e6:,.1f} MB) in {str(self.folder)!r}, "
            f"{self.recall:.1%} of the ten nearest are found ({self.library})"
        )


def records_digest(model: Path) -> str:
    """sha256 of the records of all units of a model: it changes if a row is added, retried or remade."""
    total = hashlib.sha256()
    for path in sorted((model / RECORDS).glob("u*.json")):
        total.update(f"{path.name} ".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


class KeptIndex(Generic[T]):
    """The index of a model: opened when first needed, and again after it or the run has changed.

    Args:
        model: Folder of the model in the run.
        opened: Opens an index, given its folder and its metadata.
    """

    def __init__(self, model: Path, opened: Callable[[Path, IndexFacts], T]) -> None:
        self.folder = model.parent / FOLDER / model.name
        self._model, self._opened = model, opened
        self._seen: object = None
        self._found: T | None = None
        self._warned = False

    def current(self) -> T | None:
        """Return the index if it is intact and matches the run; otherwise warn once."""
        seen = self._look()
        if seen != self._seen:
            self._found, self._seen = self._open(), seen
        return self._found

    def _look(self) -> object:
        """A key that changes with the index or a record, without reading them."""
        paths = [self.folder / FACTS, *sorted((self._model / RECORDS).glob("u*.json"))]
        return [
            (path.name, known.st_ino, known.st_mtime_ns, known.st_size)
            for path in paths
            if (known := _stat(path)) is not None
        ]

    def _open(self) -> T | None:
        try:
            facts = IndexFacts.read(self.folder)
            if facts is None:
                return None
            if facts.about.get(DIGEST) == records_digest(self._model):
                return self._opened(self.folder, facts)
            reason, fix = "the run has changed since it was built", f"rs-embed index {self._model.parent}"
        except (StorageError, MissingDependency) as error:
            reason, fix = error.headline, error.fix or ""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"All vectors are compared, as the index in {str(self.folder)!r} is not used: {reason}\n  fix: {fix}",
                RSEmbedWarning,
                stacklevel=4,
            )
        return None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
