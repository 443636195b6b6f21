"""Inspect the pixels that a request would feed to a model, without running it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rs_embed.core.bands import HIGHEST_BYTE, Unit, convert
from rs_embed.core.chip import Chip
from rs_embed.core.specs import SpatialSpec, TemporalSpec
from rs_embed.embedders.base import ModelRequest
from rs_embed.embedders.card import BandStats, Modality
from rs_embed.errors import SensorNotOffered, SpecError
from rs_embed.pipeline.fetching import Fetching, chip_threads
from rs_embed.pipeline.plan import queries_for
from rs_embed.providers.base import Provider

_FIX = "call get_embedding(...) directly: this model has no pixels to inspect"


@dataclass(frozen=True)
class BandReport:
    """Statistics of one band over its valid pixels."""

    modality: str
    band: str
    unit: Unit
    valid_fraction: float
    minimum: float
    median: float
    maximum: float
    mean: float
    std: float
    model_mean: float
    """Mean of the training data, in the same unit."""
    model_std: float
    """Standard deviation of the training data, in the same unit."""

    @property
    def sigma(self) -> float:
        """Distance of the mean from the training mean, in standard deviations of the training data."""
        return (self.mean - self.model_mean) / self.model_std


@dataclass(frozen=True)
class ChipReport:
    """Chips by modality, with statistics of their bands. Print it for a table."""

    chips: Mapping[str, Chip]
    bands: tuple[BandReport, ...]

    def __str__(self) -> str:
        head = f"{'band':<22}{'unit':<12}{'valid':>7}{'min':>10}{'median':>10}{'max':>10}{'mean':>10}{'sigma':>8}"
        rows = [
            f"{b.modality + ' ' + b.band:<22}{b.unit:<12}{b.valid_fraction:>7.1%}{b.minimum:>10.4g}"
            f"{b.median:>10.4g}{b.maximum:>10.4g}{b.mean:>10.4g}{b.sigma:>+8.2f}"
            for b in self.bands
        ]
        notes = [f"note: {note}" for chip in self.chips.values() for note in chip.source.notes]
        chips = [f"{name}: {chip.describe()}" for name, chip in self.chips.items()]
        return "\n".join([*chips, head, *rows, *notes])


def inspect(
    request: ModelRequest, provider: Provider, spatial: SpatialSpec | None, window: TemporalSpec | None
) -> ChipReport:
    """Fetch the chips of one request and compute statistics of their pixels.

    Raises:
        SpecError: The model takes only a location, so there are no pixels.
    """
    if not request.inputs:
        raise SpecError(f"Expected a model of imagery, got {request.card.id}, which takes only a location.", fix=_FIX)
    chips: dict[str, Chip] = {}
    queries = queries_for(request, provider, spatial, window)
    with chip_threads(min(request.knobs.fetch_workers, len(queries))) as threads:
        fetching = Fetching(threads)
        fetching.begin(queries, provider)
        for (modality, _), query in zip(request.inputs, queries, strict=True):
            try:
                chips[modality.name] = fetching.take(query, provider)
            except SensorNotOffered:
                if not request.may_lack(modality):
                    raise
    rows = [
        _band(modality, chips[modality.name], index, modality.stats[band.name])
        for modality, _ in request.inputs
        if modality.name in chips
        for index, band in enumerate(chips[modality.name].bands)
    ]
    return ChipReport(chips, tuple(rows))


def _band(modality: Modality, chip: Chip, index: int, stats: BandStats) -> BandReport:
    band = chip.bands[index]
    pixels = chip.values[:, index]
    valid = pixels[np.isfinite(pixels)].astype(np.float64)
    if valid.size == 0:
        valid = np.array([np.nan])
    start, factor = 0.0, 1.0
    if band.unit is Unit.BYTE is not stats.unit and modality.byte_range is not None:
        low, high = modality.byte_range
        start, factor = low, HIGHEST_BYTE / (high - low)
    elif stats.unit != band.unit:
        factor = float(convert(np.ones(1, np.float32), stats.unit, band.unit)[0])
    return BandReport(
        modality.name,
        band.name,
        band.unit,
        valid_fraction=float(np.isfinite(pixels).mean()),
        minimum=float(valid.min()),
        median=float(np.median(valid)),
        maximum=float(valid.max()),
        mean=float(valid.mean()),
        std=float(valid.std()),
        model_mean=(stats.mean - start) * factor,
        model_std=stats.std * factor,
    )
