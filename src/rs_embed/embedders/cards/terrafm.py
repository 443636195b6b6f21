"""TerraFM-B: one network for Sentinel-2 L2A, Sentinel-2 L1C and Sentinel-1.

Source of the file and the bands: torchgeo-bench (pull request 279), which assumes the order of bands of Major TOM, and
cites the authors for the licence (MIT). The authors publish no statistics; those below are of TerraMind's pre-training
(cards/terramind.py), whose images are of the same sensors: a choice of this project. Commit and hash of the file were
not known when this card was written.
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import Modality, ModelCard, Weights
from rs_embed.embedders.cards import terramind
from rs_embed.embedders.cards.ssl4eo import ViTKnobs


class TerraFMKnobs(ViTKnobs):
    """Knobs of TerraFM."""

    prefix = "RS_EMBED_TERRAFM_"

    model_key: Annotated[Literal["TerraFM-B"] | None, Field(description="there is one size")] = None
    pooled: Annotated[
        Literal["patch", "class"] | None,
        Field(description="source of a vector: the class token, or the mean of patches; unset: class"),
    ] = None


_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
STEMS = {"s2": "s2_l2a", "s2_l1c": "s2_l1c", "s1": "s1", "s1_rtc": "s1"}
"""Modality -> the stem through which it goes."""


def _modality(name: str, of_terramind: str) -> Modality:
    (like,) = (one for one in terramind.V1 if one.name == of_terramind)
    bands = _BANDS if name.startswith("s2") else like.sensor.bands
    sensor = SensorSpec(like.sensor.collection, bands, fill_value="mean")
    stats = {band: like.stats[band] for band in bands}
    return Modality(name, sensor, stats, image_px=224, patch_px=16, fixed=True)


CARDS = (
    ModelCard(
        id="terrafm_base",
        revision=1,
        kind="foundation model",
        title="TerraFM-B",
        adapter="rs_embed.embedders.onthefly_terrafm:TerraFMEmbedder",
        knobs=TerraFMKnobs,
        arch={"dim": 768, "depth": 12, "heads": 12},
        dim=768,
        parameters_m=113,
        weights=Weights("MBZUAI/TerraFM", "TerraFM-B.pth", licence="MIT"),
        modalities=(
            _modality("s2", "S2L2A"),
            _modality("s2_l1c", "S2L1C"),
            _modality("s1", "S1GRD"),
            _modality("s1_rtc", "S1RTC"),
        ),
        input_prep="tile",
        licence="MIT",
        citation="arXiv:2506.06281",
        model_key="TerraFM-B",
        aliases=("terrafm",),
    ),
)
