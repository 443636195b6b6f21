"""What a run knows of each unit: which rows are done, and how to know its files again."""

import errno
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from rs_embed.core.atomic import (
    make_folder,
    publish,
    read_text,
    remove,
    remove_parts,
    size_of,
    write_json,
)
from rs_embed.core.hashing import sha256_of
from rs_embed.errors import StorageError
from rs_embed.exports.journal import sealed, unsealed
from rs_embed.exports.unit import GRIDS, MAP, RECORDS, TABLES, WorkUnit
from rs_embed.formats.files import formats
from rs_embed.formats.stac import COLLECTION
from rs_embed.redact import logger

if TYPE_CHECKING:
    from rs_embed.exports.region.tiles import MapTiles

_LOG = logger(__name__)
NEXT = ".next-"
"""Before the name of the record that a table will have once it is in place."""
_GRID = re.compile(r"(\d{9,})(-[A-Za-z0-9_-]*)?")
"""The name of a grid of ours, without its suffix; it begins with the row number."""


class Stamp(BaseModel):
    """How to know a file again."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Of a file, or of a folder that counts as one."""
        return cls(bytes=size_of(path), sha256=sha256_of(path))

    def fault(self, path: Path, *, whole: bool = True) -> str | None:
        """What is wrong with a file, in a few words; `None` if nothing is.

        Args:
            path: A file, or a folder that counts as one.
            whole: Whether every byte is compared, and not only the size.
        """
        try:
            if not path.exists():
                return "missing"
            if size_of(path) != self.bytes:
                return "of another size"
            return "of another content" if whole and sha256_of(path) != self.sha256 else None
        except OSError as error:
            if error.errno != errno.EIO:  # a bad block; anything else is no fault of the file
                raise
            return "unreadable"


class Record(BaseModel):
    """What is done of one unit of one model. It stands beside its table from the first rows on."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    unit: int
    fingerprint: str
    """Of the run's request."""
    rows: int
    """Of the unit."""
    ok: int
    failed: tuple[int, ...]
    """Row numbers of the user's table."""
    missing: tuple[int, ...] = ()
    """Rows that were not tried yet; none in a unit that is finished."""
    files: dict[str, Stamp]
    """By path inside the model's folder."""
    versions: dict[str, str]
    finished: str
    """ISO 8601, UTC: when it was written."""
    digest: str = ""
    """sha256 of all other fields; empty in runs of older versions."""

    @property
    def tables(self) -> list[str]:
        """Of the files, the table: one."""
        return [name for name in self.files if name.startswith(f"{TABLES}/")]

    @property
    def is_whole(self) -> bool:
        """Whether every row has an embedding."""
        return not self.failed and not self.missing

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The record in a file; `None` where there is none.

        Raises:
            StorageError: It is damaged.
        """
        try:
            return cls.model_validate(unsealed(read_text(path)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(path, str(error).splitlines()[0]) from error


def _damaged(path: Path, found: str) -> StorageError:
    return StorageError(
        f"Expected the record of a unit at {str(path)!r}, got: {found}.",
        fix="make the same call again: what it tells of is done again",
    )


@dataclass(frozen=True)
class UnitStore:
    """The files of one model in a run folder."""

    folder: Path
    fingerprint: str
    """Of the run's request."""
    versions: Mapping[str, str]
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """Bytes of grids that lie in an object store, and were not brought here."""
    tiles: "MapTiles | None" = None
    """Of a map: its blocks are the grids."""

    def table(self, unit: WorkUnit) -> Path:
        """The rows of a unit: vectors, or where the grids are."""
        return self.folder / TABLES / f"{unit.name}.parquet"

    def grids(self, unit: WorkUnit) -> Path:
        """The folder of a unit's grids."""
        return self.folder / GRIDS / unit.name

    def record(self, unit: WorkUnit) -> Path:
        """What says which rows are done."""
        return self.folder / RECORDS / f"{unit.name}.json"

    def announced(self, unit: WorkUnit) -> Path:
        """The record that is written before its table: where a process was killed between, it knows the table."""
        return self.folder / RECORDS / f"{NEXT}{unit.name}.json"

    @property
    def catalog(self) -> Path:
        """The STAC collection, which lists all units as they are."""
        return self.folder / COLLECTION

    def read(self, unit: WorkUnit, *, verify: bool = False) -> Record | None:
        """The record of a unit, as far as its files are as it says; what is not counts as missing.

        The table is compared whole if rows will be put into it, so that nothing damaged is ever taken over.

        Args:
            unit: Which.
            verify: Compare every byte of all files. If not, their sizes.
        """
        for path in (self.record(unit), self.announced(unit)):
            record = self._of_this_run(path, unit)
            if record is None:
                continue
            whole = verify or not record.is_whole or path == self.announced(unit)
            if record.files[self.name(self.table(unit))].fault(self.table(unit), whole=whole) is None:
                if path == self.announced(unit):
                    publish(path, self.record(unit))
                return self._without_lost(unit, record, verify=verify)
        if self.table(unit).exists():
            _LOG.warning("%s is not as a record of this run says: all of its rows are done again", self.table(unit))
        return None

    def _of_this_run(self, path: Path, unit: WorkUnit) -> Record | None:
        try:
            record = Record.load(path)
        except StorageError as error:
            _LOG.warning("%s", error.headline)
            return None
        if record is None or record.fingerprint != self.fingerprint or record.rows != len(unit.rows):
            return None
        return record if self.name(self.table(unit)) in record.files else None

    def _without_lost(self, unit: WorkUnit, record: Record, *, verify: bool) -> Record:
        """The record without the grids that are gone or damaged: their rows are missing."""
        lost = {name for name, stamp in record.files.items() if self._is_lost(name, stamp, verify=verify)}
        if not lost:
            return record
        number = row_of if self.tiles is None else self.tiles.row_of
        rows = {number(name) for name in lost} | set(record.missing)
        missing = tuple(row for row in unit.rows.tolist() if row in rows)
        _LOG.warning("%s: %d grids are gone or damaged; they are made again", self.grids(unit), len(lost))
        return record.model_copy(
            update={
                "files": {name: stamp for name, stamp in record.files.items() if name not in lost},
                "ok": record.ok - (len(missing) - len(record.missing)),
                "missing": missing,
            }
        )

    def _is_lost(self, name: str, stamp: Stamp, *, verify: bool) -> bool:
        if not is_grid(name):
            return False
        if name in self.elsewhere:
            return self.elsewhere[name] != stamp.bytes
        return stamp.fault(self.folder / name, whole=verify) is not None

    def put(self, unit: WorkUnit, part: Path, record: Record) -> Record:
        """Give a table that is written its name, and then its record; the record, with the table in it.

        A process may be killed at any point: the table in place is always one that `record` or `announced` knows.

        Args:
            unit: Which.
            part: The table, under a temporary name.
            record: Without the table.
        """
        stamped = record.model_copy(update={"files": {self.name(self.table(unit)): Stamp.of(part), **record.files}})
        write_json(self.announced(unit), sealed(stamped.model_dump(mode="json")))
        remove(self.catalog)  # first: it lists the unit as it was
        publish(part, self.table(unit))
        publish(self.announced(unit), self.record(unit))
        return stamped

    def begin(self, unit: WorkUnit) -> Record:
        """The record of a unit of which nothing is done."""
        rows = tuple(unit.rows.tolist())
        return Record(
            unit=unit.number,
            fingerprint=self.fingerprint,
            rows=len(rows),
            ok=0,
            failed=(),
            missing=rows,
            files={},
            versions=dict(self.versions),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def make_folders(self) -> None:
        """Make those of tables and records."""
        for folder in (TABLES, RECORDS):
            make_folder(self.folder / folder)

    def sweep(self, of: Callable[[str], bool]) -> None:
        """Remove the half-written tables and records of killed processes; only while nobody writes these.

        Args:
            of: Those meant, by the name that a file was to get.
        """
        for folder in (TABLES, RECORDS):
            remove_parts(self.folder / folder, of)

    def clean(self, unit: WorkUnit, record: Record | None) -> None:
        """Remove what a killed process left of a unit: half-written files, and grids of ours that no table names."""
        if self.tiles is not None:
            for number in unit.rows.tolist():
                self.tiles.clean(self.folder, number)
            return
        folder = self.grids(unit)
        if folder.is_symlink():  # somebody else's doing: nothing is removed there
            return
        remove_parts(folder)
        known = set() if record is None else set(record.files)
        suffixes = {one.suffix for one in formats()}
        for grid in folder.glob("*"):
            if _GRID.fullmatch(grid.stem) and grid.suffix in suffixes and self.name(grid) not in known:
                remove(grid)

    def name(self, path: Path) -> str:
        """Of a file in the model's folder, as records have it."""
        return path.relative_to(self.folder).as_posix()


def fault_in(record: Path, name: str, path: Path) -> str | None:
    """What is wrong with a file by the record that names it now: an export may be writing both.

    Args:
        record: Of the unit.
        name: Of the file, in the record.
        path: The file.
    """
    faults = []
    for told in (record, record.with_name(f"{NEXT}{record.name}")):
        found = Record.load(told)
        if found is not None and name in found.files:
            faults.append(found.files[name].fault(path))
    return None if None in faults else faults[0] if faults else "in no record"


def is_grid(name: str) -> bool:
    """Whether a file of a record holds tokens of one row."""
    return name.startswith((f"{GRIDS}/", f"{MAP}/"))


def row_of(name: str) -> int:
    """The row number with which the name of a grid begins."""
    return int(PurePosixPath(name).name.partition("-")[0].partition(".")[0])


def rows_in_order(unit: WorkUnit, rows: Iterable[int]) -> tuple[int, ...]:
    """These rows in the order of the unit."""
    wanted = set(rows)
    return tuple(row for row in unit.rows.tolist() if row in wanted)
