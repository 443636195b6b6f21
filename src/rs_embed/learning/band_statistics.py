"""The adapter of band statistics: mean and mean square of every band and index over the pixels of a chip.

It runs on the path of every model, so it sees the same chips, the same pixels inside a polygon and the same nodata.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import final

import torch
from torch import nn

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import to_frames, z_score
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens


@final
class BandStatisticsEmbedder(Embedder):
    """Every pixel is a token: its bands and indices and their squares, and for a series, their variance over time."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Return a network that does nothing."""
        return Network(nn.Identity(), "bundled:band statistics")

    def geometry(self) -> InputGeometry:
        """Accept chips of any shape, at native pixel size."""
        image_px = self.request.inputs[0][0].image_px
        return InputGeometry(image_px, lattice_px=1, square=False, patch_px=1, native_only=True)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise bands and add indices; keep nodata."""
        modality, sensor = self.request.inputs[0]
        frames = to_frames(chips[modality.name], modality, sensor, z_score(modality, sensor, clamp_sigma=None))
        mean, square = frames.nanmean(dim=0), frames.square().nanmean(dim=0)
        parts = [mean, square] if not modality.is_series else [mean, square, (square - mean.square()).clamp_min(0)]
        return [ModelInput({"pixels": window}) for window in cut_windows(torch.cat(parts), frame)]

    def encode(self, batch: ModelInput) -> Tokens:
        """Return one token per pixel."""
        pixels = self.network.module(batch.tensors["pixels"])
        height, width = pixels.shape[-2:]
        return Tokens(pixels.flatten(2).mT, TokenLayout((TokenGrid("pixels", height, width),)))

    @property
    def normalization(self) -> str:
        """Name of the source of mean and std."""
        return "card_stats"

    @cached_property
    def readout(self) -> Readout:
        """One grid of pixels, whose mean is the vector."""
        return Readout(self.request.card.dim, keeps_nodata=True, placed=False)
