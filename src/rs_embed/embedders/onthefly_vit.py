"""Plain vision transformers: one standardised image in, a class token and one token per patch out."""

from collections.abc import Mapping
from functools import cached_property
from typing import cast

from pydantic import JsonValue

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.cards.ssl4eo import ViTKnobs
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import to_image, unscaled, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.tokens import Tokens
from rs_embed.encoders.vit import ViTEncoder
from rs_embed.errors import SpecError

IMAGE = "image"


class ViTEmbedder(Embedder):
    """A plain vision transformer for images of one size; families with another patch embedding override `build`."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder; the heads of the training in the same file are not loaded."""
        return build_network(lambda: ViTEncoder(**request.card.arch), request, settings, Layout())

    @property
    def _knobs(self) -> ViTKnobs:
        return cast("ViTKnobs", self.request.knobs)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    def geometry(self) -> InputGeometry:
        """Accept square windows of one size."""
        modality = self.request.inputs[0][0]
        return InputGeometry(modality.image_px, modality.image_px, square=True, patch_px=modality.patch_px)

    def check(self, output: OutputSpec) -> None:
        """Check modality, layers and pooling.

        Raises:
            SpecError: Several modalities are requested, a layer does not exist, or a class token is to be pooled.
        """
        check_one(self.request)
        check_pooling(self.readout, output)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise and cut the image."""
        modality, sensor = self.request.inputs[0]
        plain = self._knobs.normalize == "none"
        scaling = unscaled(modality, sensor) if plain else z_score(modality, sensor, clamp_sigma=None)
        image = to_image(chips[modality.name], modality, sensor, scaling)
        return [ModelInput({IMAGE: cut}) for cut in cut_windows(image, frame)]

    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network."""
        tokens: Tokens = self.network.module(batch.tensors[IMAGE], self._layers)
        return tokens

    @cached_property
    def readout(self) -> Readout:
        """One grid of patch tokens, with several layers concatenated; the vector is their mean or the class token."""
        parts = len(self._layers)
        own = "class_token" if self._knobs.pooled == "class" else None
        return Readout(self.request.card.dim * parts, parts=parts, own_vector=own)

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize

    def facts(self) -> dict[str, JsonValue]:
        """Return the layers."""
        return {"layers": list(self._layers)}


def check_one(request: ModelRequest) -> None:
    """Refuse several modalities.

    Raises:
        SpecError: Several modalities are requested.
    """
    names = request.modality_names
    if len(names) > 1:
        raise SpecError(
            f"Expected one modality for {request.card.id}, got {' + '.join(names)}.", fix=f"set modality={names[0]!r}"
        )


def check_pooling(readout: Readout, output: OutputSpec) -> None:
    """Refuse to pool a vector that is a token of its own.

    Raises:
        SpecError: A maximum is requested of a vector that is a token.
    """
    if output.kind == "pooled" and output.pooling != "mean" and readout.own_vector is not None:
        raise SpecError(
            f"Expected mean pooling, got {output.pooling!r}: the vector is the {readout.own_vector}.",
            fix='set pooled="patch" to pool patches',
        )
