"""AnySat: one release, eight of its eleven modalities.

Source of bands, pixel sizes and shapes: gastruc/AnySat e03e72e, hubconf.py and README.md. The release names no
statistics; those of PASTIS and TreeSatAI-TS come from the sources named below. Three modalities are left out: l7 and
alos, whose 30 m pixels the released forward pass treats as 10 m, and modis, on which it fails. The commit and the hash
of the published weights were not known when this card was written, so `Weights.revision` is open.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rs_embed.core.bands import Band, bands_of
from rs_embed.core.settings import LayersKnobs, SeriesKnobs
from rs_embed.core.specs import OrbitPass, SensorSpec
from rs_embed.embedders.card import BandStats, DerivedBand, Modality, ModelCard, Weights
from rs_embed.embedders.prepare.derived import POLARISATION_RATIO


class AnySatKnobs(SeriesKnobs, LayersKnobs):
    """Knobs of AnySat."""

    prefix = "RS_EMBED_ANYSAT_"
    SYNONYMS: ClassVar[Mapping[str, str]] = {
        **LayersKnobs.SYNONYMS,
        "patch_size": "patch_size_m",  # the authors' name, metres too
    }
    HINTS: ClassVar[Mapping[str, str]] = {
        **LayersKnobs.HINTS,
        "scale": "set patch_size_m, in metres: ten times the authors' scale; pixels keep their own size",
        "flash_attn": "leave it out: attention equals the authors' with flash_attn=False",
        "output_modality": "put it first in modality: a dense grid is made of the first modality",
        **dict.fromkeys(("img", "image_size", "img_size"), "change the size of the place: pixels keep their own size"),
        "merge_method": "leave it out: the model always merges modalities itself",
    }

    model_key: Annotated[Literal["anysat_base"] | None, Field(description="there is one release")] = None
    patch_size_m: Annotated[int, Field(ge=10, le=160, multiple_of=10, description="side of a patch, metres")] = 40
    normalize: Annotated[str, Field(description="pastis, treesat, none, or your own file of statistics")] = "pastis"
    pooled: Annotated[
        Literal["tile", "patch"], Field(description="source of a vector: the trained tile token, or pooled patches")
    ] = "tile"
    dense_order: Annotated[
        Literal["raster", "reference"],
        Field(description="order of aerial sub-tokens in a dense grid: as on the ground, or as in the authors' code"),
    ] = "raster"


PASTIS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "s2": (
        (1180.22785, 1976.91493), (1387.76883, 1917.02121), (1436.67628, 1996.45123), (1773.66437, 1903.34296),
        (2735.86417, 1785.08356), (3080.12531, 1796.44778), (3223.60016, 1811.90019), (3338.35640, 1793.47036),
        (2418.01390, 1474.46980), (1630.11251, 1309.88417),
    ),
    "s1-asc": ((-10.91848, 3.26831), (-17.34320, 3.19896)),
}  # fmt: skip
"""Modality -> mean and std of each band, in DN or dB. Source: the PASTIS loader of GFM-Bench (s1-asc: its ascending
passes)."""
TREESAT: Mapping[str, tuple[tuple[float, float], ...]] = {
    "s2": (
        (4304.3296, 3537.9976), (4159.2666, 3324.2349), (4057.7766, 3270.0701), (4328.9512, 3250.5300),
        (4571.2212, 2897.3914), (4644.8711, 2754.4971), (4837.2471, 2821.5215), (4700.2578, 2625.9524),
        (2823.2644, 1731.5630), (2319.9702, 1549.3029),
    ),
}  # fmt: skip
"""Modality -> mean and std of each band in DN, clouds included. Source: gastruc/AnySat, demo.ipynb (TreeSatAI-TS). Its
values for Sentinel-1 (undocumented unit) and for aerial images (uncertain order) are left out."""
PUBLISHED: Mapping[str, Mapping[str, tuple[tuple[float, float], ...]]] = {"pastis": PASTIS, "treesat": TREESAT}

_S2_BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
_L8_BANDS = ("B8", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9", "B10", "B11")


def _modality(
    name: str,
    collection: str,
    bands: tuple[str, ...],
    *,
    grid_px: int = 1,
    is_series: bool = False,
    derived: tuple[DerivedBand, ...] = (),
    orbit_pass: OrbitPass | None = None,
) -> Modality:
    channels: tuple[Band | DerivedBand, ...] = (*bands_of(collection, bands), *derived)
    unpublished = ((math.nan, math.nan),) * len(channels)
    numbers = zip(channels, PASTIS.get(name, unpublished), strict=True)
    return Modality(
        name,
        SensorSpec(collection, bands, scale_m=10 / grid_px, fill_value="mean", orbit_pass=orbit_pass),
        {band.name: BandStats(band.name, band.unit, mean, std) for band, (mean, std) in numbers},
        image_px=128 * grid_px,
        patch_px=4 * grid_px,
        fixed=True,
        is_series=is_series,
        grid_px=grid_px,
        derived=derived,
    )


_S1 = "COPERNICUS/S1_GRD"
MODALITIES = (
    _modality("s2", "COPERNICUS/S2_SR_HARMONIZED", _S2_BANDS, is_series=True),
    _modality("s1", _S1, ("VV", "VH"), derived=(POLARISATION_RATIO,), is_series=True),
    _modality("s1-asc", _S1, ("VV", "VH"), is_series=True, orbit_pass="ASCENDING"),
    _modality("l8", "LANDSAT/LC08/C02/T1_TOA", _L8_BANDS, is_series=True),
    _modality("aerial", "IGN/BD_ORTHO", ("R", "G", "B", "N"), grid_px=50),
    _modality("aerial-flair", "IGN/BD_ORTHO", ("R", "G", "B", "N", "ELEVATION"), grid_px=50),
    _modality("spot", "AIRBUS/SPOT67", ("R", "G", "B"), grid_px=10),
    _modality("naip", "USDA/NAIP/DOQQ", ("R", "G", "B", "N"), grid_px=8),
)
"""Time series at 10 m, and finer images; `nan` where no statistics are published."""

CARDS = (
    ModelCard(
        id="anysat_1_0_base",
        revision=2,
        kind="foundation model",
        title="AnySat 1.0 Base",
        adapter="rs_embed.embedders.onthefly_anysat:AnySatEmbedder",
        knobs=AnySatKnobs,
        arch={"dim": 768, "depth": 6, "heads": 12},
        dim=768,
        parameters_m=125.9,
        weights=Weights("g-astruc/AnySat", "models/AnySat.pth", licence="MIT"),
        modalities=MODALITIES,
        input_prep="tile",
        licence="MIT",
        citation="arXiv:2412.14123",
        model_key="anysat_base",
        dense=True,
        aliases=("anysat",),
    ),
)
