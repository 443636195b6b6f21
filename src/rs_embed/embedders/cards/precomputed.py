"""What the card of a product of embeddings needs: knobs, and the one modality that holds the numbers."""

from typing import Annotated

from pydantic import Field

from rs_embed.core.bands import bands_of
from rs_embed.core.settings import ModelKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality

ADAPTER = "rs_embed.embedders.precomputed:PrecomputedEmbedder"


class PrecomputedKnobs(ModelKnobs):
    """Knobs of a product of embeddings; each has a prefix of its own."""

    img: Annotated[int, Field(ge=1, le=32_768, description='side of what input_prep="crop" keeps, px')] = 256


def vectors(collection: str, bands: tuple[str, ...], scale_m: float = 10, first_year: int | None = None) -> Modality:
    """The numbers of a product, in their order; nodata stays nodata.

    Args:
        scale_m: Pixel size of the product, metres: its pixels are never resampled.
        first_year: Of a product of calendar years.
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
