"""The plan of a call: which chips to fetch on which grids for a model. Planning loads and fetches nothing."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
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
"""Knobs that change the result by rounding at most, so the fingerprint leaves them out. A checkpoint is identified by
its content, not by its path."""


@dataclass(frozen=True)
class Item:
    """One embedding to compute."""

    index: int
    """Position in the caller's list."""
    spatial: SpatialSpec | None
    window: TemporalSpec | None
    queries: tuple[Query, ...]
    """One query per modality, all on the same grid."""
    cells: GeoBox | None = None
    """The cells of the output for a model that takes only a location and therefore fetches nothing. For a pooled vector
    this is a single cell that covers the place. `None` for models of imagery."""


@dataclass(frozen=True)
class Job:
    """The live objects that all items share: the model and the provider of its imagery."""

    embedder: "Embedder"
    provider: Provider
    output: OutputSpec
    prep: "Prep"
    reference: Provider | None = None
    """The provider of reference windows, used where a region has too few of its own (see `OutputSpec.debias`)."""
    overlaps: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None
    """For blocks of a map: which boxes `[n, 4]` (west, south, east, north, in its CRS) overlap the region. Windows
    without such tokens are not encoded. Called from several threads."""

    @property
    def request(self) -> "ModelRequest":
        """The model request that all items share."""
        return self.embedder.request

    @cached_property
    def fingerprinted(self) -> dict[str, object]:
        """What decides the numbers of all items alike; see `job_facts`."""
        inputs = [[modality.name, sensor.facts()] for modality, sensor in self.request.inputs]  # order counts
        return {**job_facts(self), "version": FINGERPRINT_VERSION, "inputs": inputs}


@dataclass(frozen=True)
class Workload:
    """A job and its items, laid on their grids: the unit that a run executes."""

    job: Job
    items: tuple[Item, ...]


def plan_items(job: Job, places: Sequence[SpatialSpec | None], windows: Sequence[TemporalSpec | None]) -> Workload:
    """Build the items of a job and lay each on its grid.

    Args:
        job: The model and its provider.
        places: One place per item; `None` stands for everything that the provider holds.
        windows: One time window per item; `None` for data without a date.

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
    """Build one item per place without contacting a provider; `on_grids` adds the grid to items without a place.

    Raises:
        SpecError: A place or window is invalid.
    """
    own_vector = embedder.readout.own_vector if output.kind == "pooled" else None
    if own_vector is not None and any(isinstance(place, Region) for place in places):
        raise SpecError(
            f"Expected a point or a box for {own_vector}, which sees the whole box around a place, got a polygon.",
            fix='set pooled="patch" to average the patches that the polygon touches',
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
            f"Expected a place, got none: a location is the only input of {request.card.id}.",
            fix="pass a place, for example PointBuffer(lon=12.94, lat=47.77, buffer_m=500)",
        )
    cells = one_cell(spatial) if output.kind == "pooled" else geobox_for(spatial, request.scale_m)
    return Item(index, spatial, None, (), cells)  # the days are dropped: they do not change the result


def on_grids(job: Job, items: Sequence[Item]) -> Workload:
    """Lay items without a place on everything that the provider holds.

    Raises:
        SpecError: The provider covers the whole Earth, or the model needs a location and the pixels have none.
    """
    laid = tuple(
        item
        if item.spatial is not None
        else replace(item, queries=queries_for(job.request, job.provider, None, item.window))
        for item in items
    )
    places = job.request.places
    if places and any(query.geobox is None for item in laid for query in item.queries):
        raise SpecError(
            f"Expected a place for {', '.join(places)}, got pixels without one.",
            fix="pass their location as spatial=PointBuffer(...), on the grid of rs_embed.geobox_for",
        )
    return Workload(job, laid)


def queries_for(
    request: "ModelRequest", provider: Provider, spatial: SpatialSpec | None, window: TemporalSpec | None
) -> tuple[Query, ...]:
    """Return one query per modality, all covering the place, or everything that the provider holds if it is `None`.

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
            fix='pass days, for example TemporalSpec.range("2022-06-01", "2022-09-01")',
        )


def _series(modality: Modality, knobs: ModelKnobs) -> Series | None:
    """Return how to split the days for a time-series modality, `None` for any other."""
    if not modality.is_series or not isinstance(knobs, SeriesKnobs):
        return None
    return Series(knobs.frames, knobs.temporal_sampling, modality.keeps_empty)


def _laid_on(queries: Sequence[Query], request: "ModelRequest", shared: GeoBox | None) -> tuple[Query, ...]:
    """Put the queries on one shared grid, or on grids that subdivide its pixels (`Modality.grid_px`)."""
    if shared is None:
        return tuple(queries)
    return tuple(
        replace(query, geobox=refined(shared, modality.grid_px) if modality.grid_px > 1 else shared)
        for query, (modality, _) in zip(queries, request.inputs, strict=True)
    )


def _require_year(request: "ModelRequest", modality: Modality, window: TemporalSpec | None) -> None:
    """Refuse a window that is not a whole, finished year, for products of calendar years.

    Without a window, files are used as they are.
    """
    first = modality.first_year
    if first is None or window is None:
        return
    year = window.start.year
    whole = TemporalSpec.year(year)
    today = datetime.now(UTC).date()
    if window == whole and year >= first and whole.end <= today:
        return
    why = f", which ends on {whole.end - timedelta(days=1)}" if window == whole and year >= first else ""
    near = min(max(year, first), today.year - 1)
    raise SpecError(
        f"Expected a finished calendar year, {first} or later, got {window.start} up to {window.end}{why}.",
        why=f"{request.card.id} has one embedding per pixel and year",
        fix=f"pass temporal=TemporalSpec.year({near})",
    )


def _whole(request: "ModelRequest", provider: Provider, window: TemporalSpec | None) -> GeoBox | None:
    """Return the shared grid over everything that the provider holds."""
    modality, sensor = min(request.inputs, key=lambda one: (one[0].grid_px, one[1].scale_m))
    geobox = provider.native_geobox(Query(modality.name, sensor, None, window))
    if geobox is None or modality.grid_px == 1:
        return geobox
    rows, cols = (side // modality.grid_px for side in geobox.shape)
    return subgrid(geobox, (0, 0), modality.grid_px, (rows, cols))


def numbers_of(embedder: "Embedder", output: OutputSpec, prep: "Prep") -> dict[str, object]:
    """Return what determines the result and is known before weights load, except places, days and imagery."""
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
    """Return everything that determines the result of a job, except places and days.

    Loads the network, because the hash of the weights is part of it.
    """
    return {
        **numbers_of(job.embedder, job.output, job.prep),
        "weights": job.embedder.network.weights_id,
        "provider": redacted(job.provider.identity()) if job.request.inputs else None,
    }


def fingerprint(job: Job, item: Item) -> str:
    """Return the sha256 of the canonical JSON of everything that determines the result of an item."""
    spatial, window = item.spatial, item.window
    return json_digest(
        {
            **job.fingerprinted,
            "spatial": place_facts(spatial),
            "temporal": None if window is None else asdict(window),
        }
    )


def place_facts(spatial: SpatialSpec | None) -> list[object] | None:
    """Return the parameters of a place as they enter the fingerprint.

    Empty tuples are left out, so that a polygon of one part keeps the fingerprint it had before multi-part polygons.
    """
    if spatial is None:
        return None
    return [type(spatial).__name__, {name: value for name, value in asdict(spatial).items() if value != ()}]
