"""MOSAIKS: random convolutional features, a baseline that needs no training.

Source: Rolf et al. 2021, Nature Communications 12:4392. This project made the filter bank: `scripts/fit_rcf_bank.py`.
"""

from typing import Annotated

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.settings import ModelKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard
from rs_embed.embedders.cards.thor import S2, S2_BANDS_12


class MosaiksKnobs(ModelKnobs):
    """Knobs of the MOSAIKS baseline."""

    prefix = "RS_EMBED_MOSAIKS_"

    img: Annotated[int, Field(ge=16, le=1024, description="side of one window, px")] = 256
    patch_size: Annotated[int, Field(ge=1, le=256, description="pixels averaged under one token")] = 8


# Statistics of the patches on which the filter bank was fitted. The bank holds them too, and a test compares the two.
_STATS = {
    "B1": BandStats("B1", Unit.DN, 279.1357, 359.8243),
    "B2": BandStats("B2", Unit.DN, 378.3350, 452.1797),
    "B3": BandStats("B3", Unit.DN, 615.9546, 464.4780),
    "B4": BandStats("B4", Unit.DN, 491.7646, 500.5348),
    "B5": BandStats("B5", Unit.DN, 1001.9729, 524.0709),
    "B6": BandStats("B6", Unit.DN, 2371.9314, 942.5543),
    "B7": BandStats("B7", Unit.DN, 2833.6111, 1184.3649),
    "B8": BandStats("B8", Unit.DN, 2998.5110, 1222.4417),
    "B8A": BandStats("B8A", Unit.DN, 3071.5298, 1231.6051),
    "B9": BandStats("B9", Unit.DN, 3057.9365, 1157.6107),
    "B11": BandStats("B11", Unit.DN, 1609.9880, 669.3970),
    "B12": BandStats("B12", Unit.DN, 877.1765, 477.1190),
}

CARDS = (
    ModelCard(
        id="mosaiks_rcf",
        revision=2,
        kind="baseline",
        title="MOSAIKS random convolutional features",
        adapter="rs_embed.embedders.onthefly_mosaiks:MosaiksEmbedder",
        knobs=MosaiksKnobs,
        arch={"filters": 512, "bands": 12},
        dim=1024,
        parameters_m=0.0553,
        weights=None,
        modalities=(
            Modality(
                "s2_12",
                sensor=SensorSpec(S2, S2_BANDS_12, fill_value="mean"),
                stats=_STATS,
                image_px=256,
                patch_px=8,
                fixed=True,
            ),
        ),
        input_prep="tile",
        licence="Apache-2.0 (filters fitted on BigEarthNet patches, CDLA-Permissive-1.0)",
        citation="doi:10.1038/s41467-021-24638-z",
        model_key="mosaiks_rcf",
        pooled_is_grid_mean=True,
        aliases=("mosaiks",),
    ),
)
