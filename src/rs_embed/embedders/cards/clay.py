"""Clay v1, base size, on Sentinel-2, and Clay v1.5, large size, on seven sensors.

Source of the network of v1 and its file: TerraTorch 1.2.11, models/backbones/clay_v1; of v1.5 and its file:
Clay-foundation/model a5790ce; of bands, statistics and wavelengths: its configs/metadata.yaml, whose README puts code
and weights under Apache-2.0. The commits and hashes of the weights were not known when these cards were written.
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights
from rs_embed.embedders.cards.terratorch import ADAPTER, EXTRA, Backbone, TerraTorchCard, TerraTorchKnobs
from rs_embed.embedders.cards.waves import Row, WaveKnobs, landsat_rows, modality_of


class ClayKnobs(TerraTorchKnobs):
    """Knobs of Clay."""

    prefix = "RS_EMBED_CLAY_"

    model_key: Annotated[Literal["clay_v1_base"] | None, Field(description="there is one size")] = None


class Clay15Knobs(WaveKnobs):
    """Knobs of Clay v1.5."""

    prefix = "RS_EMBED_CLAY15_"

    model_key: Annotated[Literal["clay_v1_5_large"] | None, Field(description="there is one size")] = None
    pooled: Annotated[
        Literal["class", "patch"], Field(description="source of a vector: the class token, or pooled patches")
    ] = "class"


_S2 = {
    "B2": BandStats("blue", Unit.DN, 1105, 1809),
    "B3": BandStats("green", Unit.DN, 1355, 1757),
    "B4": BandStats("red", Unit.DN, 1552, 1888),
    "B5": BandStats("rededge1", Unit.DN, 1887, 1870),
    "B6": BandStats("rededge2", Unit.DN, 2422, 1732),
    "B7": BandStats("rededge3", Unit.DN, 2630, 1697),
    "B8": BandStats("nir", Unit.DN, 2743, 1742),
    "B8A": BandStats("nir08", Unit.DN, 2785, 1648),
    "B11": BandStats("swir16", Unit.DN, 2388, 1470),
    "B12": BandStats("swir22", Unit.DN, 1835, 1379),
}

_UM = (0.493, 0.56, 0.665, 0.704, 0.74, 0.783, 0.842, 0.865, 1.61, 2.19)
"""Wavelengths of the bands of Sentinel-2, micrometres."""
_S1: dict[str, Row] = {"VV": ("vv", -12.113, 8.314, 3.5), "VH": ("vh", -18.673, 8.017, 4.0)}
"""In dB. The wavelengths are the authors' marks of the two polarisations, not those of the radar."""
_LANDSAT = landsat_rows(
    {
        "SR_B4": ("red", 13705, 9578, 0.65),
        "SR_B3": ("green", 13310, 9408, 0.56),
        "SR_B2": ("blue", 12474, 10144, 0.48),
        "SR_B5": ("nir08", 17801, 8277, 0.86),
        "SR_B6": ("swir16", 14615, 5300, 1.6),
        "SR_B7": ("swir22", 12701, 4522, 2.2),
    }
)
"""The authors' numbers are of DN of level 2 as delivered; here they are in reflectance."""
_LANDSAT_L1: dict[str, Row] = {
    "B4": ("red", 10678, 6025, 0.65),
    "B3": ("green", 10563, 5411, 0.56),
    "B2": ("blue", 11083, 5468, 0.48),
    "B5": ("nir08", 14792, 6746, 0.86),
    "B6": ("swir16", 12276, 5897, 1.6),
    "B7": ("swir22", 10114, 4850, 2.2),
}
_NAIP: dict[str, Row] = {
    "R": ("red", 110.16, 47.23, 0.65),
    "G": ("green", 115.41, 39.82, 0.56),
    "B": ("blue", 98.15, 35.43, 0.48),
    "N": ("nir", 139.04, 49.86, 0.842),
}
_LINZ: dict[str, Row] = {
    "R": ("red", 89.96, 41.83, 0.635),
    "G": ("green", 99.46, 36.96, 0.555),
    "B": ("blue", 89.51, 31.45, 0.465),
}
_MODIS: dict[str, Row] = {
    f"sur_refl_b0{number}": (f"sur_refl_b0{number}", mean, std, um)
    for number, mean, std, um in (
        (1, 1072.471882, 1643.113109, 0.645),
        (2, 1624.482782, 1878.537956, 0.8585),
        (3, 931.892947, 1449.024803, 0.469),
        (4, 1023.849436, 1538.677198, 0.555),
        (5, 1599.963956, 1763.359331, 1.24),
        (6, 1404.271537, 1618.157770, 1.64),
        (7, 1051.350204, 1396.227168, 2.13),
    )
}
"""In reflectance x 10,000."""


def _seen(name: str, collection: str, rows: dict[str, Row], unit: Unit, scale_m: float) -> Modality:
    return modality_of(name, collection, rows, unit, scale_m=scale_m, image_px=256, patch_px=8)


MODALITIES = (
    _seen(
        "s2",
        "COPERNICUS/S2_SR_HARMONIZED",
        {band: (one.model_name, one.mean, one.std, um) for (band, one), um in zip(_S2.items(), _UM, strict=True)},
        Unit.DN,
        10,
    ),
    _seen("s1", "COPERNICUS/S1_RTC", _S1, Unit.DB, 10),
    _seen("l8", "LANDSAT/LC08/C02/T1_L2", _LANDSAT, Unit.REFLECTANCE, 30),
    _seen("l9", "LANDSAT/LC09/C02/T1_L2", _LANDSAT, Unit.REFLECTANCE, 30),
    _seen("l8_l1", "LANDSAT/LC08/C02/T1", _LANDSAT_L1, Unit.LANDSAT_L1_DN, 30),
    _seen("l9_l1", "LANDSAT/LC09/C02/T1", _LANDSAT_L1, Unit.LANDSAT_L1_DN, 30),
    _seen("naip", "USDA/NAIP/DOQQ", _NAIP, Unit.BYTE, 1),
    _seen("linz", "LINZ/AERIAL", _LINZ, Unit.BYTE, 0.5),
    _seen("modis", "MODIS/061/MOD09A1", _MODIS, Unit.DN, 500),
)
"""The sensors of Clay v1.5."""

CARDS = (
    TerraTorchCard(
        id="clay_1_0_base",
        revision=2,
        kind="foundation model",
        title="Clay v1 Base",
        adapter=ADAPTER,
        knobs=ClayKnobs,
        arch={},
        dim=768,
        parameters_m=92.1,
        weights=Weights("made-with-clay/Clay-legacy", "v1/clay-v1-base.ckpt", licence="Apache-2.0"),
        modalities=(
            Modality(
                "s2",
                SensorSpec("COPERNICUS/S2_SR_HARMONIZED", tuple(_S2), fill_value="mean"),
                _S2,
                image_px=256,
                patch_px=8,
                fixed=True,
            ),
        ),
        input_prep="resize",
        licence="Apache-2.0",
        citation="github.com/Clay-foundation/model",
        model_key="clay_v1_base",
        aliases=("clay",),
        extra=EXTRA,
        backbone=Backbone(
            builder="timm_clay_v1_base",
            options={"bands": [stats.model_name for stats in _S2.values()], "img_size": 256},
            time=("time", "week_hour"),
            location=("latlon", "angles"),
            gsd="gsd",
            prepend="clay_encoder.",
        ),
    ),
    ModelCard(
        id="clay_1_5_large",
        revision=1,
        kind="foundation model",
        title="Clay v1.5 Large",
        adapter="rs_embed.embedders.onthefly_waves:ClayEmbedder",
        knobs=Clay15Knobs,
        arch={"dim": 1024, "depth": 24, "heads": 16},
        dim=1024,
        parameters_m=311.4,
        weights=Weights("made-with-clay/Clay", "v1.5/clay-v1.5.ckpt", licence="Apache-2.0"),
        modalities=MODALITIES,
        input_prep="tile",
        licence="Apache-2.0",
        citation="github.com/Clay-foundation/model",
        model_key="clay_v1_5_large",
        aliases=("clay_1_5",),
    ),
)
