"""AlphaEarth Foundations: embeddings computed by Google, one vector per 10 m pixel and calendar year.

Source: google/earthengine-catalog 10458c0, GOOGLE_SATELLITE_EMBEDDING_V1_ANNUAL.jsonnet (bands, unit length, years,
UTM zones); developers.google.com/earth-engine/guides/aef_on_gcs_readme (years from 2017 on, attribution).
"""

from rs_embed.core.bands import COLLECTIONS
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.cards.precomputed import ADAPTER, PrecomputedKnobs, vectors

COLLECTION = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
BANDS = tuple(COLLECTIONS[COLLECTION])


class AlphaEarthKnobs(PrecomputedKnobs):
    """Knobs of AlphaEarth's embeddings."""

    prefix = "RS_EMBED_ALPHAEARTH_"


CARDS = (
    ModelCard(
        id="alphaearth_v1",
        revision=1,
        kind="precomputed",
        title="AlphaEarth Foundations, Satellite Embedding V1",
        adapter=ADAPTER,
        knobs=AlphaEarthKnobs,
        arch={},
        dim=64,
        parameters_m=0,
        weights=None,
        modalities=(vectors(COLLECTION, BANDS, first_year=2017),),
        backend="gee-or-published",
        input_prep="tile",
        licence="CC-BY-4.0: The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google "
        "DeepMind.",
        citation="arXiv:2507.22291",
        model_key="GOOGLE/SATELLITE_EMBEDDING/V1",
        aliases=("gse",),
    ),
)
