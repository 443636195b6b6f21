"""`export_embeddings`: embed a table of places into a folder of files, unit by unit; stop and resume it at any time."""

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
from rs_embed.exports.engines import EngineName, check_engine, open_executor
from rs_embed.exports.engines.base import RunStamp
from rs_embed.exports.estimate import ExportPlan, Rate, Scale, estimate
from rs_embed.exports.journal import PLACES, Manifest, digest_of
from rs_embed.exports.location import Tally, begun, keep_manifest, refuse_foreign, run_folder, swept
from rs_embed.exports.object_store import Remote, place_of
from rs_embed.exports.order import ExportOrder
from rs_embed.exports.region.mosaic import write_mosaics
from rs_embed.exports.request import ExportRequest, Models, versions
from rs_embed.exports.results.catalog import write_catalogs
from rs_embed.exports.running import Running
from rs_embed.exports.sharding import ALL, Shard, SharedRun, is_finished
from rs_embed.exports.unit import MAP, UNIT_ROWS, cut_units
from rs_embed.exports.work import OnError, Task
from rs_embed.formats.base import Dtype
from rs_embed.pipeline.request import AcceptLicence, Backend, Bands, KnobValue, Modalities, Sensors
from rs_embed.places import Places, read_places

if TYPE_CHECKING:
    from rs_embed.exports.results.run import Run
    from rs_embed.pipeline.plan import Job
    from rs_embed.places import Given, Temporal


@dataclass(frozen=True)
class ExportReport:
    """The result of an export. Print it for a summary."""

    folder: Path | Remote
    plan: ExportPlan
    ok: int
    """Number of embeddings in the folder, for all models; for a shard, its own."""
    failed: int
    """Number of failed rows; the same call tries them again."""
    seconds: float
    dry: bool = False

    def __str__(self) -> str:
        if self.dry:
            return str(self.plan)
        what = "embeddings" if self.plan.noun == "rows" else self.plan.noun
        done = f"{self.ok:,} {what} in {str(self.folder)!r}, {self.failed:,} failed, {self.seconds:.0f} s"
        return f"{done}; run the same again to retry them" if self.failed else done

    def open(self) -> "Run":
        """Open the results.

        Raises:
            SpecError: The run is in an object store.
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
    accept_licence: AcceptLicence = None,
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
    """Embed a table of places into a folder. Repeat the same call to resume after a crash, or to retry failed rows.

    Args:
        models: One model or several, which share fetched imagery; or a mapping model id -> knobs.
        places: Anything that `read_places` reads or returns.
        out: The run folder, or one in an object store: "s3://bucket/run", "gs://bucket/run". A folder that already
            holds a run is accepted only if that run was made for the same request.
        temporal: One window for all rows or one per row, if the table has no dates.
        buffer_m: Half the side of the square around a point, metres, or the name of the column that holds it.
        format: "geoparquet" for vectors; "cog" (default), "zarr", "netcdf", "npz" or a registered format for grids.
        dtype: Type in which vectors are stored; "float16" and "int8" are smaller and slightly less precise.
        unit_rows: Rows per file. (Within a file, finished rows are stored every minute and when the export stops.)
        on_error: "keep" stores a failed row with its error and goes on; "raise" stops at the first error.
        save_inputs: Also save each chip: `inputs/<unit>/<row>-<id>-<modality>.npz`.
        share_reads: Cut the chips of neighbouring places from one read of up to 48 MiB, which means fewer requests
            where places are close together.
        engine: "local": this process. "ray": a Ray cluster. Either engine can finish a run that the other began.
        address: Address of the Ray cluster: "auto" for the one on this machine, or "host:port". `None` starts one here
            for this call, unless this process is already connected to one.
        progress: Show a progress bar on a terminal.
        verify: First compare every byte of the existing files with their records, and redo what is damaged. By
            default, only sizes are compared.
        shard: (3, 16) or "3/16" does every 16th unit, starting with unit 3. 16 processes with 0/16 to 15/16 fill one
            folder together; request limits apply to each of them separately.
        dry_run: Only report what would be done: `print` the result.
        plan_rows: For a dry run: scale the plan to this many rows, of which the table is a sample of equal density.
        rate: For a dry run: rows that one worker encodes per second. "measure" runs the models here for a few seconds.

    The other arguments are those of `get_embedding`.

    Returns:
        What was done, or for a dry run, what would be done.

    Raises:
        SpecError: Places or options are invalid.
        StorageError: The folder belongs to another request or is in use by another process, or the disk fails.
        EngineError: The cluster cannot be reached, or no worker is left.
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
        accept_licence=accept_licence,
        save_inputs=save_inputs,
        share_reads=share_reads,
    )
    part = ALL if shard is None else Shard.of(shard)
    running = Running(engine=engine, address=address, progress=progress, verify=verify, shard=part)
    table = read_places(places, temporal=temporal, buffer_m=buffer_m)
    if dry_run:
        return planned_export(request, table, place_of(out), plan_rows, rate)
    return run_export(request, table, place_of(out), running)


def planned_export(
    request: ExportRequest,
    places: Places,
    where: Path | Remote,
    plan_rows: int | None = None,
    rate: float | Literal["measure"] | None = None,
) -> ExportReport:
    """What an export would do: a dry run.

    Raises:
        RSEmbedError: See `export_embeddings`.
    """
    _require_packages()
    jobs, units = request.jobs(), cut_units(places, request.unit_rows)
    scale = Scale(plan_rows, request.share_reads, _rate(rate, jobs, places))
    plan = estimate(request, jobs, places, units, begun=begun(where), scale=scale)
    return ExportReport(where, plan, 0, 0, 0.0, dry=True)


def run_export(request: ExportRequest, places: Places, where: Path | Remote, running: Running) -> ExportReport:
    """Do the part of an export that is not finished yet.

    Raises:
        RSEmbedError: See `export_embeddings`.
    """
    _require_packages()
    check_engine(running.engine, running.address)
    # The machine that sends units to a cluster needs no GPU to plan them.
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
        open_executor(running.engine, running.address, order) as executor,
        sigterm_as_interrupt(),
    ):
        manifest = _open(folder, request.run_facts(executor.facts(), places, units), request, gate)
        with gate.setting_up(), storing(folder):
            _keep_places(folder, places, verify=running.verify)
            keep_manifest(remote, folder)
        stores = [request.store(folder / name, job, manifest.fingerprint) for name, job in jobs.items()]
        rows = sum(len(unit.rows) for unit in shard.units_of(units))
        with (
            progress_bar(rows * len(jobs), shown=running.progress, label="export") as advance,
            swept(folder, stores, shard),
        ):
            tally = Tally(advance)
            tasks = (Task(unit, places.take(unit.rows)) for unit in shard.units_of(units))
            executor.run(RunStamp(manifest.created, manifest.fingerprint), tasks, tally)
        with gate.leaving() as is_last:
            all_done = shard == ALL or (is_last and is_finished(stores, units, remote))
            if all_done and request.grid_format != MAP:  # a map says all of itself
                write_catalogs(stores, units, grids=request.grid_format is not None, remote=remote)
            if all_done and request.region is not None and request.grid_format == "cog":
                with storing(folder):
                    write_mosaics(stores[0], units, request.region)
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
    """Return the manifest of a folder that is new, or was made for the same request."""
    with gate.setting_up(), storing(folder):
        manifest = Manifest.read(folder)
        if manifest is None:
            refuse_foreign(folder, [one.name for one in folder.iterdir()])
            manifest = _begin(folder, request, facts)
        manifest.refuse_change(facts, folder)
        remove_parts(folder)
    return manifest


def _keep_places(folder: Path, places: Places, *, verify: bool) -> None:
    """Store the table for `retry_export`. The manifest has its digest, so a damaged copy is replaced."""
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
