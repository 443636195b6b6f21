"""Panopticon: one model for optical bands by wavelength and radar channels.

Source of the network, its file and the ids of channels: TorchGeo 0.8.1, models/panopticon.py, and
Panopticon-FM/panopticon 5ad7f82 (dinov2/configs/data/satellites). The authors publish no statistics: they standardise
each data set by its own. Those below are a choice of this project: Sentinel-2 L1C and Sentinel-1 of SSL4EO-S12
(cards/ssl4eo.py), Sentinel-2 L2A of TerraMind's pre-training (cards/terramind.py), Landsat and NAIP of Clay's
(Clay-foundation/model, configs/metadata.yaml). Wavelengths of Landsat and NAIP are band centres of the sensors. The
hash of the file was not known when this card was written.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.settings import LayersKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights
from rs_embed.embedders.cards import terramind
from rs_embed.embedders.cards.ssl4eo import S1_DB, SOFTCON_DN


class PanopticonKnobs(LayersKnobs):
    """Knobs of Panopticon."""

    prefix = "RS_EMBED_PANOPTICON_"

    model_key: Annotated[Literal["panopticon_vitb14"] | None, Field(description="there is one size")] = None
    normalize: Annotated[str, Field(description="card_stats, none, or your own file of statistics")] = "card_stats"
    pooled: Annotated[
        Literal["class", "patch"], Field(description="source of a vector: the class token, or the mean of patches")
    ] = "class"


_NM = {
    "B1": 443, "B2": 493, "B3": 560, "B4": 665, "B5": 704, "B6": 741, "B7": 782, "B8": 828, "B8A": 865, "B9": 945,
    "B10": 1373, "B11": 1614, "B12": 2204,
}  # fmt: skip
"""Centres of the bands of Sentinel-2, nanometres."""
_LANDSAT = {
    "SR_B2": (483, 12474, 10144), "SR_B3": (561, 13310, 9408), "SR_B4": (654, 13705, 9578), "SR_B5": (865, 17801, 8277),
    "SR_B6": (1609, 14615, 5300), "SR_B7": (2201, 12701, 4522),
}  # fmt: skip
"""Centre in nanometres, and mean and standard deviation in DN of Collection 2, level 2."""
_NAIP = {"R": (650, 110.16, 47.23), "G": (560, 115.41, 39.82), "B": (480, 98.15, 35.43), "N": (842, 139.04, 49.86)}
Numbers = Mapping[str, tuple[float, float, float | None]]
"""Band -> mean, standard deviation and wavelength in nanometres, `None` for radar."""


def _modality(name: str, collection: str, unit: Unit, numbers: Numbers, scale_m: float = 10) -> Modality:
    return Modality(
        name,
        SensorSpec(collection, tuple(numbers), scale_m=scale_m, fill_value="mean"),
        {
            band: BandStats(band, unit, mean, std, None if nm is None else nm / 1000)
            for band, (mean, std, nm) in numbers.items()
        },
        image_px=224,
        patch_px=14,
    )


def _of_terramind(name: str) -> dict[str, tuple[float, float, float | None]]:
    (modality,) = (one for one in terramind.V1 if one.name == name)
    return {band: (stats.mean, stats.std, _NM.get(band)) for band, stats in modality.stats.items()}


_L1C: Numbers = {band: (mean, std, nm) for (band, nm), (mean, std) in zip(_NM.items(), SOFTCON_DN, strict=True)}
_GRD: Numbers = {band: (mean, std, None) for band, (mean, std) in S1_DB.items()}
_LANDSAT_SR: Numbers = {band: (2.75e-5 * mean - 0.2, 2.75e-5 * std, nm) for band, (nm, mean, std) in _LANDSAT.items()}
MODALITIES = (
    _modality("s2", "COPERNICUS/S2_HARMONIZED", Unit.DN, _L1C),
    _modality("s2_l2a", "COPERNICUS/S2_SR_HARMONIZED", Unit.DN, _of_terramind("S2L2A")),
    _modality("s1", "COPERNICUS/S1_GRD", Unit.DB, _GRD),
    _modality("s1_rtc", "COPERNICUS/S1_RTC", Unit.DB, _of_terramind("S1RTC")),
    _modality("l8", "LANDSAT/LC08/C02/T1_L2", Unit.REFLECTANCE, _LANDSAT_SR, 30),
    _modality("l9", "LANDSAT/LC09/C02/T1_L2", Unit.REFLECTANCE, _LANDSAT_SR, 30),
    _modality(
        "naip", "USDA/NAIP/DOQQ", Unit.BYTE, {band: (mean, std, nm) for band, (nm, mean, std) in _NAIP.items()}, 1
    ),
)
CARDS = (
    ModelCard(
        id="panopticon",
        revision=1,
        kind="foundation model",
        title="Panopticon",
        adapter="rs_embed.embedders.onthefly_panopticon:PanopticonEmbedder",
        knobs=PanopticonKnobs,
        arch={"dim": 768, "depth": 12, "heads": 12},
        dim=768,
        parameters_m=99,
        weights=Weights(
            "lewaldm/panopticon",
            "panopticon_vitb14_teacher.pth",
            licence="Apache-2.0",
            revision="c8c2bb9555819e8b2bcedf5b3b00e3bf531554e7",
        ),
        modalities=MODALITIES,
        input_prep="tile",
        licence="Apache-2.0",
        citation="arXiv:2503.10845",
        model_key="panopticon_vitb14",
    ),
)
