"""The location of a run: a locked folder on this machine, or a folder in an object store."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rs_embed.core.atomic import locked, make_folder, storing
from rs_embed.errors import SpecError
from rs_embed.exports.journal import MANIFEST, PLACES, Manifest
from rs_embed.exports.object_store import Remote
from rs_embed.exports.records import UnitStore
from rs_embed.exports.sharding import ALL, Shard, SharedRun, sharing
from rs_embed.exports.unit import RECORDS
from rs_embed.exports.work import Advance


@dataclass
class Tally:
    """Counts rows, and passes the counts on to `tell`."""

    tell: Advance
    rows: int = 0
    failed: int = 0

    def __call__(self, done: int, of_them_failed: int) -> None:
        """See `Advance`."""
        self.rows, self.failed = self.rows + done, self.failed + of_them_failed
        self.tell(done, of_them_failed)


@contextmanager
def run_folder(where: Path | Remote, shard: Shard = ALL) -> Iterator[tuple[Path, SharedRun]]:
    """Make and lock the run folder. For an object store, use a folder on this machine with what is known of the run.

    A process that does the whole run locks the folder exclusively. A process that does a shard locks that shard, and
    keeps out processes that would do the whole run.

    The location is checked before anything is written: a folder with other contents stays as it is.

    Object stores have no locks: two exports to the same place do the same work twice, but every file is complete and
    comes from one of them.

    Raises:
        StorageError: The folder is in use or its manifest is damaged, or the disk or the store fails.
        SpecError: The folder holds something other than a run.
    """
    if isinstance(where, Path):
        with storing(where):
            _look(where)
            make_folder(where)
        parted = shard != ALL
        with locked(where, shared=parted), sharing(where if parted else None, shard) as gate:
            yield where, gate
        return
    with TemporaryDirectory(prefix="rs-embed-") as text:
        folder = Path(text)
        if where.get(MANIFEST, folder):
            where.get(PLACES, folder)
        else:
            refuse_foreign(where, {name.partition("/")[0] for name in where.sizes()})
        with sharing(None, shard) as gate:
            yield folder, gate


def _look(where: Path) -> None:
    if where.is_dir() and Manifest.read(where) is None:
        refuse_foreign(where, [one.name for one in where.iterdir()])


@contextmanager
def swept(folder: Path, stores: Sequence[UnitStore], shard: Shard) -> Iterator[None]:
    """Remove half-written files of killed processes, before the block and after it, as workers may die in it."""
    _sweep(folder, stores, shard)
    yield
    _sweep(folder, stores, shard)


def _sweep(folder: Path, stores: Sequence[UnitStore], shard: Shard) -> None:
    with storing(folder):
        for store in stores:
            store.sweep(shard.has)


def keep_manifest(remote: Remote | None, folder: Path) -> None:
    """Upload the manifest and the places to the store, if they are not there yet."""
    if remote is None:
        return
    for name in (MANIFEST, PLACES):
        if remote.size(name) != (folder / name).stat().st_size:
            remote.put(folder, name)


def refuse_foreign(where: Path | Remote, names: Iterable[str]) -> None:
    """Refuse a folder that holds something other than a run."""
    found = sorted(name for name in names if not name.startswith("."))
    if found:
        raise SpecError(
            f"Expected a new folder or one with a run, got {str(where)!r} with other contents.",
            found=", ".join(found[:5]),
            fix="choose another folder",
        )


def begun(where: Path | Remote) -> int:
    """Return the number of units with a record, finished or in part, for all models."""
    if isinstance(where, Path):
        return sum(1 for _ in where.glob(f"*/{RECORDS}/u*.json"))
    return sum(name.endswith(".json") and f"/{RECORDS}/u" in name for name in where.sizes())
