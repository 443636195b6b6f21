"""Presto: a time series of months for each pixel.

Source: nasaharvest/presto 13173d0, single_file_presto.py and presto/dataops (bands, groups, normalisation, land cover);
nasaharvest/openmapflow 795dcaf, eo/sentinel2.py and eo/era5.py (which collections the training exported: Sentinel-2
L1C). No hub repository is known to hold the file; the authors keep it in their code repository (data/default_model.pt).
The card names the place where it would be on the hub, and its hash, so that no other file is accepted.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from rs_embed.core.bands import Band, bands_of
from rs_embed.core.settings import SeriesKnobs
from rs_embed.core.specs import Composite, Sampling, SensorSpec
from rs_embed.embedders.card import BandStats, DerivedBand, Modality, ModelCard, Weights
from rs_embed.embedders.prepare.derived import NDVI, SLOPE, slope_of

MOST_MONTHS = 24


class PrestoKnobs(SeriesKnobs):
    """Knobs of Presto."""

    prefix = "RS_EMBED_PRESTO_"

    frames: Annotated[int, Field(ge=1, le=MOST_MONTHS, description="most months to use from the days requested")] = (
        MOST_MONTHS
    )
    temporal_sampling: Annotated[
        Sampling, Field(description="month: a frame per calendar month; composite, scenes: one per equal sub-window")
    ] = "month"


SHIFT_SCALE: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("VV", "VH"), (-25.0, 25.0)),
    **dict.fromkeys(("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"), (0.0, 10_000.0)),
    "temperature_2m": (272.15, 35.0),
    "total_precipitation_sum": (0.0, 0.03),
    **dict.fromkeys(("elevation", "DEM"), (0.0, 2000.0)),
    "slope": (0.0, 50.0),
}
"""Band -> value to subtract, then divisor; nothing is clipped. 272.15 K is the authors' value."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "S1": ("VV", "VH"),
    "S2_RGB": ("B2", "B3", "B4"),
    "S2_Red_Edge": ("B5", "B6", "B7"),
    "S2_NIR_10m": ("B8",),
    "S2_NIR_20m": ("B8A",),
    "S2_SWIR": ("B11", "B12"),
    "ERA5": ("temperature_2m", "total_precipitation_sum"),
    "SRTM": ("elevation", "slope"),
    "NDVI": ("NDVI",),
}
"""Channel group of the network -> its bands."""
_S2 = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
LAND_COVER = (
    "water",
    "trees",
    "grass",
    "flooded_vegetation",
    "crops",
    "shrub_and_scrub",
    "built",
    "bare",
    "snow_and_ice",
)
"""Classes in the order of their codes, 0 to 8."""


def _modality(
    name: str,
    collection: str,
    bands: tuple[str, ...],
    *,
    is_series: bool = True,
    optional: bool = True,
    composite: Composite = "median",
    derived: tuple[DerivedBand, ...] = (),
) -> Modality:
    channels: tuple[Band | DerivedBand, ...] = (*bands_of(collection, bands), *derived)
    return Modality(
        name,
        SensorSpec(collection, bands, composite=composite, fill_value="mean"),
        {band.name: BandStats(band.name, band.unit, *SHIFT_SCALE.get(band.name, (0.0, 1.0))) for band in channels},
        image_px=256,
        patch_px=1,
        fixed=True,
        is_series=is_series,
        keeps_empty=is_series,
        optional=optional,
        derived=derived,
    )


_S2_L2A = _modality("s2", "COPERNICUS/S2_SR_HARMONIZED", _S2, optional=False, derived=(NDVI,))
MODALITIES = (
    _S2_L2A,
    replace(_S2_L2A, name="s2_l1c", sensor=replace(_S2_L2A.sensor, collection="COPERNICUS/S2_HARMONIZED")),
    _modality("s1", "COPERNICUS/S1_GRD", ("VV", "VH")),
    _modality("srtm", "USGS/SRTMGL1_003", ("elevation",), is_series=False, composite="mosaic", derived=(SLOPE,)),
    _modality("dem", "COPERNICUS/DEM/GLO30", ("DEM",), is_series=False, composite="mosaic", derived=(slope_of("DEM"),)),
    _modality("era5", "ECMWF/ERA5_LAND/MONTHLY_AGGR", GROUPS["ERA5"], composite="mean"),
    _modality("dynamic_world", "GOOGLE/DYNAMICWORLD/V1", LAND_COVER, composite="mean"),
)
ALIKE = (("s2", "s2_l1c"), ("srtm", "dem"))
"""Pairs of modalities that fill the same channels."""
IMAGERY = ("s2", "s2_l1c", "s1")
"""Imagery, of which a pixel needs at least one: heights, weather and land cover alone give no embedding."""

CARDS = (
    ModelCard(
        id="presto_1_0",
        revision=1,
        kind="foundation model",
        title="Presto",
        adapter="rs_embed.embedders.onthefly_presto:PrestoEmbedder",
        knobs=PrestoKnobs,
        arch={"dim": 128, "depth": 2, "heads": 8},
        dim=128,
        parameters_m=0.404,
        weights=Weights(
            "nasaharvest/presto",
            "default_model.pt",
            licence="MIT",
            sha256="559c9d76f525bdf2dd3774da8b1e7f1510769b73baacac12e9e4d8d5c67fbe65",
            size_bytes=3_321_716,
        ),
        modalities=MODALITIES,
        default=("s2", "s1", "srtm", "era5"),
        input_prep="tile",
        licence="MIT",
        citation="arXiv:2304.14065",
        model_key="presto",
        pooled_is_grid_mean=True,
    ),
)
