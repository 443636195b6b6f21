"""The many unit files of a finished run as a few large ones, which are faster to read whole."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from rs_embed.core.atomic import (
    locked,
    make_folder,
    read_text,
    remove,
    remove_parts,
    replacing,
    storing,
    write_json,
)
from rs_embed.core.optional import require
from rs_embed.core.progress import progress_bar
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.journal import MANIFEST, Manifest, sealed, unsealed
from rs_embed.exports.object_store import local_place
from rs_embed.exports.records import Record, Stamp
from rs_embed.exports.results.merge import merge_tables
from rs_embed.exports.unit import RECORDS, TABLES
from rs_embed.exports.unit_tables import RUN
from rs_embed.formats.base import RunHeader
from rs_embed.formats.reading import TableFile
from rs_embed.formats.stac import COLLECTION, ITEMS, items_of, write_stac

FOLDER = "compact"
PARTS = "parts"
"""Folder of a model's files: nothing but tables in it, so that any reader takes it whole."""
ROW_GROUP_MB = 150.0
"""Source: best practices of geoembeddings.org, about 128 MB; 49,152 vectors of 768 float32 are 151 MB."""
ROW_BYTES = 700
"""Of a row of an index of grids; see `exports.estimate`."""
_SIZES = {"float32": 4, "float16": 2, "int8": 1}


class Partition(BaseModel):
    """What was merged into a file; its own file is written last."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    rows: int
    sources: dict[str, Stamp]
    """Tables of units, by name."""
    file: Stamp
    digest: str = ""
    """sha256 of all other fields."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """That of a file; `None` if it is not there, or damaged."""
        try:
            return cls.model_validate(unsealed(read_text(path)))
        except (OSError, ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class CompactReport:
    """What was merged. Printing it gives the summary."""

    folder: Path
    rows: int
    """Of all models, failed ones included."""
    partitions: int
    written: int
    """Partitions that were not there yet, or whose units have changed."""

    def __str__(self) -> str:
        return f"{self.rows:,} rows in {self.partitions:,} files in {str(self.folder)!r}, {self.written:,} of them new"


def compact_run(
    run: str | Path,
    out: str | Path | None = None,
    *,
    row_group_mb: float = ROW_GROUP_MB,
    progress: bool = True,
    verify: bool = False,
) -> CompactReport:
    """Merge the unit files of a finished run into files of one row group each. Call it again to go on after a crash.

    Rows stay in the order of the units, by UTM zone and along a Hilbert curve within each, and keep their bytes; so
    do failed rows. The unit files stay as well: they are what the export goes by.

    Args:
        run: The folder that `export_embeddings` filled.
        out: Where the files go: `<out>/<model>/parts/part-000000.parquet`; `None`: `<run>/compact`.
        row_group_mb: Of a file's vectors before compression, at most (but always one unit).
        progress: Show a bar on a terminal.
        verify: Compare every byte of files that are there with their records, and make again what is damaged.

    Raises:
        SpecError: `row_group_mb` is not above 0, the run lies in an object store, or there is something else in `out`.
        StorageError: There is no run, units are missing or damaged, it is in use, or the disk refuses.
        MissingDependency: The extra `export` is not installed.
    """
    require("pyarrow", "export")
    if not row_group_mb > 0:
        raise SpecError(f"Expected row groups above 0 MB, got {row_group_mb!r}.", fix="leave it out")
    folder = local_place(run)
    manifest = Manifest.read(folder)
    if manifest is None:
        raise StorageError(f"Expected a run, got no {MANIFEST} in {str(folder)!r}.", fix="give the `out` of an export")
    target = folder / FOLDER if out is None else local_place(out)
    rows = partitions = written = 0
    with locked(folder):
        models = sorted(path.parent for path in folder.glob(f"*/{TABLES}"))
        units = [_units_of(model, manifest) for model in models]
        for model in models:
            _look(target / model.name)
        total = sum(map(len, units))
        with progress_bar(total, shown=progress, label="compact", unit="units") as advance:
            for model, records in zip(models, units, strict=True):
                for found, new, merged in _compact(model, records, target / model.name, row_group_mb * 1e6, verify):
                    rows, partitions, written = rows + found.rows, partitions + 1, written + int(new)
                    advance(merged, 0)
    return CompactReport(target, rows, partitions, written)


def _units_of(model: Path, manifest: Manifest) -> list[Record]:
    """The records of all units, in order.

    Raises:
        StorageError: One is missing, or of another run.
    """
    wanted = _rows_wanted(manifest)
    paths = sorted((model / RECORDS).glob("u*.json"))
    records = [record for path in paths if (record := Record.load(path)) is not None]
    of_this_run = [record for record in records if record.fingerprint == manifest.fingerprint]
    there = sum(record.rows - len(record.missing) for record in of_this_run)
    if there != wanted or [record.unit for record in records] != list(range(len(records))):
        raise StorageError(
            f"Expected all {wanted:,} rows of {model.name}, got {there:,} that were tried.",
            fix="run the export to its end first",
        )
    return records


def _rows_wanted(manifest: Manifest) -> int:
    places = manifest.request.get("places")
    rows = places.get("rows") if isinstance(places, dict) else None
    if not isinstance(rows, int):
        raise StorageError("Expected the number of rows in the manifest of the run, got none.", fix="export it again")
    return rows


def _compact(
    model: Path, records: Sequence[Record], target: Path, group_bytes: float, verify: bool
) -> Iterator[tuple[Partition, bool, int]]:
    """Each partition, whether it is new, and how many units are in it; the catalog at the end."""
    header = TableFile(model / records[0].tables[0]).meta
    each = max(1, int(group_bytes // (_row_bytes(header) * max(record.rows for record in records))))
    with storing(target):
        for folder in (target / PARTS, target / RECORDS):
            make_folder(folder)
            remove_parts(folder)
    names = []
    for start in range(0, len(records), each):
        group = records[start : start + each]
        names.append(f"part-{start // each:06d}")
        with storing(target):
            found, new = _partition(model, group, target, names[-1], verify=verify)
        yield found, new, len(group)
    with storing(target):
        _remove_others(target, names)
        if header.output == "pooled" and not (target / COLLECTION).exists():
            items = [item for name in names for item in items_of(target / PARTS / f"{name}.parquet", target)]
            write_stac(target, header, items)


def _partition(
    model: Path, group: Sequence[Record], target: Path, name: str, *, verify: bool
) -> tuple[Partition, bool]:
    sources = {name: record.files[name] for record in group for name in record.tables}
    path, record_path = target / PARTS / f"{name}.parquet", target / RECORDS / f"{name}.json"
    found = Partition.read(record_path)
    if found is not None and found.sources == sources and found.file.fault(path, whole=verify) is None:
        return found, False
    if found is None and path.exists():
        _refuse_foreign(path, model / next(iter(sources)))
    for source, stamp in sources.items():
        fault = stamp.fault(model / source)
        if fault is not None:
            raise StorageError(
                f"Expected {str(model / source)!r} as its record says, got a file that is {fault}.",
                fix="make the same call of export_embeddings again with verify=True (rs-embed retry RUN --verify)",
            )
    for outdated in (target / COLLECTION, record_path):  # first: neither must ever tell of another file
        remove(outdated)
    with replacing(path) as part:
        rows = merge_tables([TableFile(model / source) for source in sources], part, path.parent)
    made = Partition(rows=rows, sources=sources, file=Stamp.of(path))
    write_json(record_path, sealed(made.model_dump(mode="json")))
    return made, True


def _look(target: Path) -> None:
    """Refuse a folder with something else in it, before anything in it is touched."""
    ours = {PARTS, RECORDS, ITEMS, COLLECTION}
    with storing(target):
        names = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    found = [name for name in names if name not in ours and not name.startswith(".")]
    if found:
        raise SpecError(
            f"Expected a new folder for the files of a run, got {str(target)!r} with other things in it.",
            found=", ".join(found[:5]),
            fix="choose another folder",
        )


def _refuse_foreign(path: Path, source: Path) -> None:
    """A file that no record of ours knows was left by a killed process of this run, or is somebody else's."""
    with suppress(StorageError):
        if TableFile(path).meta.extra.get(RUN) == TableFile(source).meta.extra.get(RUN):
            return
    raise StorageError(
        f"Expected a file of this run, or none, at {str(path)!r}, got one of somebody else.",
        fix="choose another folder",
    )


def _remove_others(target: Path, names: Sequence[str]) -> None:
    """Remove partitions of an earlier cut, of other sizes: those of which a record of ours tells."""
    stale = [
        path
        for path in target.glob(f"{RECORDS}/part-*.json")
        if path.stem not in names and Partition.read(path) is not None
    ]
    if stale:
        remove(target / COLLECTION)
    for path in stale:
        remove(target / PARTS / f"{path.stem}.parquet")
        remove(target / ITEMS / path.name)
        remove(path)


def _row_bytes(header: RunHeader) -> int:
    return header.dim * _SIZES[header.dtype] if header.output == "pooled" else ROW_BYTES
