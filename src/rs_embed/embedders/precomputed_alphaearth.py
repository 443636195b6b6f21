"""AlphaEarth: what is fetched are embeddings already, so nothing is computed but their mean."""

from collections.abc import Mapping
from functools import cached_property
from typing import cast, final

import torch
from torch import Tensor, nn

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.cards.alphaearth import AlphaEarthKnobs
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import to_image, unscaled
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import PixelWarning, SpecError, UnitMismatch, warn

LENGTH_TOLERANCE = 0.05
"""How far from 1 the length of a vector may be. 8 bits move it by less than 0.01."""


@final
class AlphaEarthEmbedder(Embedder):
    """Every pixel is a token: 64 numbers of length 1."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Nothing to load."""
        return Network(nn.Identity(), f"precomputed:{request.inputs[0][1].collection}")

    def geometry(self) -> InputGeometry:
        """Pixels of any number, at their own size."""
        side_px = cast("AlphaEarthKnobs", self.request.knobs).img
        return InputGeometry(side_px, lattice_px=1, square=False, patch_px=1, native_only=True)

    def check(self, output: OutputSpec) -> None:
        """Refuse a maximum: the largest of each number is no direction.

        Raises:
            SpecError: It was asked for.
        """
        if output.kind == "pooled" and output.pooling != "mean":
            raise SpecError(
                f"Expected the mean direction of unit vectors, got pooling {output.pooling!r}.",
                fix="OutputSpec.pooled()",
            )

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """The vectors as they are; one that lacks a number is nodata."""
        modality, sensor = self.request.inputs[0]
        chip = chips[modality.name]
        image = to_image(chip, modality, sensor, unscaled(modality, sensor))
        length = image.square().sum(dim=0).sqrt()
        _check_length(length[length.isfinite()], chip)
        if chip.valid_fraction < 1:
            image = torch.where(length.isfinite(), image, torch.nan)
        return [ModelInput({"vectors": window}) for window in cut_windows(image, frame)]

    def encode(self, batch: ModelInput) -> Tokens:
        """One token a pixel."""
        vectors = self.network.module(batch.tensors["vectors"])
        height, width = vectors.shape[-2:]
        return Tokens(vectors.flatten(2).mT, TokenLayout((TokenGrid("pixels", height, width),)))

    @property
    def normalization(self) -> str:
        """None: the numbers are taken as they are."""
        return "none"

    @cached_property
    def readout(self) -> Readout:
        """Pixels; a vector is made as the product's own coarser levels are: the mean, brought to length 1."""
        return Readout(self.request.card.dim, grid_kind="pixels", keeps_nodata=True, unit_length=True)


def _check_length(length: Tensor, chip: Chip) -> None:
    """Refuse what are no unit vectors; warn where some are not.

    Args:
        length: `[N]`, of the valid vectors.

    Raises:
        UnitMismatch: Half of them or more are longer or shorter than 1.
    """
    off = (length - 1).abs() > LENGTH_TOLERANCE
    if 2 * int(off.sum()) >= max(1, len(off)):
        raise UnitMismatch(
            f"Expected vectors of length 1, got {length.min():.3g} to {length.max():.3g}.",
            chip=chip.describe(),
            fix="resample them by nearest neighbour only, or divide each by its length",
        )
    if bool(off.any()):
        warn(f"{int(off.sum())} of {len(off)} vectors are not of length 1 (down to {length.min():.3g}).", PixelWarning)
