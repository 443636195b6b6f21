"""Split a run among independent processes: each does every n-th unit, under a lock of its own."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rs_embed.core.atomic import LOCK, is_locked, locked
from rs_embed.core.checks import require_whole, short
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.object_store import Remote
from rs_embed.exports.records import Record, UnitStore
from rs_embed.exports.unit import Units, WorkUnit

SETUP = f"{LOCK}-setup"
"""Held briefly while writing what all shards share: the manifest at the start, the STAC files at the end."""
MAX_SHARDS = 100_000
_NUMBER = re.compile(r"u(\d{6,})\.")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th unit of a run, starting with unit `index`."""

    index: int
    count: int

    @classmethod
    def of(cls, given: object) -> Self:
        """Read a shard as users write it: (3, 16) or "3/16".

        Raises:
            SpecError: It is something else, or there is no such shard.
        """
        parts = given.split("/") if isinstance(given, str) else given
        if not isinstance(parts, list | tuple) or len(parts) != 2:
            raise SpecError(f"Expected a shard such as (3, 16), got {short(given)}.", fix='use shard=(3, 16) or "3/16"')
        index, count = (int(one) if isinstance(one, str) and one.isdecimal() else one for one in parts)
        count = require_whole("the number of shards", count, 1, MAX_SHARDS)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            fix = f"count shards from 0: 0/{count} to {count - 1}/{count}"
            raise SpecError(f"Expected a shard number from 0 to {count - 1}, got {short(index)}.", fix=fix)
        return cls(index, count)

    def units_of(self, units: Units) -> Iterator[WorkUnit]:
        """Yield its units. Neighbouring units go to different shards, so that all shards take about as long."""
        return (units[number] for number in range(self.index, len(units), self.count))

    def has(self, name: str) -> bool:
        """Whether a file of that name, such as "merged-u000003.parquet", belongs to one of its units."""
        number = _NUMBER.search(name)
        return self.count == 1 or (number is not None and int(number[1]) % self.count == self.index)

    @property
    def lock(self) -> str:
        """The name of its lock file."""
        return f"{LOCK}-{self.index}-of-{self.count}"


ALL = Shard(0, 1)


class SharedRun:
    """A process's share of a run folder, among processes with shards of their own."""

    def __init__(self, folder: Path | None, own: ExitStack) -> None:
        self._folder, self._own = folder, own

    @contextmanager
    def setting_up(self) -> Iterator[None]:
        """Hold the setup lock: the first process writes the manifest, the others find it."""
        with nullcontext() if self._folder is None else locked(self._folder, SETUP, wait=True):
            yield

    @contextmanager
    def leaving(self) -> Iterator[bool]:
        """Tell whether this process is the last one at work; the answer holds inside the block.

        Its own lock is released first: if two processes end at once, the second sees that the first is gone.
        """
        with self.setting_up():
            self._own.close()
            yield self._folder is None or not any(is_locked(path) for path in _locks(self._folder))


@contextmanager
def sharing(folder: Path | None, shard: Shard) -> Iterator[SharedRun]:
    """Reserve a shard of a run for this process.

    Args:
        folder: The run folder; `None` if there are no locks (object stores), or the whole run is locked.
        shard: The shard.

    Raises:
        StorageError: Another process has the shard, or one works with another number of shards.
    """
    with ExitStack() as own:
        if folder is not None:
            with locked(folder, SETUP, wait=True):
                own.enter_context(locked(folder, shard.lock))
                _refuse_others(folder, shard)
        yield SharedRun(folder, own)


def _refuse_others(folder: Path, shard: Shard) -> None:
    others = [path for path in _locks(folder) if not path.name.endswith(f"-of-{shard.count}")]
    at_work = [path.name.removeprefix(f"{LOCK}-") for path in others if is_locked(path)]
    if at_work:
        raise StorageError(
            f"Expected {shard.count} shards in {str(folder)!r}, but others with another number are at work.",
            at_work=", ".join(at_work),
            fix="wait until they have ended; then any number of shards can resume the run",
        )


def is_finished(stores: Sequence[UnitStore], units: Units, remote: Remote | None) -> bool:
    """Whether every row of a run was tried, by any process."""
    return all(_is_through(store, unit, remote) for store in stores for unit in units)


def _is_through(store: UnitStore, unit: WorkUnit, remote: Remote | None) -> bool:
    path = store.record(unit)
    if remote is not None:
        remote.get(path.relative_to(store.folder.parent).as_posix(), store.folder.parent)
    try:
        record = Record.load(path)
    except StorageError:
        return False
    return record is not None and record.fingerprint == store.fingerprint and not record.missing


def _locks(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{LOCK}-*-of-*"))
