"""TESSERA: embeddings computed by the University of Cambridge, one vector per 10 m pixel and calendar year.

Source: ucam-eo/geotessera 0.11.0 and dClimate/tessera-embeddings 4954173, docs/global-store.md (variants, years,
licence). Variants do not share a space, so each is a model of its own; only the complete global run is listed.
"""

from rs_embed.core.bands import COLLECTIONS
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.cards.precomputed import ADAPTER, PrecomputedKnobs, vectors

COLLECTION = "TESSERA/V1_1_DCLIMATE/ANNUAL"
BANDS = tuple(COLLECTIONS[COLLECTION])


class TesseraKnobs(PrecomputedKnobs):
    """Knobs of TESSERA's embeddings."""

    prefix = "RS_EMBED_TESSERA_"


CARDS = (
    ModelCard(
        id="tessera_v1_1",
        revision=1,
        kind="precomputed",
        title="TESSERA v1.1",
        adapter=ADAPTER,
        knobs=TesseraKnobs,
        arch={},
        dim=128,
        parameters_m=0,
        weights=None,
        modalities=(vectors(COLLECTION, BANDS, first_year=2017),),
        backend="published",
        input_prep="tile",
        licence="CC-BY-4.0: TESSERA embeddings v1.1 (v1.1-dclimate), University of Cambridge, arXiv:2506.20380.",
        citation="arXiv:2506.20380",
        model_key="tessera/v1.1-dclimate",
        aliases=("tessera",),
        extra="export",
    ),
)
