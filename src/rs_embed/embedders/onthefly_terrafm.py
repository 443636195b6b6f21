"""TerraFM: one image of Sentinel-2 or Sentinel-1, through the stem of its sensor and level."""

from functools import cached_property
from typing import final

from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.cards.terrafm import STEMS
from rs_embed.embedders.onthefly_vit import IMAGE, ViTEmbedder
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.terrafm import TerraFMEncoder
from rs_embed.encoders.tokens import Tokens


@final
class TerraFMEmbedder(ViTEmbedder):
    """TerraFM: a plain vision transformer whose stem depends on the modality."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder with the stems of all sensors."""
        return build_network(lambda: TerraFMEncoder(**request.card.arch), request, settings, Layout())

    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network with the stem of the modality."""
        stem = STEMS[self.request.inputs[0][0].name]
        tokens: Tokens = self.network.module(batch.tensors[IMAGE], stem, self._layers)
        return tokens

    @cached_property
    def readout(self) -> Readout:
        """One grid of patch tokens; the vector is the class token, unless patches are chosen."""
        parts = len(self._layers)
        own = None if self._knobs.pooled == "patch" else "class_token"
        return Readout(self.request.card.dim * parts, parts=parts, own_vector=own)
