"""The status of a run folder, and `retry_export`, which repeats the call that its manifest records."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from rs_embed.core.atomic import used_by
from rs_embed.errors import SpecError, StorageError
from rs_embed.exports.call import ExportReport, run_export
from rs_embed.exports.engines import EngineName
from rs_embed.exports.journal import MANIFEST, PLACES, Manifest
from rs_embed.exports.object_store import local_place
from rs_embed.exports.records import Record
from rs_embed.exports.request import ExportRequest
from rs_embed.exports.running import Running
from rs_embed.exports.sharding import ALL, Shard
from rs_embed.exports.unit import RECORDS
from rs_embed.formats.reading import TableFile
from rs_embed.places import Places


class _Count(BaseModel):
    rows: int


class _Facts(BaseModel):
    """The part of a manifest's request that a status needs."""

    models: dict[str, JsonValue]
    places: _Count
    units: _Count


@dataclass(frozen=True)
class Reason:
    """A reason for failed rows: errors of one class at one stage."""

    rows: int
    stage: str
    error: str
    """Message of the first such error."""


@dataclass(frozen=True)
class ModelStatus:
    """The progress of an export with one model."""

    model: str
    rows: int
    ok: int
    failed: int
    units: int
    finished: int
    """Number of units whose rows were all tried."""
    reasons: tuple[Reason, ...] = ()
    """Reasons for the failed rows, the most frequent first."""

    @property
    def missing(self) -> int:
        """Number of rows that were not tried yet."""
        return self.rows - self.ok - self.failed


@dataclass(frozen=True)
class RunStatus:
    """The progress of an export."""

    folder: Path
    created: str
    in_use_by: str | None
    """The processes that are exporting to the folder now, if any."""
    models: tuple[ModelStatus, ...]


def run_status(folder: str | Path) -> RunStatus:
    """Report the progress of an export, also while it runs.

    Args:
        folder: The `out` of the export.

    Returns:
        Rows, units and reasons for failures, by model.

    Raises:
        StorageError: There is no run, or it cannot be read.
    """
    path = local_place(folder)
    manifest = _manifest(path)
    facts = _facts(manifest.request, path)
    units = (facts.places.rows + facts.units.rows - 1) // facts.units.rows
    models = []
    for name in facts.models:
        records = [one for file in sorted((path / name / RECORDS).glob("u*.json")) if (one := Record.load(file))]
        ok, failed = sum(one.ok for one in records), sum(len(one.failed) for one in records)
        finished = sum(not one.missing for one in records)
        reasons = _reasons([path / name / file for one in records if one.failed for file in one.tables])
        models.append(ModelStatus(name, facts.places.rows, ok, failed, units, finished, reasons))
    return RunStatus(path, manifest.created, used_by(path), tuple(models))


def stored_rows(folder: Path) -> int:
    """Count the embeddings in a run folder by its records, for all models and units; 0 if there is no run."""
    found = 0
    for path in folder.glob(f"*/{RECORDS}/u*.json"):
        with suppress(StorageError):  # reported where it matters
            record = Record.load(path)
            found += 0 if record is None else record.ok
    return found


def _reasons(tables: Sequence[Path]) -> tuple[Reason, ...]:
    first: dict[tuple[str, str], str] = {}
    count: Counter[tuple[str, str]] = Counter()
    for path in tables:
        with suppress(StorageError):  # it is being rewritten, or the export will redo it
            found = TableFile(path).table(["stage", "error"])
            for stage, error in zip(found["stage"].to_pylist(), found["error"].to_pylist(), strict=True):
                if error is not None:
                    kind = stage, error.partition(":")[0]
                    first.setdefault(kind, error)
                    count[kind] += 1
    return tuple(Reason(rows, kind[0], first[kind]) for kind, rows in count.most_common())


def retry_export(
    folder: str | Path,
    *,
    engine: EngineName = "local",
    address: str | None = None,
    progress: bool = True,
    verify: bool = False,
    shard: tuple[int, int] | str | None = None,
) -> ExportReport:
    """Repeat the call that made this folder: only failed and unfinished rows are done.

    Args:
        folder: The `out` of that call.
        engine: "local" or "ray", as in `export_embeddings`; it need not be the same as before.
        address: Address of the Ray cluster, as in `export_embeddings`.
        progress: Show a progress bar on a terminal.
        verify: Compare every byte of the existing files with their records, and redo what is damaged.
        shard: Do only every n-th unit, as in `export_embeddings`; the number of shards may differ from before.

    Returns:
        What was done.

    Raises:
        SpecError: A model or the backend was given as an object, which cannot be stored; or the run is in an object
            store.
        StorageError: There is no run, or its request has changed since.
    """
    path = local_place(folder)
    command = _manifest(path).command
    given = [name for name in ("backend", "models") if command.get(name) is None]
    if given:
        what = "its backend" if given[0] == "backend" else "a model"
        raise SpecError(
            f"Expected all arguments in {str(path)!r}, but {what} was given as an object, which is not stored.",
            fix="call export_embeddings again with the same arguments: it retries what failed",
        )
    try:
        request = ExportRequest.of_command(command)
    except SpecError as error:
        raise _unreadable(path, error) from error
    part = ALL if shard is None else Shard.of(shard)
    running = Running(engine=engine, address=address, progress=progress, verify=verify, shard=part)
    return run_export(request, Places.load(path / PLACES), path, running)


def _manifest(folder: Path) -> Manifest:
    found = Manifest.read(folder)
    if found is None:
        raise StorageError(
            f"Expected the folder of an export, got no {MANIFEST} in {str(folder)!r}.",
            fix="pass the folder that was its `out`",
        )
    return found


def _facts(content: dict[str, JsonValue], folder: Path) -> _Facts:
    try:
        return _Facts.model_validate(content)
    except ValidationError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> StorageError:
    return StorageError(
        f"Expected the manifest of an export in {str(folder)!r}, got: {str(error).splitlines()[0]}.",
        fix="export to a new folder",
    )
