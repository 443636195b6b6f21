"""`export_embeddings`: a table of places to a folder of files, unit by unit, to be stopped and resumed at will."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zipfile import is_zipfile

from pydantic import JsonValue

from rs_embed.core.atomic import part_of, publish, remove_parts, storing
from rs_embed.core.checks import require_number
from rs_embed.core.optional import require
from rs_embed.core.progress import progress_bar
from rs_embed.core.signals import sigterm_as_interrupt
from rs_embed.core.specs import InputPrep, OutputSpec, Precision
from rs_embed.errors import StorageError
from rs_embed.exports.engines import EngineName, check_engine, open_crew
from rs_embed.exports.engines.base import RunStamp
from rs_embed.exports.estimate import ExportPlan, Rate, Scale, estimate
from rs_embed.exports.journal import PLACES, Manifest, digest_of
from rs_embed.exports.location import Tally, begun, keep_manifest, refuse_foreign, run_folder, swept
from rs_embed.exports.object_store import Remote, place_of
from rs_embed.exports.order import ExportOrder
from rs_embed.exports.records import UnitStore
from rs_embed.exports.request import ExportRequest, Models, versions
from rs_embed.exports.results.catalog import write_catalogs
from rs_embed.exports.running import Running
from rs_embed.exports.sharding import ALL, Shard, SharedRun, is_finished
from rs_embed.exports.unit import UNIT_ROWS, cut_units
from rs_embed.exports.work import OnError, Task
from rs_embed.formats.base import Dtype
from rs_embed.pipeline.request import Backend, Bands, KnobValue, Modalities, Sensors
from rs_embed.places import Places, read_places

if TYPE_CHECKING:
    from rs_embed.exports.results.run import Run
    from rs_embed.pipeline.plan import Job
    from rs_embed.places import Given, Temporal


@dataclass(frozen=True)
class ExportReport:
    """What an export has done. Printing it gives the summary."""

    folder: Path | Remote
    plan: ExportPlan
    ok: int
    """Embeddings in the folder, of all models; of a shard, its own."""
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
        """The results.

        Raises:
            SpecError: They lie in an object store.
        """
        from rs_embed.exports.results.run import open_run

        return open_run(str(self.folder))


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
    share_reads: bool = False,
    engine: EngineName = "local",
    address: str | None = None,
    progress: bool = True,
    verify: bool = False,
    shard: tuple[int, int] | str | None = None,
    dry_run: bool = False,
    plan_rows: int | None = None,
    rate: float | Literal["measure"] | None = None,
    **knobs: KnobValue,
) -> ExportReport:
    """Embed a table of places into a folder. Call it again to go on after a crash, or to retry what failed.

    Args:
        models: One id or several, which share what they fetch; or a mapping id -> knobs.
        places: Whatever `rs_embed.places.read_places` reads, or what it gave.
        out: The run folder, or one of an object store: "s3://bucket/run", "gs://bucket/run". If it holds a run, that
            must have been asked for the same.
        temporal: One window for all rows or one per row, where the table has no dates.
        buffer_m: Half of the side of the square around a point, metres, or the column that holds it.
        format: "geoparquet" for vectors; "cog" (default), "zarr", "netcdf", "npz" or one of your own for grids.
        dtype: How vectors are stored; "float16" and "int8" are smaller and lose a little.
        unit_rows: Rows a file. (What is done of it is stored each minute, and where the export is stopped.)
        on_error: "keep" stores a failed row with its error and goes on; "raise" stops at the first.
        save_inputs: Also keep each chip: `inputs/<unit>/<row>-<id>-<modality>.npz`.
        share_reads: Cut chips of neighbours from one read of up to 48 MiB: fewer requests where places lie close.
        engine: "local": this process. "ray": a cluster; a run begun by one engine may be finished by the other.
        address: Of the Ray cluster: "auto" for the one of this machine, "host:port"; `None` starts one here, for this
            call, unless Ray is connected already.
        progress: Show a bar on a terminal.
        verify: First compare every byte of what is there with its record; what is damaged is made again. Without it,
            sizes are compared.
        shard: (3, 16) or "3/16": do every 16th unit, from the one of number 3 on. 16 processes with 0/16 to 15/16 fill
            one folder between them; limits of requests hold for each of them.
        dry_run: Only say what would be done: `print` the answer.
        plan_rows: Of a dry run: plan for so many rows, of which the table is a part as dense as the whole.
        rate: Of a dry run: rows that one worker encodes a second; "measure" runs the models here, for some seconds.

    The other arguments are those of `get_embedding`.

    Raises:
        SpecError: Invalid places or options.
        StorageError: The folder belongs to another request or process, or the disk refuses.
        EngineError: The cluster cannot be reached, or has nobody left who works.
        MissingDependency: The extra `export`, or `ray`, is not installed.
    """
    request = ExportRequest(
        models=models,
        knobs=knobs,
        output=output,
        backend=backend,
        format=format,
        dtype=dtype,
        unit_rows=unit_rows,
        on_error=on_error,
        sensor=sensor,
        modality=modality,
        bands=bands,
        input_prep=input_prep,
        device=device,
        precision=precision,
        save_inputs=save_inputs,
        share_reads=share_reads,
    )
    part = ALL if shard is None else Shard.of(shard)
    running = Running(engine=engine, address=address, progress=progress, verify=verify, shard=part)
    table = read_places(places, temporal=temporal, buffer_m=buffer_m)
    if not dry_run:
        return run_export(request, table, place_of(out), running)
    _require_packages()
    jobs, where = request.jobs(), place_of(out)
    scale = Scale(plan_rows, share_reads, _rate(rate, jobs, table))
    plan = estimate(request, jobs, table, cut_units(table, unit_rows), begun=begun(where), scale=scale)
    return ExportReport(where, plan, 0, 0, 0.0, dry=True)


def run_export(request: ExportRequest, places: Places, where: Path | Remote, running: Running) -> ExportReport:
    """Do what is missing of an export.

    Raises:
        RSEmbedError: See `export_embeddings`.
    """
    _require_packages()
    check_engine(running.engine, running.address)
    # A machine that only sends units to a cluster needs no GPU of its own to plan them.
    planned = request.model_copy(update={"device": "cpu"}) if running.engine == "ray" else request
    jobs, units = planned.jobs(), cut_units(places, request.unit_rows)
    scale = Scale(share_reads=request.share_reads)
    plan = estimate(request, jobs, places, units, begun=begun(where), scale=scale)
    started = time.perf_counter()
    own = where.resolve() if isinstance(where, Path) else where
    fetch_workers = max(job.request.knobs.fetch_workers for job in jobs.values())
    order = ExportOrder(request, own, fetch_workers, running.verify)
    shard, remote = running.shard, where if isinstance(where, Remote) else None
    with (
        run_folder(where, shard) as (folder, gate),
        open_crew(running.engine, running.address, order) as crew,
        sigterm_as_interrupt(),
    ):
        manifest = _open(folder, request.run_facts(crew.facts(), places, units), request, gate)
        with gate.setting_up(), storing(folder):
            _keep_places(folder, places, verify=running.verify)
            keep_manifest(remote, folder)
        stores = [UnitStore(folder / name, manifest.fingerprint, versions()) for name in jobs]
        rows = sum(len(unit.rows) for unit in shard.units_of(units))
        with (
            progress_bar(rows * len(jobs), shown=running.progress, label="export") as advance,
            swept(folder, stores, shard),
        ):
            tally = Tally(advance)
            tasks = (Task(unit, places.take(unit.rows)) for unit in shard.units_of(units))
            crew.run(RunStamp(manifest.created, manifest.fingerprint), tasks, tally)
        with gate.leaving() as is_last:
            if shard == ALL or (is_last and is_finished(stores, units, remote)):
                write_catalogs(stores, units, grids=request.grid_format is not None, remote=remote)
    return ExportReport(where, plan, tally.rows - tally.failed, tally.failed, time.perf_counter() - started)


def _require_packages() -> None:
    for package in ("pyarrow", "geopandas"):
        require(package, "export")


def _rate(rate: float | Literal["measure"] | None, jobs: "Mapping[str, Job]", places: Places) -> Rate | None:
    if rate is None:
        return None
    if rate == "measure":
        from rs_embed.exports.rate import measure_rate  # loads torch

        return measure_rate(jobs, places)
    return Rate(require_number("rate", rate, 1e-6, 1e9), "declared")


def _open(folder: Path, facts: dict[str, JsonValue], request: ExportRequest, gate: SharedRun) -> Manifest:
    """The manifest of the folder, which is new or was made for the same request."""
    with gate.setting_up(), storing(folder):
        manifest = Manifest.read(folder)
        if manifest is None:
            refuse_foreign(folder, [one.name for one in folder.iterdir()])
            manifest = _begin(folder, request, facts)
        manifest.refuse_change(facts, folder)
        remove_parts(folder)
    return manifest


def _keep_places(folder: Path, places: Places, *, verify: bool) -> None:
    """The table as it was read, for `retry_export`: it is that of the manifest, so a damaged copy is replaced."""
    path = folder / PLACES
    with suppress(StorageError):
        if is_zipfile(path) and (not verify or Places.load(path).digest() == places.digest()):
            return
    part = part_of(path)
    places.save(part)
    publish(part, path)


def _begin(folder: Path, request: ExportRequest, facts: dict[str, JsonValue]) -> Manifest:
    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        request=facts,
        fingerprint=digest_of(facts),
        command=request.command(),
        versions=versions(),
    )
    manifest.write(folder)
    return manifest
