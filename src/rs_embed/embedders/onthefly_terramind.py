"""TerraMind: several modalities of one place in one sequence, at their native pixel size."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from typing import cast, final

from pydantic import JsonValue

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings
from rs_embed.core.specs import OutputSpec, SensorSpec
from rs_embed.embedders._coordinates import Coordinates, check_tokenizer, load_coordinates
from rs_embed.embedders.base import Embedder, Merge, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.card import Modality
from rs_embed.embedders.cards.terramind import COORDS_TOKENIZER, TerraMindKnobs
from rs_embed.embedders.imagining.thinking import (
    Thinking,
    build_thinking,
    check_thinking,
    imagined_names,
    sampling_of,
    thinking_facts,
)
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import Scaling, to_image, unscaled, z_score
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.networks import build_network
from rs_embed.encoders.layers import counted_layers
from rs_embed.encoders.terramind.encoder import EMBEDDINGS, TerraMindEncoder, complete_state
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import SpecError

LAYOUT = Layout(containers=EMBEDDINGS, foreign=("register_tokens",))
"""The authors' class has register tokens behind a switch; the published sizes have none."""


@final
class TerraMindEmbedder(Embedder):
    """Patches of 16 x 16 pixels of every modality, merged where they lie on the same ground."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """The encoder of every kind of imagery that the card lists, and of the places asked for, with its weights."""
        names = (*request.card.modality_names, *request.places)
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
        """The encoder; of a model that thinks in modalities, with the embeddings of what it imagines."""
        places = (*self.request.places, *imagined_names(self.request))
        return self._cache.get(type(self), replace(self.request, places=places), self.device)

    @property
    def _knobs(self) -> TerraMindKnobs:
        return cast("TerraMindKnobs", self.request.knobs)

    @property
    def _maps(self) -> list[str]:
        """Everything that lies on a grid: the input, then what is imagined."""
        return [*(modality.name for modality, _ in self.request.inputs), *imagined_names(self.request)]

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return counted_layers(self._knobs.layers, self.request.card.arch["depth"])

    def geometry(self) -> InputGeometry:
        """Windows of whole patches, of any shape; square ones where something is to be imagined.

        Raises:
            SpecError: An image that is no multiple of a patch, or a layer that the network does not have.
        """
        patch_px, image_px = self.request.inputs[0][0].patch_px, self._knobs.img
        if image_px % patch_px:
            raise SpecError(
                f"Expected img as a multiple of {patch_px} px, got {image_px}.",
                fix=f"img={max(1, round(image_px / patch_px)) * patch_px}",
            )
        self._layers  # noqa: B018
        square = self._knobs.tim_modalities is not None
        return InputGeometry(image_px, lattice_px=patch_px, square=square, patch_px=patch_px)

    def check(self, output: OutputSpec) -> None:
        """A grid wants one map, and coordinates a tokenizer.

        Raises:
            SpecError: Unmerged modalities as a grid.
            MissingDependency: A package that these inputs or knobs need is not installed.
            WeightsNotFound: The tokenizer file named is not there.
        """
        check_thinking(self.request)
        if self.request.places:
            check_tokenizer(self._knobs.coords_tokenizer)
        names = self._maps
        if self._knobs.merge_method == "none" and output.kind == "grid" and len(names) > 1:
            raise SpecError(
                f"Expected one grid, got {len(names)}: merge_method='none' leaves {', '.join(names)} unmerged.",
                fix="merge_method='dict' gives each its own channels (Embedding.by_modality); or ask for a vector",
            )

    def load(self) -> None:
        """The tokenizer of the coordinates, too."""
        if self.request.places:
            self._coordinates  # noqa: B018
        super().load()

    @cached_property
    def _coordinates(self) -> Coordinates:
        return load_coordinates(self._knobs.coords_tokenizer, self._knobs.ckpt, COORDS_TOKENIZER)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise each modality with its own statistics; no clipping, as in pre-training."""
        cuts = {
            modality.name: cut_windows(
                to_image(chips[modality.name], modality, sensor, self._scaling(modality, sensor)), frame
            )
            for modality, sensor in self.request.inputs
        }
        geobox = next(iter(chips.values())).geobox
        if geobox is not None:
            cuts |= {name: self._coordinates.ids(geobox, frame.windows) for name in self.request.places}
        return [
            ModelInput({name: windows[number] for name, windows in cuts.items()})
            for number in range(len(frame.windows))
        ]

    def _scaling(self, modality: Modality, sensor: SensorSpec) -> Scaling:
        if self._knobs.normalize == "none":
            return unscaled(modality, sensor)
        return z_score(modality, sensor, clamp_sigma=None)

    def encode(self, batch: ModelInput) -> Tokens:
        """Tokens of the layers asked for, side by side; the final norm belongs to the last block only."""
        module = self.network.module
        tensors = batch.tensors
        if isinstance(module, Thinking):
            tensors, module = module.think(tensors, sampling_of(self._knobs)), module.encoder
        encoder = cast("TerraMindEncoder", module)
        bands = {
            modality.name: tuple(modality.stats[band].model_name for band in sensor.bands)
            for modality, sensor in self.request.inputs
        }
        return encoder.forward(tensors, layers=self._layers, bands=bands)

    @property
    def normalization(self) -> str:
        """The knob."""
        return self._knobs.normalize

    @cached_property
    def readout(self) -> Readout:
        """A grid for each modality; what is imagined is imagined from all that was given.

        A vector is the mean (or maximum) of the merged tokens; unmerged, of all of them alike, those of the coordinates
        too.
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
        """The knob; "dict" is laid out like "concat", and with "none" there is one grid at most."""
        match self._knobs.merge_method:
            case "dict":
                return "concat"
            case "none":
                return "mean"
            case merge:
                return merge

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """A tokenizer counts by its content, not by its path; of imagining, only where something is imagined."""
        tokenizer = self._coordinates.id if self.request.places else None
        knobs = {**super().knobs_in_force(), "coords_tokenizer": tokenizer}
        thinks = self._knobs.tim_modalities is not None
        return {name: value for name, value in knobs.items() if thinks or not name.startswith("tim_")}

    def facts(self) -> dict[str, JsonValue]:
        """How modalities were merged, which layers were taken, and which channels are whose."""
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
