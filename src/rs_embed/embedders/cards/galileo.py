"""Galileo: three sizes of one release.

Source of groups, numbers and rules: nasaharvest/galileo 0f0b5b9 (single_file_galileo.py, src/data, config/models,
config/normalization.json). The sizes of tiny and base are those of config/models. Their files, and the commit on the
hub, were not available when this card was written.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rs_embed.core.bands import Band, Unit, bands_of
from rs_embed.core.settings import LayersKnobs, SeriesKnobs
from rs_embed.core.specs import Composite, Sampling, SensorSpec
from rs_embed.embedders.card import BandStats, DerivedBand, Modality, ModelCard, Weights
from rs_embed.embedders.prepare.derived import SLOPE, slope_of
from rs_embed.encoders.galileo.groups import SPACE_TIME, TIME

MOST_PATCHES = 12
"""Largest side of a window in training, patches."""
MOST_DATES = 24


class GalileoKnobs(SeriesKnobs, LayersKnobs):
    """Knobs of Galileo."""

    prefix = "RS_EMBED_GALILEO_"
    HINTS: ClassVar[Mapping[str, str]] = {
        **LayersKnobs.HINTS,
        "input_resolution_m": "set the pixel size of the sensor: sensor=SensorSpec(collection, bands, scale_m=...)",
        "months": "pass temporal=TemporalSpec.range(...), or dates=[...] with input_chw: months come from the imagery",
        "window": "set window_patches, the side of a window in patches",
        **dict.fromkeys(("img", "image_size", "img_size"), "change the size of the place: pixels keep their own size"),
    }

    model_key: Annotated[
        Literal["galileo_nano", "galileo_tiny", "galileo_base"] | None, Field(description="size to run")
    ] = None
    frames: Annotated[int, Field(ge=1, le=MOST_DATES, description="most dates to use from the days requested")] = 12
    temporal_sampling: Annotated[
        Sampling,
        Field(description="month: a frame per calendar month; composite: one per sub-window; scenes: the clearest"),
    ] = "month"
    patch_size: Annotated[int, Field(ge=1, le=8, description="side of a patch, px")] = 8
    window_patches: Annotated[
        int | None,
        Field(ge=1, le=64, description="side of a window, patches; unset: 1 for a grid, up to 12 for a vector"),
    ] = None
    ndvi: Annotated[bool, Field(description="1: include NDVI, which the authors mask in their evaluation")] = False
    normalize: Annotated[str, Field(description="pretraining, none, or your own file of statistics")] = "pretraining"


Numbers = Mapping[str, tuple[float, float]]
_S2: Numbers = {
    "B2": (1395.340873, 917.704144), "B3": (1338.402692, 913.298842), "B4": (1343.098838, 1092.678724),
    "B5": (1543.860798, 1047.220608), "B6": (2186.202207, 1048.010161), "B7": (2525.093286, 1143.690303),
    "B8": (2410.337719, 1098.979178), "B8A": (2750.285465, 1204.472755), "B11": (2234.911100, 1145.977406),
    "B12": (1474.531127, 980.242984),
}  # fmt: skip
_S1: Numbers = {"VV": (-11.72872439, 4.88714577), "VH": (-18.85558188, 5.73027032)}
_HEIGHTS: Numbers = {"elevation": (673.015282, 983.069730), "slope": (5.93009267, 8.16740679)}
_DW: Numbers = {
    "water": (0.10470439, 0.18771648), "trees": (0.23965913, 0.23683135), "grass": (0.08158044, 0.08024269),
    "flooded_vegetation": (0.04246976, 0.04045374), "crops": (0.11304393, 0.11350342),
    "shrub_and_scrub": (0.17329648, 0.12798981), "built": (0.06989817, 0.12042342), "bare": (0.12130267, 0.13602408),
    "snow_and_ice": (0.04671319, 0.04397112),
}  # fmt: skip
_WC: Numbers = {
    "temporarycrops": (10.97311980, 31.25534015), "maize": (1.09270692, 10.39597488),
    "wintercereals": (1.69913942, 12.92380617), "springcereals": (0.03720595, 1.92852543),
    "irrigation": (1.36713527, 11.61217978),
}  # fmt: skip
_ERA5: Numbers = {"temperature_2m": (271.5674964, 79.8082894), "total_precipitation_sum": (0.085543037, 0.116695471)}
_TC: Numbers = {"def": (657.318126, 704.000870), "soil": (692.129180, 925.011613), "aet": (562.781332, 453.243402)}
_VIIRS: Numbers = {"avg_rad": (1.56471159, 7.51302017)}
_LANDSCAN: Numbers = {"b1": (188.2031589, 1154.5919128)}
"""Mean and standard deviation of each channel. Source: config/normalization.json."""


def _modality(
    name: str,
    collection: str,
    numbers: Numbers,
    *,
    feeds: tuple[str, ...],
    derived: tuple[DerivedBand, ...] = (),
    composite: Composite = "median",
    names: Mapping[str, str] | None = None,
    optional: bool = True,
) -> Modality:
    FEEDS[name] = feeds
    own = {channel: word for word, channel in (names or {}).items()}
    bands = tuple(own.get(channel, channel) for channel in numbers if channel not in {band.name for band in derived})
    channels: tuple[Band | DerivedBand, ...] = (*bands_of(collection, bands), *derived)
    stats = {
        band.name: BandStats(channel, band.unit, mean, std)
        for band, (channel, (mean, std)) in zip(channels, numbers.items(), strict=True)
    }
    series = any(group in SPACE_TIME or group in TIME for group in feeds)
    return Modality(
        name,
        SensorSpec(collection, bands, fill_value="mean", composite=composite),
        stats,
        image_px=8 * MOST_PATCHES,
        patch_px=8,
        is_series=series,
        keeps_empty=series,
        derived=derived,
        optional=optional,
        token_sets=len(feeds),
    )


FEEDS: dict[str, tuple[str, ...]] = {}
"""Modality -> groups to which its channels belong."""
_OPTICAL = ("S2_RGB", "S2_Red_Edge", "S2_NIR_10m", "S2_NIR_20m", "S2_SWIR")
_LAND_COVER, _CEREALS = "GOOGLE/DYNAMICWORLD/V1", "ESA/WorldCereal/2021"
MODALITIES = (
    _modality("s2", "COPERNICUS/S2_SR_HARMONIZED", _S2, feeds=_OPTICAL, optional=False),
    _modality("s2_l1c", "COPERNICUS/S2_HARMONIZED", _S2, feeds=_OPTICAL, optional=False),
    _modality("s1", "COPERNICUS/S1_GRD", _S1, feeds=("S1",)),
    _modality("s1_rtc", "COPERNICUS/S1_RTC", _S1, feeds=("S1",)),
    _modality("srtm", "USGS/SRTMGL1_003", _HEIGHTS, feeds=("SRTM",), derived=(SLOPE,)),
    _modality(
        *("dem", "COPERNICUS/DEM/GLO30", _HEIGHTS), feeds=("SRTM",), derived=(slope_of("DEM"),),
        names={"DEM": "elevation"},
    ),
    _modality("era5", "ECMWF/ERA5_LAND/MONTHLY_AGGR", _ERA5, feeds=("ERA5",), composite="mean"),
    _modality("terraclimate", "IDAHO_EPSCOR/TERRACLIMATE", _TC, feeds=("TC",), composite="mean"),
    _modality("viirs", "NOAA/VIIRS/DNB/MONTHLY_V1/VCMCFG", _VIIRS, feeds=("VIIRS",), composite="mean"),
    _modality("dynamic_world", _LAND_COVER, _DW, feeds=("DW",), composite="mean"),
    _modality("dynamic_world_mean", _LAND_COVER, _DW, feeds=("DW_static",), composite="mean"),
    _modality("worldcereal", _CEREALS, _WC, feeds=("WC",), composite="mean"),
    _modality("worldcereal_mean", _CEREALS, _WC, feeds=("WC_static",), composite="mean"),
    _modality("landscan", "ORNL/LANDSCAN", _LANDSCAN, feeds=("LS",), composite="mean"),
)  # fmt: skip
AS_THEY_ARE: Mapping[Unit, float] = {Unit.PROBABILITY: 1.0, Unit.CONFIDENCE: 100.0}
"""Unit -> divisor by which its values are scaled instead of being standardised."""


def _card(
    size: str, *, dim: int, depth: int, heads: int, parameters_m: float, weights: Weights, aliases: tuple[str, ...] = ()
) -> ModelCard:
    return ModelCard(
        id=f"galileo_1_0_{size}",
        revision=1,
        kind="foundation model",
        title=f"Galileo 1.0 {size.capitalize()}",
        adapter="rs_embed.embedders.onthefly_galileo:GalileoEmbedder",
        knobs=GalileoKnobs,
        arch={"dim": dim, "depth": depth, "heads": heads},
        dim=dim,
        parameters_m=parameters_m,
        weights=weights,
        modalities=MODALITIES,
        default=("s2", "s1", "srtm"),
        place_modalities=("location",),
        input_prep="tile",
        licence="MIT",
        citation="arXiv:2502.09356",
        model_key=f"galileo_{size}",
        aliases=aliases,
    )


_HUB = "nasaharvest/galileo"
CARDS = (
    _card(
        "nano",
        dim=128,
        depth=4,
        heads=8,
        parameters_m=1.038,
        weights=Weights(
            _HUB,
            "models/nano/encoder.pt",
            licence="MIT",
            sha256="eab6acacf527886a508a555bc24efe4b4a2cf91b162e84cd1c4a1807e942180c",
            size_bytes=4_189_406,
        ),
    ),
    _card(
        "tiny",
        dim=192,
        depth=12,
        heads=3,
        parameters_m=5.7,
        weights=Weights(_HUB, "models/tiny/encoder.pt", licence="MIT"),
    ),
    _card(
        "base",
        dim=768,
        depth=12,
        heads=12,
        parameters_m=86.5,
        weights=Weights(_HUB, "models/base/encoder.pt", licence="MIT"),
        aliases=("galileo",),
    ),
)
