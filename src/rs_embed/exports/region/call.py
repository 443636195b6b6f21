"""`embed_region`: embed a whole region as one map, block by block. It can be stopped and resumed at any time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from rs_embed.core.checks import require_choice, short
from rs_embed.core.optional import require
from rs_embed.core.specs import Debias, GridDetail, OutputSpec, Precision, TemporalSpec
from rs_embed.embedders.card import ModelCard
from rs_embed.errors import SensorNotOffered, SpecError
from rs_embed.exports.call import ExportReport, planned_export, run_export
from rs_embed.exports.engines import EngineName
from rs_embed.exports.object_store import local_place
from rs_embed.exports.region.grid import MapGrid, block_size
from rs_embed.exports.region.shape import shapes_of
from rs_embed.exports.request import ExportRequest
from rs_embed.exports.running import Running
from rs_embed.exports.sharding import ALL, Shard
from rs_embed.formats.base import Dtype
from rs_embed.pipeline.request import AcceptLicence, Backend, Bands, KnobValue, Modalities, Sensors
from rs_embed.places import Places
from rs_embed.places.columns import outline_text
from rs_embed.places.strings import Strings

if TYPE_CHECKING:
    from rs_embed.exports.region.shape import RegionLike
    from rs_embed.exports.results.embedding_map import EmbeddingMap
    from rs_embed.pipeline.plan import Job

UNIT_BLOCKS = 8
"""Blocks that share a record: the unit of work of a shard or a worker."""
MapFormat = Literal["zarr", "cog"]


@dataclass(frozen=True)
class RegionReport:
    """What `embed_region` has done. Printing it gives the summary."""

    out: Path
    maps: Mapping[str, ExportReport]
    """One map for each CRS."""

    @property
    def failed(self) -> int:
        """Blocks without tokens; the same call retries them."""
        return sum(report.failed for report in self.maps.values())

    def __str__(self) -> str:
        return "\n".join(f"{crs}: {report}" for crs, report in self.maps.items())

    def open(self) -> "EmbeddingMap":
        """The map.

        Raises:
            SpecError: There are several, one for each UTM zone.
        """
        from rs_embed.exports.results.open_region import open_region

        return open_region(self.out)


def embed_region(
    model: str | ModelCard,
    region: "RegionLike",
    temporal: TemporalSpec | Sequence[TemporalSpec] | None,
    out: str | Path,
    *,
    crs: str | None = None,
    detail: GridDetail = "patch",
    debias: Debias = "position",
    format: MapFormat = "zarr",  # noqa: A002  (the word users know)
    dtype: Dtype = "float32",
    block_cells: int | None = None,
    unit_blocks: int = UNIT_BLOCKS,
    backend: Backend = "auto",
    sensor: Sensors = None,
    modality: Modalities = None,
    bands: Bands = None,
    device: str = "auto",
    precision: Precision = "fp32",
    accept_licence: AcceptLicence = None,
    engine: EngineName = "local",
    address: str | None = None,
    progress: bool = True,
    verify: bool = False,
    shard: tuple[int, int] | str | None = None,
    dry_run: bool = False,
    rate: float | Literal["measure"] | None = None,
    **knobs: KnobValue,
) -> RegionReport:
    """Embed a whole region as one seamless map. Call it again to continue after a crash, or to retry failed blocks.

    The region is cut into blocks on a lattice that is the same for every region. Each block is fetched with the
    imagery around it that its tokens need, so the map has no seams: it is what one call over everything with
    `input_prep="tile"` would give. `RS_EMBED_MEMORY_GB` limits the imagery that is fetched ahead.

    Args:
        model: Id, alias or card of the model.
        region: A spec, a geometry (shapely or GeoJSON, degrees), a vector file (all of its polygons), or rasters whose
            footprint is meant: a file or a folder.
        temporal: The window of days; several windows become the time axis of the map, for example
            `TemporalSpec.year(2022).months()`.
        out: The run folder. An existing run in it must have the same request.
        crs: A projected CRS in metres. Default: the UTM zone of the region; a region in several zones becomes a map
            for each, in folders such as `out/epsg32632`.
        detail: "patch" for a token per patch, "dense" for finer tokens where the model has them.
        debias: "position" removes what tokens carry of their position in the network's window, estimated on the
            sample scene; "none" keeps it.
        format: "zarr" for one sharded Zarr v3 store with overviews; "cog" for a GeoTIFF per block with a STAC
            collection and a VRT.
        dtype: "float32", "float16", or "int8" with a factor per band and block.
        block_cells: Tokens along the side of a block; by default at most 2048 px and 64 MB.
        unit_blocks: Blocks that share a record.
        backend: Where imagery comes from; as in `get_embedding`, with `sensor`, `modality`, `bands`, `device`,
            `precision`, `accept_licence` and the model's knobs.
        engine: "local" or "ray"; with `address`, `progress`, `verify` and `shard` as in `export_embeddings`.
        dry_run: Only report blocks, requests, bytes and hours: `print` the result.
        rate: For a dry run: blocks that one worker encodes per second; "measure" runs the model for some seconds.

    Raises:
        SpecError: Invalid region, CRS or options.
        StorageError: The folder belongs to another request or process, or it cannot be written.
        EngineError: The cluster cannot be reached.
        MissingDependency: The extra `export`, or `ray`, is not installed.
    """
    for package in ("pyarrow", "geopandas", "zarr"):
        require(package, "export")
    require_choice("format", format, ("zarr", "cog"))
    require_choice("dtype", dtype, get_args(Dtype) if format == "zarr" else ("float32",))
    folder = local_place(out)
    request = ExportRequest(
        models=model,
        knobs=knobs,
        output=OutputSpec.grid(detail, debias=debias),
        backend=backend,
        format="cog" if format == "cog" else None,
        unit_rows=unit_blocks,
        sensor=sensor,
        modality=modality,
        bands=bands,
        input_prep="tile",
        device=device,
        precision=precision,
        accept_licence=accept_licence,
    )
    (job,) = request.jobs().values()
    _require_reference(job)
    part = ALL if shard is None else Shard.of(shard)
    running = Running(engine=engine, address=address, progress=progress, verify=verify, shard=part)
    size = block_size(job.embedder, block_cells)
    windows, shapes = _windows(temporal), shapes_of(region, crs)
    reports = {}
    for name, shape in shapes.items():
        grid = MapGrid.over(shape, name, size, windows)
        one = request.model_copy(update={"region": grid, "dtype": dtype})
        where = folder if len(shapes) == 1 else folder / name.replace(":", "").lower()
        blocks = _blocks(grid)
        if dry_run:
            reports[name] = planned_export(one, blocks, where, rate=rate)
        else:
            reports[name] = run_export(one, blocks, where, running)
    return RegionReport(folder, reports)


def _windows(temporal: TemporalSpec | Sequence[TemporalSpec] | None) -> tuple[TemporalSpec | None, ...]:
    if temporal is None or isinstance(temporal, TemporalSpec):
        return (temporal,)
    windows = tuple(temporal) if isinstance(temporal, Sequence) and not isinstance(temporal, str) else ()
    if not windows or not all(isinstance(one, TemporalSpec) for one in windows):
        raise SpecError(
            f"Expected a TemporalSpec or a list of them, got {short(temporal)}.", fix="TemporalSpec.year(2022)"
        )
    if len({window.start for window in windows}) < len(windows):
        raise SpecError(
            f"Expected windows that begin on different days, got {short(windows)}.", fix="drop repeated ones"
        )
    return tuple(sorted(windows, key=lambda one: one.start))


def _require_reference(job: "Job") -> None:
    """Estimate the position pattern on the sample scene, so that all blocks have the same pattern subtracted."""
    if job.reference is None or not job.embedder.readout.placed:
        return
    try:
        for modality, sensor in job.request.inputs:
            job.reference.require(modality.name, sensor)
    except SensorNotOffered as error:
        raise SpecError(
            f"Expected imagery that the sample scene has, to estimate what tokens of {job.request.card.id} carry of "
            "their position, got other imagery.",
            sample=error.headline,
            fix='debias="none", or other modalities',
        ) from error


def _blocks(grid: MapGrid) -> Places:
    """The blocks that overlap the region, as a table of places; the row is the number of the block."""
    found = list(grid.blocks())
    at = [grid.position(number) for number, _ in found]
    nowhere = np.full(len(found), np.nan)
    starts, ends = (
        np.array([np.datetime64("NaT") if days is None else days[end] for days in grid.days], "datetime64[D]")
        for end in (0, 1)
    )
    times = np.array([time for time, _, _ in at], np.int64)
    return Places(
        rows=np.array([number for number, _ in found], np.int64),
        ids=Strings.of([f"t{time}-r{row}-c{column}" for time, row, column in at]),
        lon=nowhere,
        lat=nowhere,
        buffer_m=nowhere,
        outlines=Strings.of([outline_text(place) for _, place in found]),
        start=starts[times],
        end=ends[times],
    )
