"""Panopticon: the channels of any sensors together, each with its wavelength or its radar id."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast, final

import torch
from pydantic import JsonValue
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.hashing import sha256_of
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.panopticon import PanopticonKnobs
from rs_embed.embedders.onthefly_vit import check_pooling
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import Scaling, to_image, unscaled, z_score
from rs_embed.embedders.statistics import statistics_of
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.panopticon import PanopticonEncoder
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import BandMismatch

IMAGE, CHANNELS = "image", "channels"
POLARISATIONS = ("VV", "VH", "HH", "HV")
ORBITS = (None, "ASCENDING", "DESCENDING")


@final
class PanopticonEmbedder(Embedder):
    """Panopticon: any bands with a wavelength, and radar channels."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder; the token of the training that marks hidden patches is not loaded."""
        return build_network(lambda: PanopticonEncoder(**request.card.arch), request, settings, Layout())

    @property
    def _knobs(self) -> PanopticonKnobs:
        return cast("PanopticonKnobs", self.request.knobs)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    @cached_property
    def _channels(self) -> tuple[int, ...]:
        """The id of each channel, in the order of the inputs."""
        return tuple(
            channel_of(modality, sensor, band) for modality, sensor in self.request.inputs for band in sensor.bands
        )

    def geometry(self) -> InputGeometry:
        """Accept square windows of whole patches, up to the size of the training."""
        modality = self.request.inputs[0][0]
        return InputGeometry(modality.image_px, modality.patch_px, square=True, patch_px=modality.patch_px)

    def check(self, output: OutputSpec) -> None:
        """Check channels, statistics, layers and pooling.

        Raises:
            BandMismatch: A channel has neither a wavelength nor a known polarisation.
            KnobError: A modality has no statistics.
            SpecError: A layer does not exist, or a class token is to be pooled.
        """
        self._channels  # noqa: B018
        for modality, sensor in self.request.inputs:
            self._scaling(modality, sensor)
        check_pooling(self.readout, output)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise the images, and lay their channels one after another."""
        images = [
            to_image(chips[modality.name], modality, sensor, self._scaling(modality, sensor))
            for modality, sensor in self.request.inputs
        ]
        channels = torch.tensor(self._channels, device="cpu")
        return [ModelInput({IMAGE: cut, CHANNELS: channels}) for cut in cut_windows(torch.cat(images), frame)]

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        name = self._knobs.normalize
        if name == "none":
            return unscaled(modality, sensor)
        if name != "card_stats":
            modality = replace(modality, stats=statistics_of(modality, name, {}))
        return z_score(modality, sensor, clamp_sigma=None)

    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network."""
        image: Tensor = batch.tensors[IMAGE]
        tokens: Tokens = self.network.module(image, batch.tensors[CHANNELS], self._layers)
        return tokens

    @cached_property
    def readout(self) -> Readout:
        """One grid of patch tokens, with several layers concatenated; the vector is the class token or their mean."""
        parts = len(self._layers)
        own = "class_token" if self._knobs.pooled == "class" else None
        return Readout(self.request.card.dim * parts, parts=parts, own_vector=own)

    @property
    def normalization(self) -> str:
        """The knob `normalize`; for a file, its name and hash."""
        name = self._knobs.normalize
        return name if name in ("card_stats", "none") else f"{Path(name).name}#sha256:{sha256_of(Path(name))}"

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """Return the knobs, with a file of statistics identified by its content."""
        return {**super().knobs_in_force(), "normalize": self.normalization}

    def facts(self) -> dict[str, JsonValue]:
        """Return the layers, and the wavelength in nanometres or the radar id of each channel."""
        return {"layers": list(self._layers), "channel_ids": list(self._channels)}


def channel_of(modality: Modality, sensor: SensorSpec, band: str) -> int:
    """Return the id of a channel: its wavelength in whole nanometres, or a negative id for radar.

    Raises:
        BandMismatch: The band has neither a wavelength nor a known polarisation.
    """
    wavelength_um = modality.stats[band].wavelength_um
    if wavelength_um is not None:
        return math.floor(round(1000 * wavelength_um, 3))
    if band not in POLARISATIONS:
        raise BandMismatch(
            f"Expected the wavelength of {band} of {modality.name}, got none.",
            fix="set wavelength_um in its BandStats, or name radar channels VV, VH, HH and HV",
        )
    return -1 - POLARISATIONS.index(band) - len(POLARISATIONS) * ORBITS.index(sensor.orbit_pass)
