"""Models that are told where a place is: one token for each cell, of the longitude and latitude of its middle."""

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
"""Side of what `input_prep="crop"` keeps, cells."""


class LocationEmbedder(Embedder):
    """What all of them have in common: everything but the encoder."""

    def geometry(self) -> InputGeometry:
        """Cells of any number: each is encoded by itself."""
        return InputGeometry(CROPPED_PX, lattice_px=1, square=False, patch_px=1, native_only=True)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Where the middle of each cell is."""
        (ground,) = chips.values()
        lonlat = np.stack(pixel_centres(cast("GeoBox", ground.geobox)), axis=-1)
        (window,) = frame.windows
        there = lonlat[window.row : window.row + window.height, window.col : window.col + window.width]
        return [ModelInput({"lonlat": torch.from_numpy(np.ascontiguousarray(there))})]

    def encode(self, batch: ModelInput) -> Tokens:
        """One token a cell."""
        encoder = cast("GeoClipEncoder | SatClipEncoder", self.network.module)
        return encoder.forward(batch.tensors["lonlat"])

    @property
    def normalization(self) -> str:
        """None: degrees are what they are."""
        return "none"

    @cached_property
    def readout(self) -> Readout:
        """Cells. A vector is that of the one cell that the place is."""
        return Readout(self.request.card.dim, grid_kind="cells", keeps_nodata=True, placed=False)

    def facts_of(self, given: ModelInput) -> dict[str, JsonValue]:
        """What it was told: longitude and latitude of the middle of the place, or of the cell in the north-west."""
        lon, lat = given.tensors["lonlat"][0, 0].tolist()
        return {"lon": round(lon, 9), "lat": round(lat, 9)}


@final
class GeoClipEmbedder(LocationEmbedder):
    """GeoCLIP's."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """The encoder with the weights that its authors' package ships."""
        return build_network(lambda: GeoClipEncoder(**request.card.arch), request, settings, Layout())


@final
class SatClipEmbedder(LocationEmbedder):
    """SatCLIP's; the encoder of images lies in the same file, and is left there."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """The encoder with the weights of one of the releases."""
        return build_network(lambda: SatClipEncoder(**request.card.arch), request, settings, Layout())
