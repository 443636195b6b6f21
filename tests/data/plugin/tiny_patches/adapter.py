"""How Tiny Patches runs: imported when it does."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from rs_embed import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import to_image, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import Encoder
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from tiny_patches import TinyKnobs


class TinyEncoder(Encoder):
    """One convolution: a token for each patch of 8 x 8 pixels."""

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(bands, dim, kernel_size=8, stride=8)

    def forward(self, image: Tensor) -> Tokens:
        """`[batch, band, H, W]` to tokens, row by row from the north-west."""
        patches = self.patches(image)
        grid = TokenGrid("patch", patches.shape[2], patches.shape[3])
        return Tokens(patches.flatten(2).mT, TokenLayout((grid,)))


class TinyEmbedder(Embedder):
    """Chips to inputs, inputs to tokens."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """The encoder with the weights that card and knobs name, loaded strictly."""
        return build_network(lambda: TinyEncoder(**request.card.arch), request, settings, Layout())

    def geometry(self) -> InputGeometry:
        """Windows of whole patches, of any shape."""
        knobs = cast("TinyKnobs", self.request.knobs)
        return InputGeometry(knobs.img, lattice_px=8, square=False, patch_px=8)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Fill nodata, standardise, cut."""
        modality, sensor = self.request.inputs[0]
        image = to_image(chips[modality.name], modality, sensor, z_score(modality, sensor, clamp_sigma=None))
        return [ModelInput({"image": window}) for window in cut_windows(image, frame)]

    def encode(self, batch: ModelInput) -> Tokens:
        """Called in inference mode, with a batch on the device of the network."""
        return self.network.module(batch.tensors["image"])
