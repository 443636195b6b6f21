"""Estimate the cost of an export before it starts: fetches, bytes, and Earth Engine compute units."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rs_embed.core.geo import geobox_for
from rs_embed.errors import SpecError
from rs_embed.exports.fetching.shared_reads import count_reads
from rs_embed.exports.request import VECTORS, ExportRequest
from rs_embed.exports.unit import Units
from rs_embed.formats.base import Dtype
from rs_embed.pipeline.plan import plan_items
from rs_embed.places import Places
from rs_embed.providers.base import pixels_of

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Item, Job
    from rs_embed.providers.base import Query

BYTES: Mapping[Dtype, int] = {"float32": 4, "float16": 2, "int8": 1}
ROW_BYTES = 700
"""Bytes of a row without its vector: footprint, ids, metadata; zstd, measured on 4,096 rows of mosaiks_rcf."""
EECU_S_PER_CHIP = 1.0
"""Earth Engine compute per chip, EECU-seconds: assumed, not measured."""
CALL_S, CONCURRENT = 2.0, 40
"""Seconds per request to Earth Engine (assumed), and the number of requests it allows at a time."""
EECU_HOURS = {"Community": 150, "Contributor": 1_000, "Partner": 100_000}
"""Monthly allowance without a fee, EECU-hours. Source: Earth Engine noncommercial tiers."""
_UNITS_LOOKED_AT = 4
"""Number of units from which the benefit of shared reads is estimated."""
_BLOCKS_LOOKED_AT = 200
"""Number of blocks of a map whose windows are counted; the count is scaled to all blocks."""
_TRIED = 100
"""Number of places tried to find one that is valid."""


@dataclass(frozen=True)
class Rate:
    """The speed of one worker."""

    rows_per_s: float
    how: Literal["declared", "measured here"]


@dataclass(frozen=True)
class ExportPlan:
    """What `dry_run` prints."""

    models: tuple[str, ...]
    rows: int
    units: int
    unit_rows: int
    begun: int
    """Units that already have a file, for all models; of an unfinished unit, only the rest is done."""
    fetches: int
    """Number of chips, if nothing is finished yet."""
    requests: int
    """Number of reads for these chips: fewer than chips if reads are shared."""
    fetched_bytes: int
    output_bytes: int
    output: str
    provider: str
    rate: Rate | None = None
    """The rate of all models together; `None` if it was neither given nor measured."""
    part_of: int | None = None
    """Rows of the table, if it is only a part of the planned rows."""
    noun: Literal["rows", "blocks"] = "rows"
    """What a row is."""
    windows: tuple[int, int] | None = None
    """Of a map: windows to encode for all models, and how many all blocks have."""

    def __str__(self) -> str:
        lines = [
            f"{', '.join(self.models)}: {self.rows:,} {self.noun} in {self.units:,} units of up to {self.unit_rows:,}",
            f"  existing:  {self.begun:,} of {self.units * len(self.models):,} unit files",
            f"  fetches:   {self.fetches:,} chips via {self.provider}, about {_size(self.fetched_bytes)}"
            + (f", in about {self.requests:,} requests" if self.requests != self.fetches else ""),
            f"  output:    {self.output}, about {_size(self.output_bytes)} (estimate, before compression)",
        ]
        if self.windows is not None:
            some, every = self.windows
            left = f"; the other {1 - some / every:.0%} see only ground outside the region" if some < every else ""
            lines.append(f"  windows:   {some:,} of {every:,} are encoded{left}")
        if self.part_of is not None:
            lines.insert(1, f"  scaled:    from a sample of {self.part_of:,} rows, assumed to be as dense as the whole")
        if self.rate is not None:
            hours, speed = self.rows / self.rate.rows_per_s / 3600, f"{self.rate.rows_per_s:,.3g} {self.noun}/s"
            lines.append(
                f"  encoding:  {hours:,.1f} hours with one worker at {speed} ({self.rate.how}), {hours / 8:,.1f} with 8"
            )
        if self.provider == "gee":
            lines.append(f"  cost:      {earth_engine_cost(self.fetches, self.requests)}")
        return "\n".join(lines)


def earth_engine_cost(fetches: int, requests: int) -> str:
    """Describe the compute and time that Earth Engine would need: an estimate, with its assumptions."""
    hours = fetches * EECU_S_PER_CHIP / 3600
    days = requests * CALL_S / CONCURRENT / 86_400
    tiers = ", ".join(f"{name} {limit:,}" for name, limit in EECU_HOURS.items())
    return (
        f"about {hours:,.1f} EECU-hours (estimate: {EECU_S_PER_CHIP:g} EECU-second per chip, not measured; "
        f"monthly allowance: {tiers}) and {days:,.2f} days at {CONCURRENT} requests of {CALL_S:g} s at a time"
    )


@dataclass(frozen=True)
class Scale:
    """The options of a dry run that scale its plan."""

    rows: int | None = None
    """Rows to plan for, if the table is only a sample."""
    share_reads: bool = False
    rate: Rate | None = None


def estimate(
    request: ExportRequest,
    jobs: "Mapping[str, Job]",
    places: Places,
    units: Units,
    *,
    begun: int,
    scale: Scale = Scale(),
) -> ExportPlan:
    """Estimate an export from what its first valid place needs.

    Raises:
        SpecError: None of the first places is valid, or `plan_rows` is smaller than the table.
    """
    queries: list[Query] = []
    rows = len(places) if scale.rows is None else scale.rows
    if rows < len(places):
        raise SpecError(
            f"Expected plan_rows of at least {len(places):,}, the rows of the table, got {rows:,}.",
            fix="leave it out, or pass the number of rows of the whole table",
        )
    output_bytes = 0
    for job in jobs.values():
        first = _first_item(job, places)
        queries += [query for query in first.queries if pixels_of(query) not in map(pixels_of, queries)]
        grid = first.queries[0].geobox if first.queries else first.cells
        shape = (0, 0) if grid is None else (grid.shape[0], grid.shape[1])
        output_bytes += rows * (
            ROW_BYTES + BYTES[request.dtype] * job.embedder.readout.width(job.output) * _cells(job, shape)
        )
    chips, pixels = rows * len(queries), rows * sum(_values(query) for query in queries)
    reads, read_pixels = _shared(jobs, places, units) if scale.share_reads else (1.0, 1.0)
    return ExportPlan(
        models=tuple(jobs),
        rows=rows,
        units=-(-rows // units.unit_rows),
        unit_rows=units.unit_rows,
        begun=begun,
        fetches=chips,
        requests=round(chips * reads),
        fetched_bytes=round(pixels * read_pixels) * 2,  # 16 bits per value, as archives store them
        output_bytes=output_bytes,
        output=request.grid_format or VECTORS,
        provider=next(iter(jobs.values())).provider.name,
        rate=scale.rate,
        part_of=None if scale.rows is None else len(places),
        noun="rows" if request.region is None else "blocks",
        windows=None if request.region is None else _windows(jobs, places),
    )


def _windows(jobs: "Mapping[str, Job]", places: Places) -> tuple[int, int]:
    """Return how many windows of all blocks are encoded, and how many there are, estimated from some of the blocks."""
    from rs_embed.embedders.prepare.framing import frame_chip  # loads torch
    from rs_embed.pipeline.needed import needed_windows

    looked_at = range(0, len(places), max(1, len(places) // _BLOCKS_LOOKED_AT))
    some = every = 0
    for place in (places[index].spatial for index in looked_at):
        for job in jobs.values():
            grid = geobox_for(place, job.request.scale_m)
            frame = frame_chip((grid.shape[0], grid.shape[1]), job.prep, job.embedder.geometry())
            every += len(frame.windows)
            some += len(needed_windows(frame, grid, place, job).windows)
    scale = len(places) / len(looked_at)
    return round(some * scale), round(every * scale)


def _shared(jobs: "Mapping[str, Job]", places: Places, units: Units) -> tuple[float, float]:
    """Return reads per chip, and pixels read per pixel of a chip, over some units of the table."""
    chips = reads = chip_px = read_px = 0
    for number in range(0, len(units), max(1, len(units) // _UNITS_LOOKED_AT)):
        asked = list(places.take(units[number].rows))
        found: dict[Query, Query] = {}
        for job in jobs.values():
            for place in asked:
                with suppress(SpecError):  # this will be a failed row
                    (item,) = plan_items(job, [place.spatial], [place.window]).items
                    found |= {pixels_of(query): query for query in item.queries}
        boxes = [query.geobox for query in found.values() if query.geobox is not None]
        windows, pixels = count_reads(list(found.values()))
        chips, reads, read_px = chips + len(boxes), reads + windows, read_px + pixels
        chip_px += sum(box.shape[0] * box.shape[1] for box in boxes)
    return reads / max(1, chips), read_px / max(1, chip_px)


def _first_item(job: "Job", places: Places) -> "Item":
    error = None
    for index in range(min(len(places), _TRIED)):
        place = places[index]
        try:
            return plan_items(job, [place.spatial], [place.window]).items[0]
        except SpecError as found:
            error = error or found
    raise error or SpecError("Expected at least one place, got none.", fix="check the table")


def _values(query: "Query") -> int:
    height, width = (0, 0) if query.geobox is None else query.geobox.shape
    frames = query.series.most(query.window) if query.series else 1
    return int(height) * int(width) * len(query.sensor.bands) * frames


def _cells(job: "Job", shape: tuple[int, int]) -> int:
    """Return the rough number of tokens in a grid; 1 for a vector."""
    if job.output.kind == "pooled":
        return 1
    geometry = job.embedder.geometry()
    height, width = (geometry.image_px, geometry.image_px) if job.prep == "resize" else shape
    return max(int(height) // geometry.patch_px, 1) * max(int(width) // geometry.patch_px, 1)


def _size(count: float) -> str:
    """Format bytes with a suitable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
