"""The adapter of TerraTorch's plain vision transformers, each described by its card alone."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from typing import cast, final

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from rs_embed.core.chip import Chip
from rs_embed.core.optional import require
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.terratorch import (
    EXTRA,
    Backbone,
    LocationCode,
    TerraTorchCard,
    TerraTorchKnobs,
    TimeCode,
)
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, centre_of, cut_windows
from rs_embed.embedders.prepare.normalize import Scaling, to_image, unscaled, z_score
from rs_embed.embedders.runtime.random_numbers import own_random_numbers
from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import RANDOM_NOTE, RANDOM_SEED, load_picked, published_state
from rs_embed.encoders.layers import counted_layers, side_by_side
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens
from rs_embed.errors import SpecError

IMAGE, TIME, LOCATION = "image", "time", "location"


@final
class TerraTorchEmbedder(Embedder):
    """A TerraTorch backbone: takes one image, optionally with date, location and pixel size; returns any block."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Build TerraTorch's module and load the card's file strictly.

        Raises:
            MissingDependency: TerraTorch is not installed.
            WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
        """
        card, found = cast("TerraTorchCard", request.card), published_state(request, settings)
        module = make_module(card)
        if found is None:
            return Network(module, f"random:{RANDOM_SEED}", RANDOM_NOTE)
        file, state = found
        return Network(module, file.id, load_picked(module, file, state, _layout(card.backbone, module)))

    @property
    def _backbone(self) -> Backbone:
        return cast("TerraTorchCard", self.request.card).backbone

    @property
    def _knobs(self) -> TerraTorchKnobs:
        return cast("TerraTorchKnobs", self.request.knobs)

    @property
    def _depth(self) -> int:
        return self.request.card.arch.get("depth", self._backbone.depth)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self._depth)

    def geometry(self) -> InputGeometry:
        """Accept windows of whole patches if the network takes any number of them, else of one size."""
        modality = self.request.inputs[0][0]
        lattice_px = modality.patch_px if self._backbone.any_size else modality.image_px
        square = not self._backbone.any_size
        return InputGeometry(modality.image_px, lattice_px, square=square, patch_px=modality.patch_px)

    def check(self, output: OutputSpec) -> None:
        """Check modality, layers and the extra.

        Raises:
            SpecError: Several modalities are requested, or a layer does not exist.
            MissingDependency: The extra is not installed.
        """
        names = self.request.modality_names
        if len(names) > 1:
            raise SpecError(
                f"Expected one modality for {self.request.card.id}, got {' + '.join(names)}.",
                fix=f"set modality={names[0]!r}",
            )
        self._layers  # noqa: B018
        require("terratorch", EXTRA)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise and cut the image; add date and location if they are known."""
        modality, sensor = self.request.inputs[0]
        chip = chips[modality.name]
        image = to_image(chip, modality, sensor, self._scaling(modality, sensor))
        cuts = cut_windows(image, frame)
        metadata = self._metadata(chip, frame)
        cover_m = self.request.scale_m * frame.zoom * frame.input_px[1]
        return [
            ModelInput({IMAGE: cut, **{name: values[number] for name, values in metadata.items()}}, cover_m)
            for number, cut in enumerate(cuts)
        ]

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        if self._knobs.normalize == "none":
            return unscaled(modality, sensor)
        return z_score(modality, sensor, clamp_sigma=None)

    def _metadata(self, chip: Chip, frame: Frame) -> dict[str, list[Tensor]]:
        """Return date and location of each window. Unknown ones are left out, as they sometimes were in training."""
        found: dict[str, list[Tensor]] = {}
        backbone, when = self._backbone, chip.times[0]
        if backbone.time is not None and when is not None and self._knobs.metadata:
            found[TIME] = [TIME_CODES[backbone.time[1]](when)] * len(frame.windows)
        if backbone.location is not None and chip.geobox is not None and self._knobs.metadata:
            code = LOCATION_CODES[backbone.location[1]]
            found[LOCATION] = [code(*centre_of(chip.geobox, window)) for window in frame.windows]
        return found

    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network; a map is converted to tokens. Outputs have a final norm if TerraTorch applies it."""
        backbone, image = self._backbone, batch.tensors[IMAGE]
        metadata: dict[str, Tensor | float] = {
            keyword[0]: batch.tensors[name]
            for name, keyword in ((TIME, backbone.time), (LOCATION, backbone.location))
            if keyword is not None and name in batch.tensors
        }
        if backbone.gsd is not None:
            metadata[backbone.gsd] = batch.ground_cover_m / image.shape[-1]
        outputs: Sequence[Tensor] = self.network.module(image, **metadata)
        wanted = [outputs[layer - self._depth] for layer in self._layers]
        patch_px = self.request.inputs[0][0].patch_px
        grid = TokenGrid("patch", image.shape[-2] // patch_px, image.shape[-1] // patch_px)
        if wanted[0].ndim == 4:
            return Tokens(side_by_side([one.flatten(2).mT for one in wanted]), TokenLayout((grid,)))
        return Tokens(side_by_side(wanted), TokenLayout((grid,), prefix=backbone.prefix_tokens))

    @cached_property
    def readout(self) -> Readout:
        """One grid of patch tokens, with several layers concatenated."""
        return Readout(self.request.card.dim * len(self._layers), parts=len(self._layers))

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize

    def facts(self) -> dict[str, JsonValue]:
        """Return TerraTorch's version and the layers."""
        return {"terratorch": version("terratorch"), "layers": list(self._layers)}


def make_module(card: TerraTorchCard) -> nn.Module:
    """Build TerraTorch's network, with random values that depend only on the card.

    Raises:
        MissingDependency: TerraTorch is not installed.
    """
    registry = load_terratorch().backbones
    with own_random_numbers(RANDOM_SEED), leaving_no_trace():
        module = registry.build(card.backbone.builder, pretrained=False, **card.backbone.options, **card.arch)
    return module.requires_grad_(False).eval()


def _layout(backbone: Backbone, module: nn.Module) -> Layout:
    """Return the layout of the published file; some tensors are taken from the module itself."""
    own = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if any(re.fullmatch(pattern, name) for pattern in backbone.own)
    }
    return Layout(within=backbone.prepend, complete=lambda tensors: tensors | own)


def _week_hour(when: datetime) -> Tensor:
    """Return angles of week and hour, `[4]`.

    Source: Clay-foundation/model, docs/tutorials/clay-v1-wall-to-wall.ipynb (`normalize_timestamp`).
    """
    return _angles(when.isocalendar().week * 2 * math.pi / 52, when.hour * 2 * math.pi / 24)


def _lat_lon_angles(lon: float, lat: float) -> Tensor:
    """Return angles of latitude and longitude, `[4]`. Source: as `_week_hour` (`normalize_latlon`)."""
    return _angles(math.radians(lat), math.radians(lon))


def _angles(first: float, second: float) -> Tensor:
    return torch.tensor([math.sin(first), math.cos(first), math.sin(second), math.cos(second)])


TIME_CODES: Mapping[TimeCode, Callable[[datetime], Tensor]] = {"week_hour": _week_hour}
LOCATION_CODES: Mapping[LocationCode, Callable[[float, float], Tensor]] = {"angles": _lat_lon_angles}
