"""Prithvi-EO-2.0: one image or a series of dated images, with date and place for models that take them."""

from collections.abc import Mapping
from functools import cached_property
from typing import cast, final

import torch
from pydantic import JsonValue
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.cards.prithvi import PrithviKnobs
from rs_embed.embedders.onthefly_vit import check_one
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, centre_of, cut_windows
from rs_embed.embedders.prepare.normalize import to_frames, to_image, unscaled, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.prithvi import PrithviEncoder
from rs_embed.encoders.tokens import Tokens

FRAMES, DATES, PLACE = "frames", "dates", "place"
OF_SERIES = ("frames", "temporal_sampling")
"""Knobs without effect on a single image."""


@final
class PrithviEmbedder(Embedder):
    """Prithvi-EO-2.0."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder; the decoder of the pre-training in the same file is not loaded."""
        return build_network(lambda: PrithviEncoder(**request.card.arch), request, settings, Layout())

    @property
    def _knobs(self) -> PrithviKnobs:
        return cast("PrithviKnobs", self.request.knobs)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    def geometry(self) -> InputGeometry:
        """Accept windows of whole patches, of any shape."""
        modality = self.request.inputs[0][0]
        return InputGeometry(modality.image_px, modality.patch_px, square=False, patch_px=modality.patch_px)

    def check(self, output: OutputSpec) -> None:
        """Check modality and layers.

        Raises:
            SpecError: Several modalities are requested, or a layer does not exist.
        """
        check_one(self.request)
        self._layers  # noqa: B018

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise and cut the frames; add dates and place if they are known."""
        modality, sensor = self.request.inputs[0]
        chip = chips[modality.name]
        plain = self._knobs.normalize == "none"
        scaling = unscaled(modality, sensor) if plain else z_score(modality, sensor, clamp_sigma=None)
        series = modality.is_series
        pixels = to_frames(chip, modality, sensor, scaling) if series else to_image(chip, modality, sensor, scaling)
        known: dict[str, Tensor] = {}
        times = [when for when in chip.times if when is not None]
        told = bool(self.request.card.arch["told"]) and self._knobs.metadata
        if told and len(times) == len(chip.times):
            days = [(when.year, when.timetuple().tm_yday) for when in times]
            known[DATES] = torch.tensor(days, dtype=torch.float32)
        found = []
        for window, cut in zip(frame.windows, cut_windows(pixels, frame), strict=True):
            tensors = {FRAMES: cut if series else cut[None], **known}
            if told and chip.geobox is not None:
                lon, lat = centre_of(chip.geobox, window)
                tensors[PLACE] = torch.tensor([lat, lon])
            found.append(ModelInput(tensors))
        return found

    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network."""
        tokens: Tokens = self.network.module(**batch.tensors, layers=self._layers)
        return tokens

    @cached_property
    def readout(self) -> Readout:
        """A grid is the mean of the grids of all frames; several layers are concatenated."""
        parts = len(self._layers)
        return Readout(self.request.card.dim * parts, parts=parts)

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """Return the knobs; those of a series are unset for a single image."""
        series = self.request.inputs[0][0].is_series
        return {
            name: None if name in OF_SERIES and not series else value
            for name, value in super().knobs_in_force().items()
        }

    def facts(self) -> dict[str, JsonValue]:
        """Return the layers."""
        return {"layers": list(self._layers)}
