"""What an export will cost, before it starts: fetches, bytes, and Earth Engine's own currency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rs_embed.errors import SpecError
from rs_embed.pipeline.plan import plan_items
from rs_embed.pipeline.units import Units
from rs_embed.places import Places
from rs_embed.writers.base import Dtype

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Job
    from rs_embed.providers.base import Query

BYTES: Mapping[Dtype, int] = {"float32": 4, "float16": 2, "int8": 1}
ROW_BYTES = 700
"""Of everything but the vector: footprint, ids, metadata; zstd, as measured on 4,096 rows of mosaiks_rcf."""
EECU_S_PER_CHIP = 1.0
"""Earth Engine compute of one chip: an assumption, not measured."""
CALL_S, CONCURRENT = 2.0, 40
"""Seconds a request to Earth Engine takes (assumed), and how many it allows at a time."""
EECU_HOURS = {"Community": 150, "Contributor": 1_000, "Partner": 100_000}
"""A month's allowance without a fee. Source: Earth Engine noncommercial tiers."""
_TRIED = 100
"""Places looked at to find one that can be asked for."""


@dataclass(frozen=True)
class ExportPlan:
    """What `dry_run` prints."""

    models: tuple[str, ...]
    rows: int
    units: int
    unit_rows: int
    finished: int
    """Units that are finished already, of all models."""
    fetches: int
    """Chips, if nothing is finished yet."""
    fetched_bytes: int
    output_bytes: int
    output: str
    provider: str

    def __str__(self) -> str:
        lines = [
            f"{', '.join(self.models)}: {self.rows:,} rows in {self.units:,} units of up to {self.unit_rows:,}",
            f"  finished:  {self.finished:,} of {self.units * len(self.models):,} unit files",
            f"  fetches:   {self.fetches:,} chips via {self.provider}, about {_size(self.fetched_bytes)}",
            f"  output:    {self.output}, about {_size(self.output_bytes)} (estimate, before compression)",
        ]
        if self.provider == "gee":
            lines.append(f"  cost:      {earth_engine_cost(self.fetches)}")
        return "\n".join(lines)


def earth_engine_cost(fetches: int) -> str:
    """Compute and time that Earth Engine would take: an estimate, with what it assumes."""
    hours = fetches * EECU_S_PER_CHIP / 3600
    days = fetches * CALL_S / CONCURRENT / 86_400
    tiers = ", ".join(f"{name} {limit:,}" for name, limit in EECU_HOURS.items())
    return (
        f"about {hours:,.1f} EECU-hours (estimate: {EECU_S_PER_CHIP:g} EECU-second a chip, not measured; "
        f"a month's allowance: {tiers}) and {days:,.2f} days at {CONCURRENT} requests of {CALL_S:g} s at a time"
    )


def estimate(
    jobs: "Mapping[str, Job]", places: Places, units: Units, *, dtype: Dtype, output: str, finished: int
) -> ExportPlan:
    """The plan of an export, by what its first place needs.

    Raises:
        SpecError: None of the first places can be asked for.
    """
    queries: list[Query] = []
    output_bytes = 0
    for job in jobs.values():
        own = _first_queries(job, places)
        queries += [query for query in own if query not in queries]
        shape = (0, 0) if own[0].geobox is None else (own[0].geobox.shape[0], own[0].geobox.shape[1])
        output_bytes += len(places) * (ROW_BYTES + BYTES[dtype] * job.embedder.width(job.output) * _cells(job, shape))
    pixels = sum(_values(query) for query in queries)
    return ExportPlan(
        models=tuple(jobs),
        rows=len(places),
        units=len(units),
        unit_rows=units.unit_rows,
        finished=finished,
        fetches=len(places) * len(queries),
        fetched_bytes=len(places) * pixels * 2,  # 16 bits a value, as archives store it
        output_bytes=output_bytes,
        output=output,
        provider=next(iter(jobs.values())).provider.name,
    )


def _first_queries(job: "Job", places: Places) -> "tuple[Query, ...]":
    error = None
    for index in range(min(len(places), _TRIED)):
        place = places[index]
        try:
            return plan_items(job, [place.spatial], [place.window]).items[0].queries
        except SpecError as found:
            error = error or found
    raise error or SpecError("Wanted at least one place, found none.", fix="check the table")


def _values(query: "Query") -> int:
    height, width = (0, 0) if query.geobox is None else query.geobox.shape
    frames = query.series.frames if query.series else 1
    return int(height) * int(width) * len(query.sensor.bands) * frames


def _cells(job: "Job", shape: tuple[int, int]) -> int:
    """Tokens of a grid, roughly; 1 for a vector."""
    if job.output.kind == "pooled":
        return 1
    geometry = job.embedder.geometry()
    height, width = (geometry.image_px, geometry.image_px) if job.prep == "resize" else shape
    return max(int(height) // geometry.patch_px, 1) * max(int(width) // geometry.patch_px, 1)


def _size(count: float) -> str:
    """Bytes in the unit that people use."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
