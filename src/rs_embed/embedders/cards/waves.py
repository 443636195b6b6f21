"""The knobs that models of any bands share, and bands by their wavelengths. Data only."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.settings import LayersKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality

Row = tuple[str, float, float, float]
"""The model's name of a band, its mean, its standard deviation and its central wavelength in micrometres."""
LANDSAT_SR = 2.75e-05, -0.2
"""Factor and offset from DN of Landsat Collection 2, level 2, to reflectance."""


class WaveKnobs(LayersKnobs):
    """Knobs of every model of any bands; a family adds its prefix and the names of its variants."""

    normalize: Annotated[
        Literal["card_stats", "none"], Field(description="card_stats, or none if pixels are already standardised")
    ] = "card_stats"
    metadata: Annotated[bool, Field(description="0: withhold date and place from models that take them")] = True


def modality_of(
    name: str, collection: str, rows: Mapping[str, Row], unit: Unit, *, scale_m: float, image_px: int, patch_px: int
) -> Modality:
    """Build a modality from a table of bands.

    Args:
        name: Name of the modality.
        collection: Its collection.
        rows: Band -> the model's name, statistics and wavelength.
        unit: Unit of the statistics.
        scale_m: Pixel size, metres.
        image_px: Side of the network's input, pixels.
        patch_px: Side of a patch, pixels.
    """
    stats = {band: BandStats(theirs, unit, mean, std, um) for band, (theirs, mean, std, um) in rows.items()}
    sensor = SensorSpec(collection, tuple(rows), scale_m=scale_m, fill_value="mean")
    return Modality(name, sensor, stats, image_px, patch_px)


def landsat_rows(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Convert statistics of Landsat level-2 DN to reflectance."""
    factor, offset = LANDSAT_SR
    return {band: (theirs, mean * factor + offset, std * factor, um) for band, (theirs, mean, std, um) in rows.items()}
