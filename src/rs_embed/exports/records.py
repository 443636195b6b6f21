"""The records of a run: which rows of each unit are done, and the hashes of its files."""

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
"""Prefix of a record that is written before its table is in place."""
_GRID = re.compile(r"(\d{9,})(-[A-Za-z0-9_-]*)?")
"""File name of a grid, without its suffix; it begins with the row number."""


class Stamp(BaseModel):
    """The size and hash of a file."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Make the stamp of a file, or of a folder that counts as one."""
        return cls(bytes=size_of(path), sha256=sha256_of(path))

    def fault(self, path: Path, *, whole: bool = True) -> str | None:
        """Say briefly what is wrong with a file; `None` if nothing is.

        Args:
            path: A file, or a folder that counts as one.
            whole: Whether to compare every byte, not only the size.
        """
        try:
            if not path.exists():
                return "missing"
            if size_of(path) != self.bytes:
                return "of another size"
            return "of another content" if whole and sha256_of(path) != self.sha256 else None
        except OSError as error:
            if error.errno != errno.EIO:  # a bad block; any other error is not the file's fault
                raise
            return "unreadable"


class Record(BaseModel):
    """The state of one unit of one model; written with the first rows of its table."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    unit: int
    fingerprint: str
    """sha256 of the run's request."""
    rows: int
    """Number of rows in the unit."""
    ok: int
    failed: tuple[int, ...]
    """Row numbers, in the user's table, of rows that failed."""
    missing: tuple[int, ...] = ()
    """Rows that were not tried yet; empty for a finished unit."""
    files: dict[str, Stamp]
    """Path in the model's folder -> stamp."""
    versions: dict[str, str]
    finished: str
    """ISO 8601, UTC: when it was written."""
    digest: str = ""
    """sha256 of all other fields; empty in runs of older versions."""

    @property
    def tables(self) -> list[str]:
        """The paths of tables among the files; there is one."""
        return [name for name in self.files if name.startswith(f"{TABLES}/")]

    @property
    def is_whole(self) -> bool:
        """Whether every row has an embedding."""
        return not self.failed and not self.missing

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read a record; `None` if there is none.

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
        fix="make the same call again: the unit will be redone",
    )


@dataclass(frozen=True)
class UnitStore:
    """The files of one model in a run folder."""

    folder: Path
    fingerprint: str
    """sha256 of the run's request."""
    versions: Mapping[str, str]
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """Path -> bytes, of grids that are in an object store and were not downloaded."""
    tiles: "MapTiles | None" = None
    """For a map: where its blocks, which are the grids, are written."""

    def table(self, unit: WorkUnit) -> Path:
        """Return the path of a unit's table: its vectors, or the paths of its grids."""
        return self.folder / TABLES / f"{unit.name}.parquet"

    def grids(self, unit: WorkUnit) -> Path:
        """Return the folder of a unit's grids."""
        return self.folder / GRIDS / unit.name

    def record(self, unit: WorkUnit) -> Path:
        """Return the path of a unit's record, which says which rows are done."""
        return self.folder / RECORDS / f"{unit.name}.json"

    def announced(self, unit: WorkUnit) -> Path:
        """Return the path of the record written before its table: it is valid if a process was killed in between."""
        return self.folder / RECORDS / f"{NEXT}{unit.name}.json"

    @property
    def catalog(self) -> Path:
        """The path of the STAC collection, which lists all units."""
        return self.folder / COLLECTION

    def read(self, unit: WorkUnit, *, verify: bool = False) -> Record | None:
        """Read the record of a unit, as far as its files match it; rows whose files do not match count as missing.

        The table is compared byte by byte if rows will be added to it, so that no damaged row is copied.

        Args:
            unit: The unit.
            verify: Whether to compare every byte of all files, not only the sizes.
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
            _LOG.warning("%s does not match any record of this run: all of its rows will be redone", self.table(unit))
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
        """Return the record without lost or damaged grids; their rows count as missing."""
        lost = {name for name, stamp in record.files.items() if self._is_lost(name, stamp, verify=verify)}
        if not lost:
            return record
        number = row_of if self.tiles is None else self.tiles.row_of
        rows = {number(name) for name in lost} | set(record.missing)
        missing = tuple(row for row in unit.rows.tolist() if row in rows)
        _LOG.warning("%s: %d grids are missing or damaged and will be redone", self.grids(unit), len(lost))
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
        """Publish a finished table and then its record; return the record, with the table in it.

        A process may be killed at any point: the table in place always matches `record` or `announced`.

        Args:
            unit: The unit.
            part: The table, under a temporary name.
            record: The record without the table.
        """
        stamped = record.model_copy(update={"files": {self.name(self.table(unit)): Stamp.of(part), **record.files}})
        write_json(self.announced(unit), sealed(stamped.model_dump(mode="json")))
        remove(self.catalog)  # first, because it lists the old state of the unit
        publish(part, self.table(unit))
        publish(self.announced(unit), self.record(unit))
        return stamped

    def begin(self, unit: WorkUnit) -> Record:
        """Return the record of a unit that was not begun."""
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
        """Make the folders of tables and records."""
        for folder in (TABLES, RECORDS):
            make_folder(self.folder / folder)

    def sweep(self, of: Callable[[str], bool]) -> None:
        """Remove half-written tables and records of killed processes. Call it only while nobody writes these.

        Args:
            of: Takes the final name of a file and says whether to remove it.
        """
        for folder in (TABLES, RECORDS):
            remove_parts(self.folder / folder, of)

    def clean(self, unit: WorkUnit, record: Record | None) -> None:
        """Remove what a killed process left of a unit: half-written files, and grids that no table lists."""
        if self.tiles is not None:
            for number in unit.rows.tolist():
                self.tiles.clean(self.folder, number)
            return
        folder = self.grids(unit)
        if folder.is_symlink():  # made by somebody else: remove nothing there
            return
        remove_parts(folder)
        known = set() if record is None else set(record.files)
        suffixes = {one.suffix for one in formats()}
        for grid in folder.glob("*"):
            if _GRID.fullmatch(grid.stem) and grid.suffix in suffixes and self.name(grid) not in known:
                remove(grid)

    def name(self, path: Path) -> str:
        """Return the path of a file relative to the model's folder, as records store it."""
        return path.relative_to(self.folder).as_posix()


def fault_in(record: Path, name: str, path: Path) -> str | None:
    """Say what is wrong with a file by the record that lists it now; an export may be writing both.

    Args:
        record: Path of the unit's record.
        name: The file's name in the record.
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
    """Return the row number with which the name of a grid begins."""
    return int(PurePosixPath(name).name.partition("-")[0].partition(".")[0])


def rows_in_order(unit: WorkUnit, rows: Iterable[int]) -> tuple[int, ...]:
    """Sort rows into the order of the unit."""
    wanted = set(rows)
    return tuple(row for row in unit.rows.tolist() if row in wanted)
