"""The facts of a TerraTorch backbone in addition to those of any model. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from rs_embed.core.settings import LayersKnobs
from rs_embed.embedders.card import ModelCard

ADAPTER = "rs_embed.embedders.onthefly_terratorch:TerraTorchEmbedder"
EXTRA = "terratorch"

TimeCode = Literal["week_hour"]
"""Encoding of the date: sine and cosine of the week and of the hour."""
LocationCode = Literal["angles"]
"""Encoding of the location: sine and cosine of latitude and of longitude."""


class TerraTorchKnobs(LayersKnobs):
    """Knobs of every TerraTorch backbone; a family adds its prefix and the names of its variants."""

    normalize: Annotated[
        Literal["card_stats", "none"], Field(description="card_stats, or none if pixels are already standardised")
    ] = "card_stats"
    metadata: Annotated[bool, Field(description="0: withhold date and place from models that take them")] = True


@dataclass(frozen=True)
class Backbone:
    """How TerraTorch builds the network, passes inputs to it and names its weights."""

    builder: str
    """Name in TerraTorch's BACKBONE_REGISTRY."""
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    """Arguments of the builder in addition to the card's `arch`."""
    depth: int = 12
    """Number of blocks, and so of outputs, if the card's `arch` does not state it."""
    prefix_tokens: int = 1
    """Number of tokens before the patch tokens; 0 if the output is a map."""
    any_size: bool = False
    """Whether the network takes inputs of any number of patches; otherwise their side is `image_px`."""
    time: tuple[str, TimeCode] | None = None
    """Keyword for the date, and its encoding."""
    location: tuple[str, LocationCode] | None = None
    """Keyword for the location, and its encoding."""
    gsd: str | None = None
    """Keyword for the pixel size in metres."""
    prepend: str = ""
    """Prefix of the encoder's tensors in TerraTorch's module, which the published file does not have."""
    own: tuple[str, ...] = ()
    """Patterns of the module's tensors that keep their initial values, because they are computed or not used."""


@dataclass(frozen=True, repr=False)
class TerraTorchCard(ModelCard):
    """A model that runs as a backbone of TerraTorch."""

    backbone: Backbone = field(kw_only=True)
