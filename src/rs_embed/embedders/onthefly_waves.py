"""Models that take any bands by their wavelengths: Clay v1.5, DOFA and Copernicus-FM."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from datetime import date, datetime
from functools import cached_property
from typing import cast, final

import torch
from pydantic import JsonValue
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.clay import Clay15Knobs
from rs_embed.embedders.cards.waves import WaveKnobs
from rs_embed.embedders.onthefly_terratorch import LOCATION_CODES, TIME_CODES
from rs_embed.embedders.onthefly_vit import check_one, check_pooling
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, centre_of, cut_windows
from rs_embed.embedders.prepare.normalize import Scaling, limited, to_image, unscaled, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.clay import ClayEncoder
from rs_embed.encoders.copernicusfm import CopernicusEncoder
from rs_embed.encoders.dofa import PADDING_PX, DofaEncoder
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.tokens import Tokens
from rs_embed.encoders.waves import Wave
from rs_embed.errors import BandMismatch

IMAGE, DATE, PLACE = "image", "date", "place"
EPOCH = date(1970, 1, 1)


class WaveEmbedder(Embedder):
    """What the three families share: one image of any bands with known wavelengths, and perhaps its date and place."""

    any_size: bool = True
    """Whether the network takes any number of patches; else images have the size of the card."""
    padding_px: int = 0
    """Padding of the patch convolution, pixels."""
    needs_width: bool = False
    """Whether bands need a bandwidth, too."""

    @property
    def _knobs(self) -> WaveKnobs:
        return cast("WaveKnobs", self.request.knobs)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    @cached_property
    def waves(self) -> tuple[Wave, ...]:
        """The spectrum of each band, in their order.

        Raises:
            BandMismatch: The card has no wavelength for a band.
        """
        modality, sensor = self.request.inputs[0]
        waves = []
        for band in sensor.bands:
            stats = modality.stats[band]
            if stats.wavelength_um is None or (self.needs_width and stats.bandwidth_um is None):
                field = "wavelength_um" if stats.wavelength_um is None else "bandwidth_um"
                raise BandMismatch(
                    f"Expected {field} of {band} for {self.request.card.id}, got none.",
                    fix=f"pass BandStats(..., {field}=...) in micrometres for each band of {modality.name}",
                )
            waves.append(Wave(stats.wavelength_um, stats.bandwidth_um))
        return tuple(waves)

    def geometry(self) -> InputGeometry:
        """Accept squares of whole patches, or of one size; patches begin as far before the image as it is padded."""
        modality = self.request.inputs[0][0]
        lattice_px = modality.patch_px if self.any_size else modality.image_px
        return InputGeometry(
            modality.image_px, lattice_px, square=True, patch_px=modality.patch_px, token_shift_px=self.padding_px
        )

    def check(self, output: OutputSpec) -> None:
        """Check modality, wavelengths, layers and pooling.

        Raises:
            SpecError: Several modalities are requested, a layer does not exist, or the vector is a token and cannot be
                pooled otherwise.
            BandMismatch: The card has no wavelength for a band.
        """
        check_one(self.request)
        self.waves  # noqa: B018
        check_pooling(self.readout, output)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise and cut the image; add what the network is told of date and place."""
        modality, sensor = self.request.inputs[0]
        chip = chips[modality.name]
        image = to_image(chip, modality, sensor, self._scaling(modality, sensor))
        if self._knobs.normalize != "none":
            image = limited(image, None, _brightest(modality, sensor), modality.name)
        when = chip.times[0] if self._knobs.metadata else None
        geobox = chip.geobox if self._knobs.metadata else None
        cover_m = self.request.scale_m * frame.zoom * frame.input_px[1]
        inputs = []
        for cut, window in zip(cut_windows(image, frame), frame.windows, strict=True):
            place = None if geobox is None else centre_of(geobox, window)
            inputs.append(ModelInput({IMAGE: cut, **self.told(when, place)}, cover_m))
        return inputs

    def told(self, when: datetime | None, place: tuple[float, float] | None) -> dict[str, Tensor]:
        """Return what the network is told of date and place (longitude, latitude), of which either may be unknown."""
        return {}

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        if self._knobs.normalize == "none":
            return unscaled(modality, sensor)
        return z_score(modality, sensor, clamp_sigma=None)

    @abstractmethod
    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network; see `Embedder.encode`."""

    @cached_property
    def readout(self) -> Readout:
        """One grid of patch tokens, with several layers concatenated."""
        return Readout(self.request.card.dim * len(self._layers), parts=len(self._layers))

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize

    def facts(self) -> dict[str, JsonValue]:
        """Return the wavelengths and the layers."""
        um: list[JsonValue] = [wave.centre_um for wave in self.waves]
        return {"wavelengths_um": um, "layers": list(self._layers)}


@final
class ClayEmbedder(WaveEmbedder):
    """Clay v1.5: is told pixel size, date and place; the vector is its class token."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder; decoder and teacher of the training, which the file also holds, are left out."""
        return build_network(lambda: ClayEncoder(**request.card.arch), request, settings, Layout())

    def told(self, when: datetime | None, place: tuple[float, float] | None) -> dict[str, Tensor]:
        """Return the angles of week and hour, and of latitude and longitude; zeros for what is unknown."""
        unknown = torch.zeros(4, device="cpu")
        return {
            DATE: unknown if when is None else TIME_CODES["week_hour"](when),
            PLACE: unknown if place is None else LOCATION_CODES["angles"](*place),
        }

    def encode(self, batch: ModelInput) -> Tokens:
        """Return the class token, then the patches; only the last block has the final norm."""
        image = batch.tensors[IMAGE]
        return cast("ClayEncoder", self.network.module).forward(
            image,
            self.waves,
            pixel_m=batch.ground_cover_m / image.shape[3],
            time=batch.tensors[DATE],
            place=batch.tensors[PLACE],
            layers=self._layers,
        )

    @cached_property
    def readout(self) -> Readout:
        """The vector is the class token, unless the knob `pooled` selects patches."""
        parts, pooled = len(self._layers), cast("Clay15Knobs", self._knobs).pooled
        own_vector = "class_token" if pooled == "class" else None
        return Readout(self.request.card.dim * parts, parts=parts, own_vector=own_vector)

    def facts_of(self, given: ModelInput) -> dict[str, JsonValue]:
        """Return what the network was told; zeros stand for the rest."""
        return {"told": [name for name in (DATE, PLACE) if given.tensors[name].any()]}


@final
class DofaEmbedder(WaveEmbedder):
    """DOFA v1: is told nothing but the wavelengths."""

    any_size = False
    padding_px = PADDING_PX

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder."""
        return build_network(lambda: DofaEncoder(**request.card.arch), request, settings, Layout())

    def encode(self, batch: ModelInput) -> Tokens:
        """Return the class token, then the patches; no block has a final norm."""
        encoder = cast("DofaEncoder", self.network.module)
        return encoder.forward(batch.tensors[IMAGE], self.waves, layers=self._layers)


@final
class CopernicusFMEmbedder(WaveEmbedder):
    """Copernicus-FM: is told wavelengths and bandwidths, place, day and the ground of a patch."""

    padding_px = PADDING_PX
    needs_width = True

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder; the patch embedding of variables described by a text is left out."""
        return build_network(lambda: CopernicusEncoder(**request.card.arch), request, settings, Layout())

    def told(self, when: datetime | None, place: tuple[float, float] | None) -> dict[str, Tensor]:
        """Return days since 1970-01-01, and longitude and latitude.

        What is unknown is left out. Inputs with other tensors are never stacked, so that a batch is told the same of
        all its places.
        """
        found = {}
        if when is not None:
            found[DATE] = torch.tensor(float((when.date() - EPOCH).days))
        if place is not None:
            found[PLACE] = torch.tensor(place)
        return found

    def encode(self, batch: ModelInput) -> Tokens:
        """Return the class token, then the patches; no block has a final norm."""
        image, patch_px = batch.tensors[IMAGE], self.request.inputs[0][0].patch_px
        patch_km = batch.ground_cover_m / image.shape[3] * patch_px / 1000
        return cast("CopernicusEncoder", self.network.module).forward(
            image,
            self.waves,
            lon_lat=batch.tensors.get(PLACE),
            days=batch.tensors.get(DATE),
            area_km2=image.new_full((len(image),), patch_km**2) if self._knobs.metadata else None,
            layers=self._layers,
        )

    def facts_of(self, given: ModelInput) -> dict[str, JsonValue]:
        """Return what the network was told; learned tokens stand for the rest."""
        told = [name for name in (DATE, PLACE) if name in given.tensors]
        return {"told": [*told, *(["area"] if self._knobs.metadata else [])]}


def _brightest(modality: Modality, sensor: SensorSpec) -> Tensor | None:
    """Return the highest standardised value of each band in training, `[C, 1, 1]`, if any band was clipped."""
    stats = [modality.stats[band] for band in sensor.bands]
    if all(one.highest is None for one in stats):
        return None
    highest = [math.inf if one.highest is None else (one.highest - one.mean) / one.std for one in stats]
    return torch.tensor(highest)[:, None, None]
