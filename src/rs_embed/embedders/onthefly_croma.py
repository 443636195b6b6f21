"""CROMA: optical images, radar images or both of one place; each combination has an encoder of its own."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rs_embed.core.bands import Unit, bands_of, convert
from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.croma import OPTICAL, RADAR, CromaKnobs
from rs_embed.embedders.onthefly_vit import check_pooling
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import limited, to_image, unscaled
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.croma import CromaEncoder
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import SpecError

Moments = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Mean and standard deviation of each band, `[C]`."""


@final
class CromaEmbedder(Embedder):
    """CROMA: the optical encoder, the radar encoder, or the joint one if both images are given."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load all three encoders."""
        return build_network(lambda: CromaEncoder(**request.card.arch), request, settings, Layout())

    @property
    def _knobs(self) -> CromaKnobs:
        return cast("CromaKnobs", self.request.knobs)

    def geometry(self) -> InputGeometry:
        """Accept square windows of whole patches, up to the size of the training."""
        modality = self.request.inputs[0][0]
        return InputGeometry(modality.image_px, modality.patch_px, square=True, patch_px=modality.patch_px)

    def check(self, output: OutputSpec) -> None:
        """Check the combination of modalities.

        Raises:
            SpecError: Two modalities are for the same encoder, or a vector that is a token is to be pooled.
        """
        names = self.request.modality_names
        for alike in (OPTICAL, RADAR):
            if set(alike) <= set(names):
                raise SpecError(
                    f"Expected one of {' and '.join(alike)}, which have the same encoder, got both.",
                    fix=f"modality={'+'.join(name for name in names if name != alike[1])!r}",
                )
        check_pooling(self.readout, output)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Scale and cut the images. A chip is scaled as a whole, so that its windows have one scale."""
        cuts = {
            "optical" if modality.name in OPTICAL else "radar": cut_windows(
                self._scaled(chips[modality.name], modality, sensor), frame
            )
            for modality, sensor in self.request.inputs
        }
        return [ModelInput(dict(zip(cuts, window, strict=True))) for window in zip(*cuts.values(), strict=True)]

    def _scaled(self, chip: Chip, modality: Modality, sensor: SensorSpec) -> Tensor:
        """Map two standard deviations below and above the mean to 0 and 1, clip, and round down to 256 levels.

        Source: antofuller/CROMA, README (`normalize`, `use_8_bit`), which takes the mean of a batch of images.
        """
        plain = unscaled(modality, sensor)
        if self._knobs.normalize == "none":
            return to_image(chip, modality, sensor, plain)
        stats = [modality.stats[name] for name in sensor.bands]
        units = [band.unit for band in bands_of(sensor.collection, sensor.bands)]
        if self._knobs.normalize == "image":
            mean, std = moments_of(chip)
            fill = mean
        else:
            mean, std = (np.array([getattr(one, name) for one in stats], np.float32) for name in ("mean", "std"))
            own = zip(mean, stats, units, strict=True)
            fill = np.array([convert(one[None], stat.unit, unit)[0] for one, stat, unit in own], np.float32)
        image = to_image(chip, modality, sensor, replace(plain, fill=fill))
        if self._knobs.normalize == "card_stats" and units[0] is Unit.DB:
            image = torch.pow(10, image / 10)  # the fixed numbers are of linear values
        low, span = (torch.from_numpy(one).to(image)[:, None, None] for one in (mean - 2 * std, 4 * std))
        share = torch.where(span > 0, (image - low) / span, 0.5)
        if self._knobs.normalize == "card_stats":
            share = limited(share, 0, 1, modality.name)  # by its own moments, every image is clipped a little
        return (share * 255).clamp(0, 255).floor() / 255

    def encode(self, batch: ModelInput) -> Tokens:
        """Run the encoder of the images that there are."""
        tokens: Tokens = self.network.module(**batch.tensors)
        return tokens

    @cached_property
    def readout(self) -> Readout:
        """The vector of one sensor is the authors' GAP vector, unless patches are chosen; of both, the mean anyway."""
        alone = len(self.request.inputs) == 1
        return Readout(
            self.request.card.dim, own_vector="gap_vector" if alone and self._knobs.pooled == "gap" else None
        )

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize


def moments_of(chip: Chip) -> Moments:
    """Return the mean and the standard deviation of the valid pixels of each band, `[C]`; 0 without any."""
    means, stds = [], []
    for band in chip.values.swapaxes(0, 1):
        valid = band[np.isfinite(band)].astype(np.float64)
        means.append(valid.mean() if valid.size else 0.0)
        stds.append(valid.std(ddof=1) if valid.size > 1 else 0.0)
    return np.array(means, np.float32), np.array(stds, np.float32)
