"""Copernicus-FM, base size, on Sentinel-2 and Sentinel-1.

Source of the network and its file: TorchGeo 0.8.1, models/copernicusfm.py; of the licence: TorchGeo,
docs/api/weights/agnostic.csv; of bands, wavelengths and statistics: zhu-xlab/Copernicus-FM, Copernicus-Bench,
src/configs/dataset (bigearthnet_s2, eurosat_s2, bigearthnet_s1). Statistics of the pre-training are not published.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights
from rs_embed.embedders.cards.waves import WaveKnobs


class CopernicusFMKnobs(WaveKnobs):
    """Knobs of Copernicus-FM."""

    prefix = "RS_EMBED_COPERNICUSFM_"

    model_key: Annotated[Literal["copernicusfm_base"] | None, Field(description="there is one size")] = None


_NANOMETRES: Mapping[str, tuple[float, float, float, float]] = {
    "B1": (1353.7, 897.3, 440, 20),
    "B2": (1117.2, 736.0, 490, 65),
    "B3": (1041.8, 684.8, 560, 35),
    "B4": (946.5, 620.0, 665, 30),
    "B5": (1199.1, 791.9, 705, 15),
    "B6": (2003.0, 1341.3, 740, 15),
    "B7": (2374.0, 1595.4, 783, 20),
    "B8": (2301.2, 1545.5, 842, 115),
    "B8A": (2599.7, 1750.1, 860, 20),
    "B9": (732.1, 475.1, 940, 20),
    "B10": (12.1, 98.3, 1370, 30),
    "B11": (1820.6, 1216.5, 1610, 90),
    "B12": (1118.2, 736.7, 2190, 180),
}
"""Band of Sentinel-2 -> mean and standard deviation in DN, wavelength and bandwidth in nanometres. The authors use the
same numbers for L2A and L1C."""
_S2 = {
    band: BandStats(f"B{band[1:]:>02}", Unit.DN, mean, std, nm / 1000, width_nm / 1000)
    for band, (mean, std, nm, width_nm) in _NANOMETRES.items()
}
_S2_L2A = {band: stats for band, stats in _S2.items() if band != "B10"}
RADAR_UM, RADAR_WIDTH_UM = 5e4, 1e6
"""C band as the authors give it: 5 cm, with a bandwidth of 1 m."""
_S1 = {
    "VV": BandStats("VV", Unit.DB, -12.548, 5.257, RADAR_UM, RADAR_WIDTH_UM),
    "VH": BandStats("VH", Unit.DB, -20.192, 5.912, RADAR_UM, RADAR_WIDTH_UM),
}


def _modality(name: str, collection: str, stats: Mapping[str, BandStats]) -> Modality:
    sensor = SensorSpec(collection, tuple(stats), fill_value="mean")
    return Modality(name, sensor, stats, image_px=224, patch_px=16)


CARDS = (
    ModelCard(
        id="copernicus_fm_base",
        revision=1,
        kind="foundation model",
        title="Copernicus-FM Base",
        adapter="rs_embed.embedders.onthefly_waves:CopernicusFMEmbedder",
        knobs=CopernicusFMKnobs,
        arch={"dim": 768, "depth": 12, "heads": 12},
        dim=768,
        parameters_m=113.1,
        weights=Weights(
            "torchgeo/copernicus-fm",
            "CopernicusFM_ViT_base_varlang-085350e4.pth",
            licence="CC-BY-4.0",
            revision="f395812cc990ba25a451dbb9c9e6d95c8482947e",
        ),
        modalities=(
            _modality("s2", "COPERNICUS/S2_SR_HARMONIZED", _S2_L2A),
            _modality("s2_l1c", "COPERNICUS/S2_HARMONIZED", _S2),
            _modality("s1", "COPERNICUS/S1_GRD", _S1),
            _modality("s1_rtc", "COPERNICUS/S1_RTC", _S1),
        ),
        input_prep="tile",
        licence="CC-BY-4.0",
        citation="arXiv:2503.11849",
        model_key="copernicusfm_base",
        aliases=("copernicus_fm",),
    ),
)
