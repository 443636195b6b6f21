"""Whether the files of a run are as they were written: every byte compared with what the records say."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rs_embed.core.atomic import storing, used_by
from rs_embed.core.optional import require
from rs_embed.core.progress import progress_bar
from rs_embed.errors import StorageError
from rs_embed.exports.fetching.inputs import FOLDER as INPUTS
from rs_embed.exports.journal import MANIFEST, PLACES, Manifest
from rs_embed.exports.object_store import local_place
from rs_embed.exports.records import Record, Stamp, is_grid
from rs_embed.exports.region.store import METADATA, MetadataRecord
from rs_embed.exports.results.compact import FOLDER as COMPACT
from rs_embed.exports.results.compact import PARTS, Partition
from rs_embed.exports.results.index import FACTS, IndexFacts
from rs_embed.exports.results.kept_index import FOLDER as INDEX
from rs_embed.exports.unit import MAP, RECORDS
from rs_embed.places import Places

EXPORT = "rs-embed retry RUN --verify, or the same call of export_embeddings with verify=True, makes it again"
_TABLE = (
    "the same call of export_embeddings, with its table and verify=True (rs-embed export --verify), writes it again"
)
_INDEX = "rs-embed index RUN builds it again"
_COMPACT = "rs-embed compact RUN --verify makes it again"
_NONE = "nothing makes it again by itself: only the chips of rows that are redone are kept"


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written."""

    path: str
    """Inside the run's folder."""
    found: str
    """Such as "missing", "of another size", "of another content"."""
    fix: str
    unit: str | None = None
    rows: int | None = None
    """Rows of the user's table in it; `None` if unknown."""

    def __str__(self) -> str:
        rows = "" if self.rows is None else f", {self.rows:,} rows" if self.rows != 1 else ", 1 row"
        return f"{self.path}: {self.found}{rows}"


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_run` has found. Printing it gives the summary."""

    folder: Path
    files: int
    """That were compared."""
    bytes: int
    damaged: tuple[Damage, ...]
    missing: int
    """Rows that the export has not tried yet, which is no damage."""

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def __str__(self) -> str:
        summary = f"{self.files:,} files ({self.bytes / 1e6:,.1f} MB) in {str(self.folder)!r}"
        rest = f"; {self.missing:,} rows were not tried yet" if self.missing else ""
        if self.ok:
            return f"{summary} are as they were written{rest}"
        fixes = [f"  {fix}:\n" + _lines(self.damaged, fix) for fix in dict.fromkeys(one.fix for one in self.damaged)]
        return "\n".join([f"{summary}, {len(self.damaged):,} of them damaged{rest}", *fixes])


def _lines(damaged: Sequence[Damage], fix: str) -> str:
    return "\n".join(f"    {one}" for one in damaged if one.fix == fix)


def verify_run(run: str | Path, *, progress: bool = True) -> VerifyReport:
    """Compare every file of a run, finished or not, with the sha256 that was written down for it. Changes nothing.

    Tables, grids, maps and their metadata, records, the manifest, the table of places, the files of `compact_run` (in
    the run's folder) and those of the index are compared; of kept chips the checksum that each has inside. STAC files
    say nothing that is not in the tables, and are left out.

    Args:
        run: The folder that `export_embeddings` or `download_run` filled.
        progress: Show a bar on a terminal.

    Raises:
        StorageError: There is no run, its manifest is damaged, or an export is writing to it.
        SpecError: It lies in an object store.
        MissingDependency: The extra `export` is not installed.
    """
    require("pyarrow", "export")
    folder = local_place(run)
    manifest = Manifest.read(folder)
    if manifest is None:
        raise StorageError(f"Expected a run, got no {MANIFEST} in {str(folder)!r}.", fix="give the `out` of an export")
    if (process := used_by(folder)) is not None:
        raise StorageError(
            f"Expected a run that nobody writes to, got {str(folder)!r}.",
            used_by=process,
            fix="wait until it has ended",
        )
    with storing(folder):
        models = sorted(path.parent for path in folder.glob(f"*/{RECORDS}"))
        look = _Look(folder)
        look.places(manifest)
        total = sum(len(_records(model)) for model in models)
        with progress_bar(total, shown=progress, label="verify", unit="units") as advance:
            for model in models:
                look.map(model)
                elsewhere = look.compacted(folder / COMPACT / model.name)
                for path in _records(model):
                    look.unit(path, manifest.fingerprint, elsewhere)
                    advance(1, 0)
                look.index(folder / INDEX / model.name)
        look.inputs()
    return VerifyReport(folder, look.files, look.bytes, tuple(look.damaged), look.missing)


def _records(model: Path) -> list[Path]:
    return sorted((model / RECORDS).glob("u*.json"))


class _Look:
    """What was looked at, and what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = self.bytes = self.missing = 0
        self.damaged: list[Damage] = []

    def _note(
        self, path: Path, fault: str | None, fix: str, *, unit: str | None = None, rows: int | None = None
    ) -> None:
        self.files += 1
        if fault is not None:
            name = path.relative_to(self.folder).as_posix()
            self.damaged.append(Damage(name, fault, fix, unit, rows))

    def _compare(self, path: Path, stamp: Stamp, fix: str, *, unit: str | None = None, rows: int | None = None) -> bool:
        fault = stamp.fault(path)
        self.bytes += stamp.bytes
        self._note(path, fault, fix, unit=unit, rows=rows)
        return fault is None

    def places(self, manifest: Manifest) -> None:
        """The table as it was read; and the manifest, which was read."""
        self._note(self.folder / MANIFEST, None, "")
        path, told = self.folder / PLACES, manifest.request.get("places")
        fault = "missing"
        if path.is_file():
            try:
                digest = Places.load(path).digest()
                fault = "" if isinstance(told, dict) and told.get("digest") == digest else "of another content"
            except StorageError:
                fault = "unreadable"
        self._note(path, fault or None, _TABLE)

    def map(self, model: Path) -> None:
        """The metadata of a model's map, at all levels; its blocks are files of units."""
        if not (model / MAP).is_dir():
            return
        record = MetadataRecord.read(model)
        self._note(model / METADATA, "missing or damaged" if record is None else None, EXPORT)
        for name, stamp in record.files.items() if record else ():
            self._compare(model / name, stamp, EXPORT)

    def unit(self, path: Path, fingerprint: str, elsewhere: Mapping[str, Stamp]) -> None:
        """The files of a unit.

        Args:
            path: Of its record.
            fingerprint: Of the run.
            elsewhere: Tables that are whole in another file: then they may have been removed.
        """
        try:
            record = Record.load(path)
        except StorageError:
            record = None
        fault = "damaged" if record is None else None if record.fingerprint == fingerprint else "of another run"
        self._note(path, fault, EXPORT, unit=path.stem)
        if record is None or fault is not None:
            return
        self.missing += len(record.missing)
        for name, stamp in record.files.items():
            file = path.parents[1] / name
            if elsewhere.get(name) == stamp and not file.exists():
                continue
            rows = 1 if is_grid(name) else record.rows - len(record.missing)
            self._compare(file, stamp, EXPORT, unit=path.stem, rows=rows)

    def compacted(self, target: Path) -> dict[str, Stamp]:
        """The merged files of a model; the tables that are whole in them."""
        whole: dict[str, Stamp] = {}
        for path in sorted((target / RECORDS).glob("part-*.json")):
            partition = Partition.read(path)
            self._note(path, "damaged" if partition is None else None, _COMPACT)
            if partition is None:
                continue
            file = target / PARTS / f"{path.stem}.parquet"
            if self._compare(file, partition.file, _COMPACT, rows=partition.rows):
                whole |= partition.sources
        return whole

    def index(self, folder: Path) -> None:
        """The files of a model's index; whether it is of the run as it is now is no question of damage."""
        try:
            facts = IndexFacts.read(folder)
        except StorageError:
            self._note(folder / FACTS, "damaged", _INDEX)
            return
        for name, stamp in facts.files.items() if facts else ():
            self._compare(folder / name, stamp, _INDEX)

    def inputs(self) -> None:
        """Kept chips: each has checksums inside."""
        for path in sorted(self.folder.glob(f"{INPUTS}/*/*.npz")):
            try:
                with zipfile.ZipFile(path) as file:
                    fault = None if file.testzip() is None else "of another content"
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
                fault = "unreadable"
            self.bytes += path.stat().st_size
            self._note(path, fault, _NONE)
