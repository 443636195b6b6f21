"""What a run folder knows of itself: one manifest for all of it, one record per finished unit."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from rs_embed.errors import StorageError
from rs_embed.pipeline.durable import make_folder, remove, remove_parts, sha256_of, size_of, write_json
from rs_embed.pipeline.unit_tables import read_unit
from rs_embed.pipeline.units import RECORDS, TABLES, Unit
from rs_embed.writers.stac import COLLECTION

MANIFEST = "run.json"
PLACES = "places.npz"
FORMAT = "rs_embed export"
FORMAT_VERSION = 1


class Manifest(BaseModel):
    """What a run folder was made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    created: str
    """ISO 8601, UTC: when the export was first started."""
    request: dict[str, JsonValue]
    """All that decides the numbers and the files. A run is only ever continued with an equal one."""
    fingerprint: str
    """sha256 of `request`."""
    command: dict[str, JsonValue]
    """The arguments of the call, for `rs-embed retry`."""
    versions: dict[str, str]
    """Packages of the first start; those that change numbers stand in `request` as well."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest of a folder; `None` where there is none.

        Raises:
            StorageError: It cannot be read, or is of another format.
        """
        path = folder / MANIFEST
        try:
            found = cls.model_validate_json(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError, UnicodeDecodeError) as error:
            raise StorageError(
                f"Wanted the manifest of an export at {str(path)!r}, found: {str(error).splitlines()[0]}.",
                fix="export to a new folder",
            ) from error
        if (found.format, found.format_version) != (FORMAT, FORMAT_VERSION):
            raise StorageError(
                f"Wanted an export of format version {FORMAT_VERSION}, found version {found.format_version}.",
                fix="use the version of rs_embed that wrote it, or export to a new folder",
            )
        return found

    def write(self, folder: Path) -> None:
        """Put it into the folder."""
        write_json(folder / MANIFEST, self.model_dump(mode="json"))

    def refuse_change(self, request: Mapping[str, JsonValue], folder: Path) -> None:
        """Raise `StorageError` naming what differs from what this folder was made for."""
        changed = differences(self.request, request)
        if changed:
            raise StorageError(
                f"Wanted to go on with the export in {str(folder)!r}, found a request for something else.",
                changed="\n".join(changed),
                fix="give the old values, or export to a new folder: results of two requests are never mixed",
            )


def digest_of(request: Mapping[str, JsonValue]) -> str:
    """sha256 of the canonical JSON."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: JsonValue | Mapping[str, JsonValue], new: JsonValue | Mapping[str, JsonValue]) -> list[str]:
    """What changed, one line each: `models.thor.knobs.patch_size: 16 -> 8`."""
    before, after = _flat(old), _flat(new)
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name}: {before.get(name, 'not there')} -> {after.get(name, 'not there')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(value: JsonValue | Mapping[str, JsonValue], path: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        parts = (_flat(one, f"{path}.{name}" if path else name) for name, one in value.items())
        return {name: text for part in parts for name, text in part.items()}
    return {path: json.dumps(value, ensure_ascii=False)}


class Stamp(BaseModel):
    """How to know a file again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Of a file, or of a folder that counts as one."""
        return cls(bytes=size_of(path), sha256=sha256_of(path))


class Record(BaseModel):
    """One unit of one model, finished. Its file is written last: where there is none, the unit is not finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: int
    fingerprint: str
    """Of the run's request."""
    rows: int
    ok: int
    failed: tuple[int, ...]
    """Row numbers of the user's table."""
    files: dict[str, Stamp]
    """By path inside the model's folder."""
    versions: dict[str, str]
    finished: str
    """ISO 8601, UTC."""

    @property
    def tables(self) -> list[str]:
        """Of the files, the table: one."""
        return [name for name in self.files if name.startswith(f"{TABLES}/")]


@dataclass(frozen=True)
class UnitStore:
    """The files of one model in a run folder."""

    folder: Path
    fingerprint: str
    """Of the run's request."""
    versions: Mapping[str, str]

    def table(self, unit: Unit) -> Path:
        """The rows of a unit: vectors, or where the grids are."""
        return self.folder / TABLES / f"{unit.name}.parquet"

    def grids(self, unit: Unit) -> Path:
        """The folder of a unit's grids."""
        return self.folder / "grids" / unit.name

    def record(self, unit: Unit) -> Path:
        """What says that the unit is finished."""
        return self.folder / RECORDS / f"{unit.name}.json"

    @property
    def catalog(self) -> Path:
        """The STAC collection, which lists all units as they are."""
        return self.folder / COLLECTION

    @staticmethod
    def missing(unit: Unit, record: Record | None) -> tuple[int, ...]:
        """Rows of the unit that are still to be done, in its order: all, those that failed, or none."""
        if record is None:
            return tuple(unit.rows.tolist())
        failed = set(record.failed)
        return tuple(row for row in unit.rows.tolist() if row in failed)

    def read(self, unit: Unit) -> Record | None:
        """The record of a unit whose files are as it says.

        A process may have been killed between a table and its record; the table is whole then, so it is taken.
        """
        try:
            record = Record.model_validate_json(self.record(unit).read_text("utf-8"))
        except (FileNotFoundError, ValidationError, UnicodeDecodeError):
            return self._adopt(unit)
        table, name = self.table(unit), self._name(self.table(unit))
        stamp = record.files.get(name)
        if record.fingerprint != self.fingerprint or stamp is None or not table.is_file():
            return self._adopt(unit)
        if table.stat().st_size != stamp.bytes or (record.failed and sha256_of(table) != stamp.sha256):
            return self._adopt(unit)
        return record

    def _adopt(self, unit: Unit) -> Record | None:
        """Make the record anew from the table; `None` if there is no table of this run with all its grids."""
        found = read_unit(self.table(unit))
        if found is None or found.run != self.fingerprint or found.rows != unit.rows.tolist():
            return None
        grids = [self.table(unit).parent / href for href in found.hrefs]
        if not all(grid.exists() for grid in grids):
            return None
        return self.finish(unit, found.failed, [grid.resolve() for grid in grids])

    def finish(self, unit: Unit, failed: Sequence[int], grids: Sequence[Path]) -> Record:
        """Write the record of a unit whose files are in place."""
        files = [self.table(unit), *grids]
        record = Record(
            unit=unit.number,
            fingerprint=self.fingerprint,
            rows=len(unit.rows),
            ok=len(unit.rows) - len(failed),
            failed=tuple(failed),
            files={self._name(file): Stamp.of(file) for file in files},
            versions=dict(self.versions),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        make_folder(self.record(unit).parent)
        write_json(self.record(unit), record.model_dump(mode="json"))
        return record

    def sweep(self) -> None:
        """Remove the half-written tables and records of killed processes; only while nobody writes any."""
        for folder in (TABLES, RECORDS):
            remove_parts(self.folder / folder)

    def clean(self, unit: Unit, record: Record | None) -> None:
        """Remove what a killed process left of a unit: half-written files, and grids that no table names."""
        folder = self.grids(unit)
        remove_parts(folder)
        known = set() if record is None else set(record.files)
        for grid in folder.glob("*"):
            if self._name(grid) not in known:
                remove(grid)

    def _name(self, path: Path) -> str:
        return str(path.resolve().relative_to(self.folder.resolve()))
