"""The parts of a card for a product of precomputed embeddings: knobs, and the one modality that holds the vectors."""

from typing import Annotated

from pydantic import Field

from rs_embed.core.bands import bands_of
from rs_embed.core.settings import ModelKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality

ADAPTER = "rs_embed.embedders.precomputed:PrecomputedEmbedder"


class PrecomputedKnobs(ModelKnobs):
    """Knobs of a product of precomputed embeddings; each product has its own prefix."""

    img: Annotated[int, Field(ge=1, le=32_768, description='side of the centre that input_prep="crop" keeps, px')] = 256


def vectors(collection: str, bands: tuple[str, ...], scale_m: float = 10, first_year: int | None = None) -> Modality:
    """Return the modality of a product: its vectors, with nodata kept.

    Args:
        collection: The product.
        bands: Its dimensions, in order.
        scale_m: Pixel size of the product, metres; its pixels are never resampled.
        first_year: First year of a product of calendar years.
    """
    return Modality(
        "embedding",
        sensor=SensorSpec(collection, bands, scale_m=scale_m, composite="mosaic", fill_value="nan"),
        stats={band.name: BandStats(band.name, band.unit, 0.0, 1.0) for band in bands_of(collection, bands)},
        image_px=256,
        patch_px=1,
        fixed=True,
        first_year=first_year,
    )
