"""Band statistics: what the pixels say without a model. The other baselines are in `crossval` and `embedders`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.bands import COLLECTIONS, Unit
from rs_embed.core.settings import ModelKnobs, SeriesKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, DerivedBand, Modality, ModelCard, Pixels
from rs_embed.embedders.choosing import SENSORS
from rs_embed.embedders.licences import LICENCES
from rs_embed.learning.variants import Part

MOSAIKS = "mosaiks_rcf"
ADAPTER = "rs_embed.learning.band_statistics:BandStatisticsEmbedder"
_PRODUCTS = (Unit.COMPONENT, Unit.FEATURE, Unit.CLASS)
"""Units of what is no measurement: precomputed vectors, maps of classes."""
_ROLES: Mapping[str, Mapping[str, str]] = {
    "COPERNICUS/S2": {"green": "B3", "red": "B4", "nir": "B8", "swir1": "B11", "swir2": "B12"},
    "LANDSAT/LC08/C02/T1_L2": {"green": "SR_B3", "red": "SR_B4", "nir": "SR_B5", "swir1": "SR_B6", "swir2": "SR_B7"},
    "LANDSAT/LC09/C02/T1_L2": {"green": "SR_B3", "red": "SR_B4", "nir": "SR_B5", "swir1": "SR_B6", "swir2": "SR_B7"},
    "LANDSAT/LC08": {"green": "B3", "red": "B4", "nir": "B5", "swir1": "B6", "swir2": "B7"},
    "LANDSAT/LC09": {"green": "B3", "red": "B4", "nir": "B5", "swir1": "B6", "swir2": "B7"},
    "MODIS/": {
        "green": "sur_refl_b04",
        "red": "sur_refl_b01",
        "nir": "sur_refl_b02",
        "swir1": "sur_refl_b06",
        "swir2": "sur_refl_b07",
    },
}
"""How a collection's id starts -> colour -> band; the first that fits counts. Other collections name their colours."""
_INDICES = {"NDVI": ("nir", "red"), "NDWI": ("green", "nir"), "NDMI": ("nir", "swir1"), "NBR": ("nir", "swir2")}
"""Index -> (a, b) of (a - b) / (a + b)."""


class BandStatisticsKnobs(ModelKnobs):
    """Knobs of band statistics of one composite."""

    prefix = "RS_EMBED_BAND_STATISTICS_"


class SeriesStatisticsKnobs(SeriesKnobs):
    """Knobs of band statistics of a series."""

    prefix = "RS_EMBED_BAND_STATISTICS_"


def statistics_part(modality: Modality, sensor: SensorSpec, knobs: ModelKnobs) -> Part | None:
    """Return the model that describes the pixels of an input by statistics; `None` for what is no measurement.

    Args:
        modality: The input of a model.
        sensor: The imagery that the model takes for it.
        knobs: The model's knobs, which say how a series is made.
    """
    collection = COLLECTIONS[sensor.collection]
    if any(collection[name].unit in _PRODUCTS for name in sensor.bands):
        return None
    derived = _indices(sensor)
    stats = {name: modality.stats[name] for name in sensor.bands}
    stats |= {one.name: BandStats(one.name, one.unit, 0.0, 1.0) for one in derived}
    series = modality.is_series and isinstance(knobs, SeriesKnobs)
    own = replace(
        modality,
        name="pixels",
        sensor=replace(sensor, fill_value="nan"),
        stats=stats,
        derived=derived,
        fixed=True,
        optional=False,
        is_series=series,
        clip=None,
        byte_range=None,
        patch_px=1,
    )
    count = len(stats) * (3 if series else 2)
    settings: dict[str, str | int] = {}
    short = next((name for start, name in SENSORS.items() if sensor.collection.startswith(start)), None)
    name = f"bands_{short or sensor.collection.replace('/', '_')[-16:]}_{sensor.scale_m:g}m".lower()
    if isinstance(knobs, SeriesKnobs) and series:
        settings = {"frames": knobs.frames, "temporal_sampling": knobs.temporal_sampling}
        name += f"_{knobs.frames}_{knobs.temporal_sampling}"
    card = ModelCard(
        id=name,
        revision=1,
        kind="baseline",
        title="Band statistics",
        adapter=ADAPTER,
        knobs=SeriesStatisticsKnobs if series else BandStatisticsKnobs,
        arch={},
        dim=count,
        parameters_m=0.0,
        weights=None,
        modalities=(own,),
        input_prep="tile",
        licence=next(iter(LICENCES)),
        citation="-",
        model_key=name,
        pooled_is_grid_mean=True,
    )
    return Part(card, settings)


def statistics(moments: NDArray[np.floating], channels: int) -> NDArray[np.float64]:
    """Turn pooled means and mean squares into means and standard deviations.

    Args:
        moments: `[N, D]`: means, mean squares, and for a series the mean variance over time.
        channels: Number of bands and indices.
    """
    values = np.asarray(moments, np.float64)
    mean, square, over_time = np.split(values, [channels, 2 * channels], axis=1)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return np.concatenate([mean, spread, np.sqrt(over_time)], axis=1)


def channels_of(card: ModelCard) -> int:
    """Return the number of bands and indices of the band statistics of a card."""
    return len(card.modalities[0].stats)


def _indices(sensor: SensorSpec) -> tuple[DerivedBand, ...]:
    roles = _roles(sensor)
    pairs = {name: pair for name, pair in _INDICES.items() if set(pair) <= set(roles)}
    found = [_index(name, roles[one], roles[other]) for name, (one, other) in pairs.items()]
    if {"VV", "VH"} <= set(sensor.bands):
        found.append(DerivedBand("VV-VH", Unit.DB, ("VV", "VH"), _contrast))
    return tuple(found)


def _roles(sensor: SensorSpec) -> Mapping[str, str]:
    known = next((roles for start, roles in _ROLES.items() if sensor.collection.startswith(start)), None)
    if known is None:
        bands = COLLECTIONS[sensor.collection].bands
        known = {word.casefold(): band.name for band in bands for word in (band.name, *band.aliases)}
    return {role: name for role, name in known.items() if name in sensor.bands}


def _index(name: str, one: str, other: str) -> DerivedBand:
    def compute(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:
        total = bands[one] + bands[other]
        unknown = np.full_like(total, np.nan)
        ratio: Pixels = np.divide(bands[one] - bands[other], total, out=unknown, where=total > 0)
        return np.clip(ratio, -1, 1)

    return DerivedBand(name, Unit.INDEX, (one, other), compute)


def _contrast(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:
    return bands["VV"] - bands["VH"]


def merged_inputs(inputs: Sequence[tuple[Modality, SensorSpec, ModelKnobs]]) -> list[Part]:
    """Return one part for each kind of imagery that the models take, with the bands of all of them."""
    found: dict[tuple[object, ...], tuple[Modality, SensorSpec, ModelKnobs]] = {}
    for modality, sensor, knobs in inputs:
        series = (knobs.frames, knobs.temporal_sampling) if isinstance(knobs, SeriesKnobs) else ()
        key = (sensor.collection, sensor.scale_m, modality.is_series, series if modality.is_series else ())
        before = found.get(key)
        if before is None:
            found[key] = (modality, sensor, knobs)
            continue
        stats = {**modality.stats, **before[0].stats}
        wanted = {*before[1].bands, *sensor.bands}
        bands = tuple(name for name in COLLECTIONS[sensor.collection] if name in wanted)
        found[key] = (replace(before[0], stats=stats), replace(before[1], bands=bands), before[2])
    parts = [statistics_part(*one) for one in found.values()]
    return [part for part in parts if part is not None]
