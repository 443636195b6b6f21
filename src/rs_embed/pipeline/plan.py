"""Which chips will be fetched on which grids, for which model. Nothing is loaded or fetched for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from odc.geo.geobox import GeoBox

from rs_embed.core.geo import geobox_for, one_cell, refined, subgrid
from rs_embed.core.hashing import json_digest
from rs_embed.core.settings import ModelKnobs, SeriesKnobs
from rs_embed.core.specs import OutputSpec, Region, Series, SpatialSpec, TemporalSpec
from rs_embed.embedders.card import Modality
from rs_embed.errors import SpecError
from rs_embed.providers.base import Provider, Query
from rs_embed.redact import redacted

if TYPE_CHECKING:
    from rs_embed.embedders.base import Embedder, ModelRequest
    from rs_embed.embedders.prepare.framing import Prep

FINGERPRINT_VERSION = 1
_NOT_NUMBERS = {"fetch_workers", "ckpt", "min_valid_fraction"}
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
    cells: GeoBox | None = None
    """Of a model that is told the place alone, so that nothing is asked for: its cells, or for a vector the one cell
    that the place is."""


@dataclass(frozen=True)
class Job:
    """What all items share, live: the model, and where its imagery comes from."""

    embedder: "Embedder"
    provider: Provider
    output: OutputSpec
    prep: "Prep"
    reference: Provider | None = None
    """What has windows to estimate on where a region has too few (see `OutputSpec.debias`)."""

    @property
    def request(self) -> "ModelRequest":
        """What every item is asked with."""
        return self.embedder.request

    @cached_property
    def fingerprinted(self) -> dict[str, object]:
        """What decides the numbers of all items alike; see `job_facts`."""
        inputs = [[modality.name, sensor.facts()] for modality, sensor in self.request.inputs]  # order counts
        return {**job_facts(self), "version": FINGERPRINT_VERSION, "inputs": inputs}


@dataclass(frozen=True)
class Workload:
    """What is done in one go: a job, and its items on their grids."""

    job: Job
    items: tuple[Item, ...]


def plan_items(job: Job, places: Sequence[SpatialSpec | None], windows: Sequence[TemporalSpec | None]) -> Workload:
    """Lay every request on its grid.

    Raises:
        SpecError: A place or window is missing or invalid.
    """
    return on_grids(job, items_of(job.embedder, job.output, places, windows))


def items_of(
    embedder: "Embedder",
    output: OutputSpec,
    places: Sequence[SpatialSpec | None],
    windows: Sequence[TemporalSpec | None],
) -> tuple[Item, ...]:
    """What is asked for each place; without a place, the grid is left to `on_grids`. Asks no provider.

    Raises:
        SpecError: A place or window is invalid.
    """
    own_vector = embedder.readout.own_vector if output.kind == "pooled" else None
    if own_vector is not None and any(isinstance(place, Region) for place in places):
        raise SpecError(
            f"A polygon has no vector of its own here: {own_vector} sees the whole box around it.",
            fix='pooled="patch" takes the mean of the patches that the polygon touches',
        )
    return tuple(
        _item(index, embedder.request, output, spatial, window)
        for index, (spatial, window) in enumerate(zip(places, windows, strict=True))
    )


def _item(
    index: int, request: "ModelRequest", output: OutputSpec, spatial: SpatialSpec | None, window: TemporalSpec | None
) -> Item:
    if request.inputs:
        return Item(index, spatial, window, _queries(request, spatial, window))
    _require_days(window)
    if spatial is None:
        raise SpecError(
            f"Expected a place, got none: {request.card.id} is told nothing else.",
            fix="for example PointBuffer(lon=12.94, lat=47.77, buffer_m=500)",
        )
    cells = one_cell(spatial) if output.kind == "pooled" else geobox_for(spatial, request.scale_m)
    return Item(index, spatial, None, (), cells)  # it knows no days: the same place is the same request


def on_grids(job: Job, items: Sequence[Item]) -> Workload:
    """Items without a place are laid on all that the provider holds.

    Raises:
        SpecError: The provider covers the Earth, or holds pixels without a place, which the model wants to be told.
    """
    laid = tuple(
        item
        if item.spatial is not None
        else replace(item, queries=queries_for(job.request, job.provider, None, item.window))
        for item in items
    )
    told = job.request.places
    if told and any(query.geobox is None for item in laid for query in item.queries):
        raise SpecError(
            f"Expected a place for {', '.join(told)}, got pixels without one.",
            fix="say where they lie: spatial=PointBuffer(...), on the grid of rs_embed.geobox_for",
        )
    return Workload(job, laid)


def queries_for(
    request: "ModelRequest", provider: Provider, spatial: SpatialSpec | None, window: TemporalSpec | None
) -> tuple[Query, ...]:
    """One query per modality, all on the ground of the place, or on everything that the provider holds.

    Raises:
        SpecError: The place or window is invalid.
    """
    queries = _queries(request, spatial, window)
    return queries if spatial is not None else _laid_on(queries, request, _whole(request, provider, window))


def _queries(request: "ModelRequest", spatial: SpatialSpec | None, window: TemporalSpec | None) -> tuple[Query, ...]:
    _require_days(window)
    for modality, _ in request.inputs:
        _require_year(request, modality, window)
    queries = tuple(
        Query(modality.name, sensor, None, window, _series(modality, request.knobs))
        for modality, sensor in request.inputs
    )
    return queries if spatial is None else _laid_on(queries, request, geobox_for(spatial, request.scale_m))


def _require_days(window: TemporalSpec | None) -> None:
    if window is not None and not isinstance(window, TemporalSpec):
        raise SpecError(
            f"Expected a TemporalSpec, got {window!r}.",
            fix='for example TemporalSpec.range("2022-06-01", "2022-09-01")',
        )


def _series(modality: Modality, knobs: ModelKnobs) -> Series | None:
    """How the days are cut for a modality that is a series."""
    if not modality.is_series or not isinstance(knobs, SeriesKnobs):
        return None
    return Series(knobs.frames, knobs.temporal_sampling, modality.keeps_empty)


def _laid_on(queries: Sequence[Query], request: "ModelRequest", shared: GeoBox | None) -> tuple[Query, ...]:
    """On one grid, or on grids that subdivide its pixels (`Modality.grid_px`)."""
    if shared is None:
        return tuple(queries)
    return tuple(
        replace(query, geobox=refined(shared, modality.grid_px) if modality.grid_px > 1 else shared)
        for query, (modality, _) in zip(queries, request.inputs, strict=True)
    )


def _require_year(request: "ModelRequest", modality: Modality, window: TemporalSpec | None) -> None:
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


def _whole(request: "ModelRequest", provider: Provider, window: TemporalSpec | None) -> GeoBox | None:
    """The shared grid over everything that the provider holds."""
    modality, sensor = min(request.inputs, key=lambda one: (one[0].grid_px, one[1].scale_m))
    geobox = provider.native_geobox(Query(modality.name, sensor, None, window))
    if geobox is None or modality.grid_px == 1:
        return geobox
    rows, cols = (side // modality.grid_px for side in geobox.shape)
    return subgrid(geobox, (0, 0), modality.grid_px, (rows, cols))


def numbers_of(embedder: "Embedder", output: OutputSpec, prep: "Prep") -> dict[str, object]:
    """What decides the numbers and is known before weights are loaded, but for places, days and imagery."""
    request, knobs = embedder.request, embedder.knobs_in_force()
    later = {name for name in request.knobs.LATER if knobs[name] is None}
    return {
        "model": [request.card.id, request.card.revision],
        "knobs": {name: value for name, value in knobs.items() if name not in _NOT_NUMBERS | later},
        "inputs": {modality.name: sensor.facts() for modality, sensor in request.inputs},
        "output": output.facts(),
        "prep": prep,
        "precision": request.precision,
    }


def job_facts(job: Job) -> dict[str, object]:
    """All that decides the numbers of a job, but for the places and days; loads the network to know its weights."""
    return {
        **numbers_of(job.embedder, job.output, job.prep),
        "weights": job.embedder.network.weights_id,
        "provider": redacted(job.provider.identity()) if job.request.inputs else None,
    }


def fingerprint(job: Job, item: Item) -> str:
    """sha256 of the canonical JSON of everything that decides the numbers of an item."""
    spatial, window = item.spatial, item.window
    return json_digest(
        {
            **job.fingerprinted,
            "spatial": place_facts(spatial),
            "temporal": None if window is None else asdict(window),
        }
    )


def place_facts(spatial: SpatialSpec | None) -> list[object] | None:
    """What a place is made of; a polygon of one part has the same fingerprint as before there were others."""
    if spatial is None:
        return None
    return [type(spatial).__name__, {name: value for name, value in asdict(spatial).items() if value != ()}]
