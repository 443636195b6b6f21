"""A model and a backend for rs_embed. Importing this loads no torch, so that listing models stays instant."""

from datetime import UTC, datetime, time
from typing import Annotated

import numpy as np
from odc.geo.geobox import GeoBox
from pydantic import Field

from rs_embed import Chip, ModelCard, SensorSpec
from rs_embed.core.bands import Unit, bands_of
from rs_embed.core.chip import Source
from rs_embed.core.settings import WeightsKnobs
from rs_embed.embedders.card import BandStats, Modality, Weights
from rs_embed.errors import SensorNotOffered, SpecError
from rs_embed.providers import Query

S2 = "COPERNICUS/S2_SR_HARMONIZED"


class TinyKnobs(WeightsKnobs):
    """Settings of the model: keywords, or variables that start with the prefix."""

    prefix = "RS_EMBED_TINY_PATCHES_"

    img: Annotated[int, Field(ge=8, le=512, multiple_of=8, description="side of a window, px")] = 64


CARD = ModelCard(
    id="tiny_patches",
    revision=1,
    kind="baseline",
    title="Tiny Patches",
    adapter="tiny_patches.adapter:TinyEmbedder",
    knobs=TinyKnobs,
    arch={"bands": 3, "dim": 16},
    dim=16,
    parameters_m=0.0031,
    weights=Weights("nobody/tiny-patches", "model.safetensors", licence="MIT"),
    modalities=(
        Modality(
            "rgb",
            sensor=SensorSpec(S2, ("B4", "B3", "B2")),
            stats={
                "B4": BandStats("red", Unit.DN, 1100, 900),
                "B3": BandStats("green", Unit.DN, 1050, 800),
                "B2": BandStats("blue", Unit.DN, 900, 850),
            },
            image_px=64,
            patch_px=8,
            fixed=True,
        ),
    ),
    input_prep="tile",
    licence="MIT",
    citation="-",
    model_key="tiny_patches_v1",
    aliases=("tiny",),
    pooled_is_grid_mean=True,
)


class Stripes:
    """Synthetic Sentinel-2: stripes from north to south, 640 m apart."""

    name = "stripes"

    def identity(self) -> str:
        """A text that changes whenever the pixels change."""
        return "stripes:1"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """Sentinel-2 only."""
        if sensor.collection != S2:
            raise SensorNotOffered(f"Expected {S2}, got {sensor.collection}.", fix="choose another backend")

    def native_geobox(self, query: Query) -> GeoBox | None:
        """Without limits, so a place is required."""
        raise SpecError("Expected a place, got none.", fix="spatial=PointBuffer(...)")

    def fetch(self, query: Query) -> Chip:
        """On exactly the grid of the query: float32 `[T, C, H, W]`, in the unit of the collection."""
        geobox, sensor = query.geobox, query.sensor
        if geobox is None:
            raise SpecError("Expected a grid, got none.", fix="spatial=PointBuffer(...)")
        height, width = geobox.shape
        east_m, _ = geobox.affine @ (np.arange(width) + 0.5, np.zeros(width))
        row = 1500 + 500 * np.sin(2 * np.pi * east_m / 640)
        bands = bands_of(sensor.collection, sensor.bands)
        values = np.broadcast_to(row, (1, len(bands), height, width)).astype(np.float32)
        when = None if query.window is None else datetime.combine(query.window.start, time(), UTC)
        return Chip(values, bands, geobox, (when,), Source(self.name, sensor.collection))
