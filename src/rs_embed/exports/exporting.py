"""`export_embeddings`: a table of places to a folder of files, unit by unit, to be stopped and resumed at will."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rs_embed._call import Backend, Bands, KnobValue, Modalities, Sensors
from rs_embed._optional import require
from rs_embed._progress import progress_bar
from rs_embed.errors import SpecError
from rs_embed.exports.estimate import ExportPlan, estimate
from rs_embed.exports.request import VECTORS, Asked, Models, versions
from rs_embed.pipeline.durable import locked, make_folder, part_of, publish, remove_parts, storing
from rs_embed.pipeline.export import Export, OnError, run_export
from rs_embed.pipeline.inputs import FOLDER as INPUTS
from rs_embed.pipeline.inputs import InputKeeper
from rs_embed.pipeline.journal import PLACES, Manifest, UnitStore, digest_of
from rs_embed.pipeline.unit_sink import ModelExport
from rs_embed.pipeline.unit_tables import RUN
from rs_embed.pipeline.units import RECORDS, UNIT_ROWS, Units, cut_units
from rs_embed.places import Places, read_places
from rs_embed.specs import InputPrep, OutputSpec, Precision
from rs_embed.writers.base import Dtype, RunHeader

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Job
    from rs_embed.places import Given, Temporal
    from rs_embed.runs import Run


@dataclass(frozen=True)
class ExportReport:
    """What an export has done. Printing it gives the summary."""

    folder: Path
    plan: ExportPlan
    ok: int
    """Embeddings in the folder, of all models."""
    failed: int
    """Rows without one; the same call tries them again."""
    seconds: float
    dry: bool = False

    def __str__(self) -> str:
        if self.dry:
            return str(self.plan)
        done = f"{self.ok:,} embeddings in {str(self.folder)!r}, {self.failed:,} failed, {self.seconds:.0f} s"
        return f"{done}; run the same again to retry them" if self.failed else done

    def open(self) -> "Run":
        """The results."""
        from rs_embed.runs import open_run

        return open_run(self.folder)


def export_embeddings(
    models: Models,
    places: "Given",
    out: str | Path,
    *,
    temporal: "Temporal" = None,
    buffer_m: float | str | None = None,
    output: OutputSpec = OutputSpec.pooled(),
    backend: Backend = "auto",
    format: str | None = None,  # noqa: A002  (the word users know)
    dtype: Dtype = "float32",
    unit_rows: int = UNIT_ROWS,
    on_error: OnError = "keep",
    sensor: Sensors = None,
    modality: Modalities = None,
    bands: Bands = None,
    input_prep: InputPrep = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    save_inputs: bool = False,
    progress: bool = True,
    dry_run: bool = False,
    **knobs: KnobValue,
) -> ExportReport:
    """Embed a table of places into a folder. Call it again to go on after a crash, or to retry what failed.

    Args:
        models: One id or several, which share what they fetch; or a mapping id -> knobs.
        places: Whatever `rs_embed.places.read_places` reads, or what it gave.
        out: The run folder. If it holds a run, that must have been asked for the same.
        temporal: One window for all rows or one per row, where the table has no dates.
        buffer_m: Half of the side of the square around a point, metres, or the column that holds it.
        format: "geoparquet" for vectors; "cog" (default), "zarr", "netcdf" or "npz" for grids.
        dtype: How vectors are stored; "float16" and "int8" are smaller and lose a little.
        unit_rows: Rows a file, and at most what is lost when the process is killed.
        on_error: "keep" stores a failed row with its error and goes on; "raise" stops at the first.
        save_inputs: Also keep each chip: `inputs/<unit>/<row>-<id>-<modality>.npz`.
        progress: Show a bar on a terminal.
        dry_run: Only say what would be done: `print` the answer.

    The other arguments are those of `get_embedding`.

    Raises:
        SpecError: Places or options that cannot be meant.
        StorageError: The folder belongs to another request or process, or the disk refuses.
        MissingDependency: The extra `export` is not installed.
    """
    for package in ("pyarrow", "geopandas"):
        require(package, "export")
    imagery = sensor, modality, bands
    given = models, output, backend, format, dtype, unit_rows, on_error
    asked = Asked(*given, *imagery, input_prep, device, precision, knobs, save_inputs)
    table = read_places(places, temporal=temporal, buffer_m=buffer_m)
    folder = Path(out).expanduser()
    jobs, units = asked.jobs(folder / INPUTS if save_inputs else None), cut_units(table, unit_rows)
    plan = estimate(jobs, table, units, dtype=dtype, output=asked.grid_format or VECTORS, finished=_finished(folder))
    if dry_run:
        return ExportReport(folder, plan, 0, 0, 0.0, dry=True)
    started = time.perf_counter()
    with storing(folder):
        make_folder(folder)
    with locked(folder), _sigterm_as_interrupt():
        export = _open(folder, asked, jobs, table, units)
        with progress_bar(len(table) * len(jobs), shown=progress) as advance:
            run_export(export, advance)
        ok, failed = counts(export)
    return ExportReport(folder, plan, ok, failed, time.perf_counter() - started)


def _open(folder: Path, asked: Asked, jobs: "Mapping[str, Job]", places: Places, units: Units) -> Export:
    """The export, in a folder that is new or was made for the same request."""
    request = asked.request(jobs, places, units)
    manifest = Manifest.read(folder)
    with storing(folder):
        remove_parts(folder)
        if manifest is None:
            _refuse_foreign(folder)
            manifest = _begin(folder, asked, request, places)
    manifest.refuse_change(request, folder)
    models = tuple(_model(folder / name, job, asked, manifest) for name, job in jobs.items())
    provider = models[0].job.provider
    keeper = provider if isinstance(provider, InputKeeper) else None
    return Export(folder, places, units, models, asked.grid_format, asked.on_error, keeper)


def _refuse_foreign(folder: Path) -> None:
    """A folder with something else in it is nobody's to fill."""
    found = sorted(one.name for one in folder.iterdir() if not one.name.startswith(".") and one.name != PLACES)
    if found:
        raise SpecError(
            f"Wanted a new folder or one with a run, found {str(folder)!r} with other things in it.",
            found=", ".join(found[:5]),
            fix="choose another folder",
        )


def _begin(folder: Path, asked: Asked, request: dict[str, JsonValue], places: Places) -> Manifest:
    part = part_of(folder / PLACES)
    places.save(part)
    publish(part, folder / PLACES)
    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        request=request,
        fingerprint=digest_of(request),
        command=asked.command(),
        versions=versions(),
    )
    manifest.write(folder)
    return manifest


def _model(folder: Path, job: "Job", asked: Asked, manifest: Manifest) -> ModelExport:
    card, network = job.request.card, job.embedder.network
    header = RunHeader(
        model_id=card.id,
        card_revision=card.revision,
        dim=job.embedder.width(asked.output),
        output=asked.output.kind,
        created=manifest.created,
        weights=network.weights_id,
        weights_note=network.note,
        title=card.title,
        model_url=f"https://huggingface.co/{card.weights.hub}" if card.weights else "",
        licence=card.weights.licence if card.weights else card.licence,
        publications=(card.citation,),
        dtype=asked.dtype,
        source_data=tuple(dict.fromkeys(sensor.collection for _, sensor in job.request.inputs)),
        gsd_m=job.request.scale_m,
        versions=versions(),
        extra={
            "knobs": job.embedder.knobs_in_force(),
            "device": str(job.embedder.device),
            "precision": job.request.precision,
            "input_prep": job.prep,
            RUN: manifest.fingerprint,
        },
    )
    return ModelExport(job, header, UnitStore(folder, manifest.fingerprint, versions()))


def counts(export: Export) -> tuple[int, int]:
    """Embeddings and failed rows of all models, by the records."""
    records = [model.store.read(unit) for model in export.models for unit in export.units]
    found = [record for record in records if record is not None]
    return sum(record.ok for record in found), sum(len(record.failed) for record in found)


def _finished(folder: Path) -> int:
    return sum(1 for _ in folder.glob(f"*/{RECORDS}/u*.json"))


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """A scheduler's SIGTERM stops like Ctrl-C: files are closed, and what is finished stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
