"""Models that take only a location: one token per cell, from the longitude and latitude of its centre."""

from collections.abc import Mapping
from functools import cached_property
from typing import cast, final

import numpy as np
import torch
from odc.geo.geobox import GeoBox
from pydantic import JsonValue

from rs_embed.core.chip import Chip
from rs_embed.core.geo import pixel_centres
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.prepare.framing import Frame, InputGeometry
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.geoclip import GeoClipEncoder
from rs_embed.encoders.satclip import SatClipEncoder
from rs_embed.encoders.tokens import Tokens

CROPPED_PX = 256
"""Side of the centre that `input_prep="crop"` keeps, cells."""


class LocationEmbedder(Embedder):
    """Everything but the encoder, shared by all location models."""

    def geometry(self) -> InputGeometry:
        """Accept grids of any shape, because each cell is encoded on its own."""
        return InputGeometry(CROPPED_PX, lattice_px=1, square=False, patch_px=1, native_only=True)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Return longitude and latitude of the centre of each cell."""
        (ground,) = chips.values()
        lonlat = np.stack(pixel_centres(cast("GeoBox", ground.geobox)), axis=-1)
        (window,) = frame.windows
        there = lonlat[window.row : window.row + window.height, window.col : window.col + window.width]
        return [ModelInput({"lonlat": torch.from_numpy(np.ascontiguousarray(there))})]

    def encode(self, batch: ModelInput) -> Tokens:
        """Return one token per cell."""
        encoder = cast("GeoClipEncoder | SatClipEncoder", self.network.module)
        return encoder.forward(batch.tensors["lonlat"])

    @property
    def normalization(self) -> str:
        """No normalisation: degrees are used as they are."""
        return "none"

    @cached_property
    def readout(self) -> Readout:
        """Grid of cells; a vector is the token of a single cell that covers the place."""
        return Readout(self.request.card.dim, grid_kind="cells", keeps_nodata=True, placed=False)

    def facts_of(self, given: ModelInput) -> dict[str, JsonValue]:
        """Return longitude and latitude of the centre of the place, or of the north-westernmost cell."""
        lon, lat = given.tensors["lonlat"][0, 0].tolist()
        return {"lon": round(lon, 9), "lat": round(lat, 9)}


@final
class GeoClipEmbedder(LocationEmbedder):
    """GeoCLIP's location encoder."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder with the weights shipped by its authors' package."""
        return build_network(lambda: GeoClipEncoder(**request.card.arch), request, settings, Layout())


@final
class SatClipEmbedder(LocationEmbedder):
    """SatCLIP's location encoder; the image encoder in the same file is not loaded."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder with the weights of one of the releases."""
        return build_network(lambda: SatClipEncoder(**request.card.arch), request, settings, Layout())
