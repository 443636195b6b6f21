"""A model whose tokens are the mean pixels of their patches: what goes in at a place must come out there."""

from collections.abc import Mapping

import torch
from torch.nn.functional import avg_pool2d

from rs_embed.core.bands import Unit
from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings, ModelKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, NetworkCache, Readout
from rs_embed.embedders.card import BandStats, Modality, ModelCard
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens

SENSOR = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B2", "B3"))
CARD = ModelCard(
    id="echo",
    revision=1,
    kind="baseline",
    title="Echo",
    adapter="echo:EchoEmbedder",
    knobs=ModelKnobs,
    arch={},
    dim=2,
    parameters_m=0,
    weights=None,
    modalities=(
        Modality("s2", SENSOR, {b: BandStats(b, Unit.DN, 0, 1) for b in SENSOR.bands}, image_px=96, patch_px=8),
    ),
    input_prep="resize",
    licence="-",
    citation="-",
    model_key="echo",
    pooled_is_grid_mean=True,
)


class EchoEmbedder(Embedder):
    """Two grids, of 8 and 16 px cells, with one prefix token of NaN that must never be read."""

    square = True
    patches: tuple[int, ...] = (8,)

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        return Network(torch.nn.Identity(), "none")

    def geometry(self) -> InputGeometry:
        return InputGeometry(96, lattice_px=max(self.patches), square=self.square, patch_px=8)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        image = torch.from_numpy(chips["s2"].values[0])
        return [ModelInput({"image": window}) for window in cut_windows(image, frame)]

    def encode(self, batch: ModelInput) -> Tokens:
        image = batch.tensors["image"].double()
        parts = [torch.full((len(image), 1, image.shape[1]), torch.nan)]
        grids = []
        for patch in self.patches:
            cells = avg_pool2d(image, patch)
            parts.append(cells.flatten(2).mT.float())
            grids.append(TokenGrid(f"{patch}px", cells.shape[2], cells.shape[3]))
        return Tokens(torch.cat(parts, dim=1), TokenLayout(tuple(grids), prefix=1))


class MergingEcho(EchoEmbedder):
    """Several grids, joined channel by channel."""

    patches = (8, 16)

    readout = Readout(CARD.dim, {"8px": ("s2",), "16px": ("s2",)}, merge="concat")


class RectangularEcho(EchoEmbedder):
    """Windows of any shape."""

    square = False


def echo(kind: type[EchoEmbedder] = EchoEmbedder) -> EchoEmbedder:
    """An echo ready to run."""
    request = ModelRequest(CARD, ModelKnobs.read(), ((CARD.modalities[0], SENSOR),))
    return kind(request, torch.device("cpu"), NetworkCache())
