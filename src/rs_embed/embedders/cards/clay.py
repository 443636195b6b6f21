"""Clay v1, base size, on Sentinel-2.

Source of the network and its file: TerraTorch 1.2.11, models/backbones/clay_v1; of bands, statistics and wavelengths:
Clay-foundation/model, configs/metadata.yaml (sentinel-2-l2a), whose README puts code and weights under Apache-2.0.
The commit and hash of the weights were not known when this card was written.
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, Weights
from rs_embed.embedders.cards.terratorch import ADAPTER, EXTRA, Backbone, TerraTorchCard, TerraTorchKnobs


class ClayKnobs(TerraTorchKnobs):
    """Knobs of Clay."""

    prefix = "RS_EMBED_CLAY_"

    model_key: Annotated[Literal["clay_v1_base"] | None, Field(description="there is one size")] = None


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
)
