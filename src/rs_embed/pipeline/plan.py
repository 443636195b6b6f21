"""The plan: which chips will be fetched on which grids. Pure and printable; nothing is loaded or fetched for it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypedDict

from odc.geo.geobox import GeoBox
from pydantic import JsonValue

from rs_embed.core.geo import geobox_for, refined, subgrid
from rs_embed.core.settings import SeriesKnobs
from rs_embed.core.specs import OutputSpec, Region, Series, SpatialSpec, TemporalSpec, WorkingPrecision
from rs_embed.embedders.base import Embedder, ModelRequest
from rs_embed.embedders.card import Modality
from rs_embed.embedders.prepare.framing import Prep
from rs_embed.errors import SpecError
from rs_embed.providers.base import Provider, Query
from rs_embed.redact import redacted

FINGERPRINT_VERSION = 1
_NOT_NUMBERS = {"fetch_workers", "ckpt", "min_valid_fraction", "compile"}
"""Knobs that do not change what comes out, but for rounding (a checkpoint counts by its content, not by its path)."""


@dataclass(frozen=True)
class Item:
    """One embedding to make."""

    index: int
    """Place in the caller's list."""
    spatial: SpatialSpec | None
    window: TemporalSpec | None
    queries: tuple[Query, ...]
    """One per modality, all on the same grid."""


@dataclass(frozen=True)
class Job:
    """What all items of a plan share."""

    embedder: Embedder
    provider: Provider
    output: OutputSpec
    prep: Prep

    @property
    def request(self) -> ModelRequest:
        """What every item is asked with."""
        return self.embedder.request


@dataclass(frozen=True)
class Plan:
    """Everything that one call will do."""

    job: Job
    items: tuple[Item, ...]

    def __str__(self) -> str:
        """What people see with `--dry-run`."""
        job = self.job
        lines = [f"{job.request.card.id}: {len(self.items)} item(s), {job.output.kind}, input_prep={job.prep}"]
        for item in self.items[:5]:
            for query in item.queries:
                grid = "array" if query.geobox is None else _grid_line(query.geobox)
                bands = ",".join(query.sensor.bands)
                frames = f", {query.series.frames} frames at most" if query.series else ""
                line = f"  [{item.index}] {query.modality}: {query.sensor.collection} {bands} on {grid}{frames}"
                lines.append(line)
        if len(self.items) > 5:
            lines.append(f"  ... and {len(self.items) - 5} more")
        return "\n".join(lines)


def _grid_line(geobox: GeoBox) -> str:
    height, width = geobox.shape
    return f"{geobox.crs}, {height} x {width} px of {geobox.resolution.x:g} m, {tuple(geobox.affine)[:6]}"


def plan_items(job: Job, places: Sequence[SpatialSpec | None], windows: Sequence[TemporalSpec | None]) -> Plan:
    """Lay every request on its grid.

    Raises:
        SpecError: A place or window is missing or cannot be meant.
    """
    items = [
        _plan_item(job, index, spatial, window)
        for index, (spatial, window) in enumerate(zip(places, windows, strict=True))
    ]
    return Plan(job, tuple(items))


def _plan_item(job: Job, index: int, spatial: SpatialSpec | None, window: TemporalSpec | None) -> Item:
    if window is not None and not isinstance(window, TemporalSpec):
        raise SpecError(
            f"Expected a TemporalSpec, got {window!r}.",
            fix='for example TemporalSpec.range("2022-06-01", "2022-09-01")',
        )
    own_vector = job.embedder.own_vector
    if isinstance(spatial, Region) and own_vector is not None and job.output.kind == "pooled":
        raise SpecError(
            f"A polygon has no vector of its own here: {own_vector} sees the whole box around it.",
            fix='pooled="patch" takes the mean of the patches that the polygon touches',
        )
    return Item(index, spatial, window, queries_for(job.request, job.provider, spatial, window))


def queries_for(
    request: ModelRequest, provider: Provider, spatial: SpatialSpec | None, window: TemporalSpec | None
) -> tuple[Query, ...]:
    """One query per modality, all on the ground of the place, or on everything that the provider holds.

    They share one grid, or subdivide its pixels (`Modality.grid_px`).

    Raises:
        SpecError: The window is none of those that a modality has.
    """
    for modality, _ in request.inputs:
        _require_year(request, modality, window)
    knobs = request.knobs
    series = Series(knobs.frames, knobs.temporal_sampling) if isinstance(knobs, SeriesKnobs) else None
    shared = _whole(request, provider, window) if spatial is None else geobox_for(spatial, request.scale_m)
    return tuple(
        Query(
            modality.name,
            sensor,
            refined(shared, modality.grid_px) if shared is not None and modality.grid_px > 1 else shared,
            window,
            series if modality.is_series else None,
        )
        for modality, sensor in request.inputs
    )


def _require_year(request: ModelRequest, modality: Modality, window: TemporalSpec | None) -> None:
    """Refuse a window that is no year of a product of calendar years; without one, files are taken as they are."""
    first = modality.first_year
    if first is None or window is None:
        return
    year = window.start.year
    whole = TemporalSpec.year(year)
    today = datetime.now(UTC).date()
    if window == whole and year >= first and whole.end <= today:
        return
    why = f": it ends on {whole.end - timedelta(days=1)}" if window == whole and year >= first else ""
    near = min(max(year, first), today.year - 1)
    raise SpecError(
        f"Expected one calendar year from {first} on that is over, got {window.start} up to {window.end}{why}.",
        why=f"{request.card.id} has one embedding per pixel and year",
        fix=f"temporal=TemporalSpec.year({near})",
    )


def _whole(request: ModelRequest, provider: Provider, window: TemporalSpec | None) -> GeoBox | None:
    """The shared grid over everything that the provider holds."""
    modality, sensor = min(request.inputs, key=lambda one: (one[0].grid_px, one[1].scale_m))
    geobox = provider.native_geobox(Query(modality.name, sensor, None, window))
    if geobox is None or modality.grid_px == 1:
        return geobox
    rows, cols = (side // modality.grid_px for side in geobox.shape)
    return subgrid(geobox, (0, 0), modality.grid_px, (rows, cols))


class JobFacts(TypedDict):
    """What a job is."""

    model: list[str | int]
    """Id and revision of the card."""
    knobs: dict[str, JsonValue]
    """Those that change numbers, in force."""
    weights: str
    inputs: dict[str, dict[str, object]]
    """Modality -> sensor."""
    output: dict[str, object]
    prep: Prep
    precision: WorkingPrecision
    provider: str


def job_facts(job: Job) -> JobFacts:
    """All that decides the numbers of a job, but for the places and days; loads the network to know its weights."""
    card, knobs = job.request.card, job.embedder.knobs_in_force()
    return JobFacts(
        model=[card.id, card.revision],
        knobs={name: value for name, value in knobs.items() if name not in _NOT_NUMBERS},
        weights=job.embedder.network.weights_id,
        inputs={modality.name: sensor.facts() for modality, sensor in job.request.inputs},
        output=asdict(job.output),
        prep=job.prep,
        precision=job.request.precision,
        provider=redacted(job.provider.identity()),
    )


def fingerprint(job: Job, item: Item) -> str:
    """sha256 of the canonical JSON of everything that decides the numbers of an item."""
    spatial, window, facts = item.spatial, item.window, job_facts(job)
    whole = {
        **facts,
        "version": FINGERPRINT_VERSION,
        "inputs": [[name, sensor] for name, sensor in facts["inputs"].items()],  # their order counts
        "spatial": None if spatial is None else [type(spatial).__name__, _place(spatial)],
        "temporal": None if window is None else asdict(window),
    }
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _place(spatial: SpatialSpec) -> dict[str, object]:
    """What a place is made of; a polygon of one part has the same fingerprint as before there were others."""
    return {name: value for name, value in asdict(spatial).items() if value != ()}


def _plain(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{value!r} has no stable text form")
