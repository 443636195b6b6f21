"""AlphaEarth Foundations: embeddings that Google computed, one vector per pixel of 10 m and calendar year.

Source: google/earthengine-catalog 10458c0, GOOGLE_SATELLITE_EMBEDDING_V1_ANNUAL.jsonnet (bands, unit length, years,
UTM zones); developers.google.com/earth-engine/guides/aef_on_gcs_readme (years from 2017 on, attribution).
"""

from typing import Annotated

from pydantic import Field

from rs_embed.core.bands import COLLECTIONS, Unit
from rs_embed.core.settings import ModelKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard

COLLECTION = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
BANDS = tuple(COLLECTIONS[COLLECTION])


class AlphaEarthKnobs(ModelKnobs):
    """Knobs of AlphaEarth's embeddings."""

    prefix = "RS_EMBED_ALPHAEARTH_"

    img: Annotated[int, Field(ge=1, le=32_768, description='side of what input_prep="crop" keeps, px')] = 256


CARDS = (
    ModelCard(
        id="alphaearth_v1",
        revision=1,
        kind="precomputed",
        title="AlphaEarth Foundations, Satellite Embedding V1",
        adapter="rs_embed.embedders.precomputed_alphaearth:AlphaEarthEmbedder",
        knobs=AlphaEarthKnobs,
        arch={},
        dim=64,
        parameters_m=0,
        weights=None,
        modalities=(
            Modality(
                "embedding",
                sensor=SensorSpec(COLLECTION, BANDS, composite="mosaic", fill_value="nan"),
                stats={name: BandStats(name, Unit.COMPONENT, 0.0, 1.0) for name in BANDS},
                image_px=256,
                patch_px=1,
                fixed=True,
                first_year=2017,
            ),
        ),
        input_prep="tile",
        licence="CC-BY-4.0: The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google "
        "DeepMind.",
        citation="arXiv:2507.22291",
        model_key="GOOGLE/SATELLITE_EMBEDDING/V1",
        aliases=("gse",),
    ),
)
