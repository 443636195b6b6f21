"""DINOv3: colour images of any number of patches in, class, register and patch tokens out."""

from typing import cast, final

from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import ModelRequest, Network
from rs_embed.embedders.cards.dinov3 import DinoV3Knobs
from rs_embed.embedders.onthefly_vit import ViTEmbedder
from rs_embed.embedders.prepare.framing import InputGeometry
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.dinov3 import DinoV3Encoder


@final
class DinoV3Embedder(ViTEmbedder):
    """DINOv3, whose windows may have any side of whole patches."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder."""
        return build_network(lambda: DinoV3Encoder(**request.card.arch), request, settings, Layout())

    def geometry(self) -> InputGeometry:
        """Accept square windows of whole patches."""
        patch_px = self.request.inputs[0][0].patch_px
        return InputGeometry(cast("DinoV3Knobs", self._knobs).window_px, patch_px, square=True, patch_px=patch_px)
