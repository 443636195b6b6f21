"""What the card of a TerraTorch backbone says beyond that of any model. Data only; the adapter reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from rs_embed.core.settings import LayersKnobs
from rs_embed.embedders.card import ModelCard

ADAPTER = "rs_embed.embedders.onthefly_terratorch:TerraTorchEmbedder"
EXTRA = "terratorch"

TimeCode = Literal["year_day", "week_hour"]
"""Year and day of the year (1 January = 1), or sine and cosine of the week and of the hour."""
LocationCode = Literal["lat_lon", "angles"]
"""Latitude and longitude in degrees, or sine and cosine of either."""


class TerraTorchKnobs(LayersKnobs):
    """Knobs of every TerraTorch backbone; a family adds its prefix and the names of its variants."""

    normalize: Annotated[
        Literal["card_stats", "none"], Field(description="card_stats, or none: pixels are standardised already")
    ] = "card_stats"
    metadata: Annotated[bool, Field(description="0: tell the model neither date nor place, if it takes them")] = True


@dataclass(frozen=True)
class Backbone:
    """How TerraTorch builds the network, feeds it and names its weights."""

    builder: str
    """Name in TerraTorch's BACKBONE_REGISTRY."""
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    """What the builder is given beside the card's `arch`."""
    depth: int = 12
    """How many blocks it has, and so maps or sequences it gives, where `arch` of the card does not say."""
    prefix_tokens: int = 1
    """Tokens before those of the patches; none in a map."""
    any_size: bool = False
    """Whether inputs of any number of patches are taken; otherwise `image_px` it is."""
    padding_px: int = 0
    """What the patch convolution pads: token k sees so many pixels before pixel k x patch, and as many fewer after."""
    time: tuple[str, TimeCode] | None = None
    """Keyword that takes the date, and its code."""
    location: tuple[str, LocationCode] | None = None
    """Keyword that takes the place, and its code."""
    gsd: str | None = None
    """Keyword that takes the pixel size, metres."""
    saturation: Mapping[str, float] = field(default_factory=dict)
    """Band -> value in the unit of its statistics above which the training data were cut off."""
    prepend: str = ""
    """Prefix of the encoder's tensors in TerraTorch's module, which the published file does not have."""
    own: tuple[str, ...] = ()
    """Patterns of the module's tensors that keep the values they are built with: computed, or not used."""


@dataclass(frozen=True, repr=False)
class TerraTorchCard(ModelCard):
    """A model that runs as a backbone of TerraTorch."""

    backbone: Backbone = field(kw_only=True)
