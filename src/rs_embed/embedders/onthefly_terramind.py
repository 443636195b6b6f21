"""TerraMind: several modalities of one place in one sequence, at their native pixel size."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from typing import cast, final

import torch
from pydantic import JsonValue
from torch import Tensor

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders._coordinates import Coordinates, check_tokenizer, load_coordinates
from rs_embed.embedders.base import Embedder, Merge, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.terramind import COORDS_TOKENIZER, MAP_NAMES, TerraMindKnobs
from rs_embed.embedders.cards.terramind_tokens import require_classes
from rs_embed.embedders.imagining.maps import check_maps, load_map_tokenizers, map_names
from rs_embed.embedders.imagining.thinking import (
    Thinking,
    build_thinking,
    check_thinking,
    encoder_names,
    imagined_names,
    sampling_of,
    thinking_facts,
)
from rs_embed.embedders.imagining.tokenizers import Tokenizer
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import Scaling, to_image, unscaled, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.terramind.encoder import EMBEDDINGS, TerraMindEncoder, complete_state
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import SpecError

LAYOUT = Layout(containers=EMBEDDINGS, foreign=("register_tokens",))
"""The authors' class has optional register tokens, which the published sizes do not use."""


@final
class TerraMindEmbedder(Embedder):
    """TerraMind: patches of 16 x 16 pixels of every modality, merged where they cover the same ground."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder for all imagery of the card, and the requested locations and maps."""
        names = encoder_names(request)
        arch, imagined = request.card.arch, imagined_names(request)
        make = partial(
            TerraMindEncoder,
            dim=arch["dim"],
            depth=arch["depth"],
            heads=arch["heads"],
            family="A" if arch["gated"] else "B",
            modalities=names,
        )
        layout = replace(LAYOUT, complete=partial(complete_state, modalities=names))
        if imagined:
            return build_thinking(make, request, settings, layout)
        return build_network(make, request, settings, layout)

    @cached_property
    def network(self) -> Network:
        """The encoder, with embeddings of the ids of maps; for thinking in modalities, also of the generated ones."""
        places = (*self.request.places, *map_names(self.request), *imagined_names(self.request))
        return self._cache.get(type(self), replace(self.request, places=places), self.device)

    @property
    def _knobs(self) -> TerraMindKnobs:
        return cast("TerraMindKnobs", self.request.knobs)

    @property
    def _maps(self) -> list[str]:
        """Names of all modalities on a grid: the inputs, then the generated ones."""
        return [*(modality.name for modality, _ in self.request.inputs), *imagined_names(self.request)]

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    def geometry(self) -> InputGeometry:
        """Accept windows of whole patches, in any shape; square with token ids, as the authors' code accepts no other.

        Raises:
            SpecError: The image size is not a multiple of the patch, or a layer does not exist.
        """
        patch_px, image_px = self.request.inputs[0][0].patch_px, self._knobs.img
        if image_px % patch_px:
            raise SpecError(
                f"Expected img as a multiple of {patch_px} px, got {image_px}.",
                fix=f"set img={max(1, round(image_px / patch_px)) * patch_px}",
            )
        self._layers  # noqa: B018
        square = bool(self._knobs.tim_modalities or map_names(self.request))
        return InputGeometry(image_px, lattice_px=patch_px, square=square, patch_px=patch_px)

    def check(self, output: OutputSpec) -> None:
        """Check merging, generated modalities and the tokenizers of coordinates and maps.

        Raises:
            SpecError: A grid of unmerged modalities is requested, or modalities cannot be generated.
            MissingDependency: A package that these inputs or knobs need is not installed.
            WeightsNotFound: The given tokenizer file does not exist.
        """
        check_thinking(self.request)
        check_maps(self.request)
        if self.request.places:
            check_tokenizer(self._knobs.coords_tokenizer)
        names = self._maps
        if self._knobs.merge_method == "none" and output.kind == "grid" and len(names) > 1:
            raise SpecError(
                f"Expected one grid, got {len(names)}: merge_method='none' leaves {', '.join(names)} unmerged.",
                fix="set merge_method='dict' for separate channels (Embedding.by_modality), or request a vector",
            )

    def load(self) -> None:
        """Load the encoder, and the tokenizers of coordinates and maps if they are needed."""
        if self.request.places:
            self._coordinates  # noqa: B018
        self._tokenizers  # noqa: B018
        super().load()

    @cached_property
    def _coordinates(self) -> Coordinates:
        return load_coordinates(self._knobs.coords_tokenizer, self._knobs.ckpt, COORDS_TOKENIZER)

    @cached_property
    def _tokenizers(self) -> dict[str, Tokenizer]:
        return load_map_tokenizers(self.request, self.device)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise each modality with its own statistics; no clipping, as in pre-training."""
        cuts = {
            modality.name: self._cut(chips[modality.name], modality, sensor, frame)
            for modality, sensor in self.request.inputs
        }
        geobox = next(iter(chips.values())).geobox
        if geobox is not None:
            cuts |= {name: self._coordinates.ids(geobox, frame.windows) for name in self.request.places}
        return [
            ModelInput({name: windows[number] for name, windows in cuts.items()})
            for number in range(len(frame.windows))
        ]

    def _cut(self, chip: Chip, modality: Modality, sensor: SensorSpec, frame: Frame) -> list[Tensor]:
        codes = modality.name == "LULC"
        if codes:
            require_classes(chip.values)
        return cut_windows(to_image(chip, modality, sensor, self._scaling(modality, sensor)), frame, codes=codes)

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        if self._knobs.normalize == "none":
            return unscaled(modality, sensor)
        return z_score(modality, sensor, clamp_sigma=None)

    def encode(self, batch: ModelInput) -> Tokens:
        """Return tokens with the requested layers concatenated; only the last block has the final norm."""
        module = self.network.module
        tensors = {name: self._ids(name, values) for name, values in batch.tensors.items()}
        if isinstance(module, Thinking):
            tensors, module = module.think(tensors, sampling_of(self._knobs)), module.encoder
        encoder = cast("TerraMindEncoder", module)
        bands = {
            modality.name: tuple(modality.stats[band].model_name for band in sensor.bands)
            for modality, sensor in self.request.inputs
            if modality.name not in self._tokenizers
        }
        return encoder.forward(tensors, layers=self._layers, bands=bands)

    def _ids(self, name: str, values: Tensor) -> Tensor:
        """Return the token ids `[batch, row, col]` of a map, other inputs as they are.

        Maps are read one by one, so the rest of the batch has no influence on the ids.
        """
        if name not in self._tokenizers:
            return values
        return torch.stack([self._tokenizers[name].encode(one) for one in values]).to(values.device)

    @property
    def normalization(self) -> str:
        """The knob `normalize`."""
        return self._knobs.normalize

    @cached_property
    def readout(self) -> Readout:
        """One grid per modality; generated modalities depend on all inputs.

        The vector is the mean or maximum of the merged tokens. Without merging, it is that of all tokens, including
        those of the coordinates.
        """
        given = tuple(modality.name for modality, _ in self.request.inputs)
        unmerged = self._knobs.merge_method == "none"
        return Readout(
            self.request.card.dim * len(self._layers),
            {name: (name,) if name in given else given for name in self._maps},
            merge=self._merge,
            parts=len(self._layers),
            pools_merged=not unmerged,
            pools_prefix=unmerged,
        )

    @property
    def _merge(self) -> Merge:
        """The knob `merge_method`: "dict" is laid out like "concat", and "none" allows only one grid."""
        match self._knobs.merge_method:
            case "dict":
                return "concat"
            case "none":
                return "mean"
            case merge:
                return merge

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """Return the knobs, with tokenizers identified by content, and `tim_*` only if modalities are generated."""
        knobs = {
            **super().knobs_in_force(),
            "coords_tokenizer": self._coordinates.id if self.request.places else None,
            **{f"{name.lower()}_tokenizer": None for name in MAP_NAMES},
            **{f"{name.lower()}_tokenizer": one.network.weights_id for name, one in self._tokenizers.items()},
        }
        thinks = self._knobs.tim_modalities is not None
        return {name: value for name, value in knobs.items() if thinks or not name.startswith("tim_")}

    def facts(self) -> dict[str, JsonValue]:
        """Return the merge method, the layers, and the modality of each block of channels."""
        names = self._maps
        whose = names if self._merge == "concat" else ["+".join(names)]
        dim = self.request.card.arch["dim"]
        channels: list[JsonValue] = [
            {"layer": layer, "modality": name, "start": dim * place, "stop": dim * (place + 1)}
            for place, (layer, name) in enumerate(product(self._layers, whose))
        ]
        return {
            "merge_method": self._knobs.merge_method,
            "layers": list(self._layers),
            "channels": channels,
            **thinking_facts(self.request),
        }
