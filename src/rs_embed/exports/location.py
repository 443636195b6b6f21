"""Where a run lies: a folder that this process has for itself, or one of an object store."""

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
    """Counts rows, and passes the counts on."""

    tell: Advance
    rows: int = 0
    failed: int = 0

    def __call__(self, done: int, of_them_failed: int) -> None:
        """See `Advance`."""
        self.rows, self.failed = self.rows + done, self.failed + of_them_failed
        self.tell(done, of_them_failed)


@contextmanager
def run_folder(where: Path | Remote, shard: Shard = ALL) -> Iterator[tuple[Path, SharedRun]]:
    """The run folder, made and locked; of an object store, one of this machine with what is known of the run.

    Who does the whole run has the folder alone; who does a shard has that alone, and keeps out who would do the whole.

    It is looked at first: one with something else in it stays as it is, to the last byte and date.

    Object stores have no locks: two exports to the same place do the same work twice, and every file is whole and of
    one of them.

    Raises:
        StorageError: It is in use or its manifest is damaged, or the disk or the store refuses.
        SpecError: There is something else than a run in it.
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
    """What killed processes left half-written is removed: before, and after workers may have died on the way."""
    _sweep(folder, stores, shard)
    yield
    _sweep(folder, stores, shard)


def _sweep(folder: Path, stores: Sequence[UnitStore], shard: Shard) -> None:
    with storing(folder):
        for store in stores:
            store.sweep(shard.has)


def keep_manifest(remote: Remote | None, folder: Path) -> None:
    """Put what names the run into the store, as far as it is not there."""
    if remote is None:
        return
    for name in (MANIFEST, PLACES):
        if remote.size(name) != (folder / name).stat().st_size:
            remote.put(folder, name)


def refuse_foreign(where: Path | Remote, names: Iterable[str]) -> None:
    """A folder with something else in it is nobody's to fill."""
    found = sorted(name for name in names if not name.startswith("."))
    if found:
        raise SpecError(
            f"Expected a new folder or one with a run, got {str(where)!r} with other things in it.",
            found=", ".join(found[:5]),
            fix="choose another folder",
        )


def begun(where: Path | Remote) -> int:
    """Units that have a record, finished or in part, of all models."""
    if isinstance(where, Path):
        return sum(1 for _ in where.glob(f"*/{RECORDS}/u*.json"))
    return sum(name.endswith(".json") and f"/{RECORDS}/u" in name for name in where.sizes())
