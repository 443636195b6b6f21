"""The adapter of precomputed embeddings: they are fetched, and only their mean is computed.

It serves products of any dimension. Bands of the unit `component` form vectors of length 1, whose mean is a direction;
bands of any other unit are unconstrained features.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import cast, final

import torch
from torch import Tensor, nn

from rs_embed.core.bands import Unit, bands_of
from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.cards.precomputed import PrecomputedKnobs
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import to_image, unscaled
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import PixelWarning, SpecError, UnitMismatch, warn

LENGTH_TOLERANCE = 0.05
"""Largest deviation of a vector's length from 1. Storage in 8 bits changes it by less than 0.01."""


@final
class PrecomputedEmbedder(Embedder):
    """Precomputed embeddings: every pixel is a token."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Return a network that does nothing, as there is nothing to load."""
        return Network(nn.Identity(), f"precomputed:{request.inputs[0][1].collection}")

    def geometry(self) -> InputGeometry:
        """Accept chips of any shape, at native pixel size."""
        side_px = cast("PrecomputedKnobs", self.request.knobs).img
        return InputGeometry(side_px, lattice_px=1, square=False, patch_px=1, native_only=True)

    @cached_property
    def _unit_length(self) -> bool:
        _, sensor = self.request.inputs[0]
        return all(band.unit == Unit.COMPONENT for band in bands_of(sensor.collection, sensor.bands))

    def check(self, output: OutputSpec) -> None:
        """Refuse max pooling of unit vectors, because the result would not be a direction.

        Raises:
            SpecError: Max pooling of unit vectors is requested.
        """
        if self._unit_length and output.kind == "pooled" and output.pooling != "mean":
            raise SpecError(
                f"Expected the mean direction of unit vectors, got pooling {output.pooling!r}.",
                fix="request OutputSpec.pooled()",
            )

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Return the vectors as they are; a vector with a missing component is nodata."""
        modality, sensor = self.request.inputs[0]
        chip = chips[modality.name]
        image = to_image(chip, modality, sensor, unscaled(modality, sensor))
        if self._unit_length:
            length = image.square().sum(dim=0).sqrt()
            _check_length(length[length.isfinite()], chip)
        if chip.valid_fraction < 1:
            image = torch.where(image.isfinite().all(dim=0), image, torch.nan)
        return [ModelInput({"vectors": window}) for window in cut_windows(image, frame)]

    def encode(self, batch: ModelInput) -> Tokens:
        """Return one token per pixel."""
        vectors = self.network.module(batch.tensors["vectors"])
        height, width = vectors.shape[-2:]
        return Tokens(vectors.flatten(2).mT, TokenLayout((TokenGrid("pixels", height, width),)))

    @property
    def normalization(self) -> str:
        """No normalisation: values are used as they are."""
        return "none"

    @cached_property
    def readout(self) -> Readout:
        """Grid of pixels, and their mean as the vector.

        The mean of unit vectors is scaled to length 1, as in AlphaEarth's own coarser levels.
        """
        return Readout(
            self.request.card.dim, grid_kind="pixels", keeps_nodata=True, unit_length=self._unit_length, placed=False
        )


def _check_length(length: Tensor, chip: Chip) -> None:
    """Refuse vectors that are not of length 1; warn if only some are not.

    Args:
        length: Lengths of the valid vectors, `[N]`.
        chip: The chip, for messages.

    Raises:
        UnitMismatch: At least half of the vectors are not of length 1.
    """
    off = (length - 1).abs() > LENGTH_TOLERANCE
    if 2 * int(off.sum()) >= max(1, len(off)):
        raise UnitMismatch(
            f"Expected vectors of length 1, got {length.min():.3g} to {length.max():.3g}.",
            chip=chip.describe(),
            fix="resample with nearest neighbour only, or divide each vector by its length",
        )
    if bool(off.any()):
        warn(f"{int(off.sum())} of {len(off)} vectors are not of length 1 (down to {length.min():.3g}).", PixelWarning)
