"""The seam between the pipeline and a model: chips go in, tokens come out.

An adapter has four methods. It neither fetches, nor batches, nor pools, nor reads the environment.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Literal

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from rs_embed.core.chip import Chip
from rs_embed.core.settings import LibrarySettings, ModelKnobs, PlaceKnobs, WeightsKnobs
from rs_embed.core.specs import OutputSpec, SensorSpec, WorkingPrecision
from rs_embed.core.stopping import PerProcess
from rs_embed.embedders.card import Modality, ModelCard
from rs_embed.embedders.prepare.framing import Frame, InputGeometry
from rs_embed.embedders.runtime.device import brought_back
from rs_embed.embedders.runtime.kept import KeptNetworks
from rs_embed.encoders.kernels.linear import Kernels, Linear, packs, using
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import BandMismatch

Merge = Literal["mean", "max", "sum", "concat"]


@dataclass(frozen=True)
class ModelRequest:
    """What every item of one call has in common."""

    card: ModelCard
    knobs: ModelKnobs
    inputs: tuple[tuple[Modality, SensorSpec], ...]
    """What is fed to the model, in order, and what is fetched for it."""
    precision: WorkingPrecision = "fp32"
    places: tuple[str, ...] = ()
    """What the model is told about the place beside imagery: some of the card's `place_modalities`."""
    output: OutputSpec = field(default_factory=OutputSpec)
    best_effort: bool = False
    """Whether nobody named the inputs: of the card's default, what the backend does not offer may be missing."""

    def __post_init__(self) -> None:
        for modality, sensor in self.inputs:
            for band in modality.derived:
                missing = [name for name in band.of if name not in sensor.bands]
                if missing:
                    raise BandMismatch(
                        f"Expected {', '.join(missing)} among the bands of {modality.name}, got none: {band.name} is "
                        "computed from it.",
                        found=", ".join(sensor.bands),
                        fix="leave `bands` and `sensor` out, or add what lacks",
                    )

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Everything that the model is fed."""
        return (*(modality.name for modality, _ in self.inputs), *self.places)

    def may_lack(self, modality: Modality) -> bool:
        """Whether it does not matter that the backend does not offer a modality at all."""
        return self.best_effort and modality.optional

    @property
    def dense(self) -> bool:
        """Whether tokens finer than a patch are wanted."""
        return self.output.kind == "grid" and self.output.detail == "dense"

    @property
    def scale_m(self) -> float:
        """Pixel size of the shared grid: the finest of the inputs, as far as they are not subdivisions of it.

        Of a model that is told the place alone, the side of a cell.
        """
        if isinstance(self.knobs, PlaceKnobs):
            return self.knobs.cell_m
        return min(sensor.scale_m * modality.grid_px for modality, sensor in self.inputs)


@dataclass(frozen=True)
class ModelInput:
    """One network input, or a stacked batch of them."""

    tensors: Mapping[str, Tensor]
    """Without a batch axis for one input, with it for a batch."""
    ground_cover_m: float = 0.0
    """Side of the ground that the model is told the input covers."""

    @property
    def signature(self) -> tuple[object, ...]:
        """Inputs of equal signature can be stacked."""
        return (self.ground_cover_m, *((name, tuple(t.shape)) for name, t in sorted(self.tensors.items())))

    @classmethod
    def stack(cls, inputs: Sequence["ModelInput"]) -> "ModelInput":
        """A batch of inputs of one signature, where the first of them is."""
        first = inputs[0]
        tensors = {
            name: torch.stack([one.tensors[name].to(like.device) for one in inputs])
            for name, like in first.tensors.items()
        }
        return cls(tensors, first.ground_cover_m)

    def to(self, device: torch.device) -> "ModelInput":
        """The same input on another device."""
        if all(t.device == device for t in self.tensors.values()):
            return self
        return ModelInput({name: t.to(device) for name, t in self.tensors.items()}, self.ground_cover_m)


@dataclass(frozen=True)
class Network:
    """An encoder with its weights, ready to run. Shared by every call that needs the same."""

    module: nn.Module
    weights_id: str
    """Identity of the numbers: hub or file with sha256, `random:<seed>`, `bundled:...`, `precomputed:...`."""
    note: str | None = None
    """For the metadata: that weights are random, or what their file holds beside them and in which precision."""
    kernels: Kernels = "auto"
    """Whose matrix products it computes with, as `RS_EMBED_KERNELS` said when it was loaded."""
    lock: PerProcess[threading.Lock] = field(default_factory=lambda: PerProcess(threading.Lock), compare=False)
    """One batch at a time: an encoder may hold its weights in the precision of the batch that it works on."""


@dataclass(frozen=True)
class Readout:
    """How the tokens of a request become a vector or a grid."""

    dim: int
    """Length of a token."""
    grids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of each token grid -> modalities whose pixels its tokens are made of, before tokens attend to each other.
    A grid that is not named is made of all of them."""
    grid_kind: str = "patch_tokens"
    """What the metadata call the grid."""
    merge: Merge = "mean"
    """How several token grids become one."""
    parts: int = 1
    """How many outputs, such as layers, stand side by side in a token."""
    pools_merged: bool = False
    """Whether a vector is made of the merged grid, not of all tokens alike."""
    pools_prefix: bool = False
    """Whether tokens that lie on no grid count in a pooled vector."""
    own_vector: str | None = None
    """Name of the encoder's first prefix token, if that is the vector; `None`: tokens are pooled."""
    weighted: bool = False
    """Whether the last number of a token is how much it counts in the mean that a vector is."""
    keeps_nodata: bool = False
    """Whether a token of NaN is nodata: it stays in a grid and does not count in a vector."""
    unit_length: bool = False
    """Whether a pooled vector is brought to length 1."""
    placed: bool = True
    """Whether tokens carry their place in the window: not those that are encoded alone, or that a convolution makes."""

    def width(self, output: OutputSpec) -> int:
        """How many numbers a vector, or a cell of a grid, has."""
        apart = self.merge == "concat" and (output.kind == "grid" or self.pools_merged)
        return self.dim * (max(1, len(self.grids)) if apart else 1)


class Embedder(ABC):
    """One model, set up for one request."""

    def __init__(self, request: ModelRequest, device: torch.device, cache: "NetworkCache") -> None:
        self.request = request
        self.device = device
        self._cache = cache

    @cached_property
    def network(self) -> Network:
        """The encoder, loaded on first use: everything that can be checked without it is checked before."""
        return self._cache.get(type(self), self.request, self.device)

    @staticmethod
    @abstractmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder. Called once per weights, places and device; must not depend on other knobs."""

    @abstractmethod
    def geometry(self) -> InputGeometry:
        """Size and lattice of the network's input.

        Raises:
            SpecError: Image size, patch size and pixel size do not fit together.
        """

    def check(self, output: OutputSpec) -> None:  # noqa: B027  (most models have every output)
        """Refuse what cannot work, before anything is fetched or loaded.

        Raises:
            RSEmbedError: The model has no such output with these knobs, or something that it needs is not there.
        """

    def load(self) -> None:
        """Load everything whose lack must not cost a fetch."""
        self.network  # noqa: B018

    @abstractmethod
    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Chips of one place to network inputs, one per window of the frame.

        An optional modality that the place lacks is not among the chips: what the network gets in its stead, and by
        which mask it is told, is for the adapter to say.

        A model that is told the place alone gets, by the name of what it is told, a chip without bands: the cells.

        Pixels come to the device in force by `placed`; small tensors may stay on the CPU until the batch is run.
        """

    @abstractmethod
    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network. Called under inference mode, on `self.device`, in the request's precision."""

    @cached_property
    def readout(self) -> Readout:
        """How tokens become a vector or a grid. By default patch tokens on one grid, and their mean."""
        return Readout(self.request.card.dim)

    def windows(self, frame: Frame) -> Frame:
        """The windows that tokens see each other in: those of the frame, unless the adapter cuts them itself."""
        return frame

    @property
    def cell_px(self) -> int:
        """Side of a cell of the grid that comes out, in pixels of the shared grid."""
        return self.geometry().patch_px

    @property
    def normalization(self) -> str:
        """Name of the normalisation in force."""
        return "card_stats"

    def knobs_in_force(self) -> dict[str, JsonValue]:
        """Every knob with the value that it has for this request."""
        return {**self.request.knobs.model_dump(mode="json"), "modality": "+".join(self.request.modality_names)}

    @property
    def kernels(self) -> Literal["packed", "torch"]:
        """Whose matrix products the network computes with: oneDNN's with packed weights, or torch's own choice."""
        dtype = torch.bfloat16 if self.request.precision == "bf16" else torch.float32
        with torch.no_grad(), using(self.network.kernels):
            quick = packs(dtype, self.device.type)
        return (
            "packed" if quick and any(isinstance(part, Linear) for part in self.network.module.modules()) else "torch"
        )

    def facts(self) -> dict[str, JsonValue]:
        """What only this family tells in the metadata."""
        return {}

    def facts_of(self, given: ModelInput) -> dict[str, JsonValue]:
        """What it tells there of one place.

        Args:
            given: The first of its inputs.
        """
        return {}

    def run(self, batch: ModelInput) -> Tokens:
        """`encode` with device, precision and gradients taken care of; tokens come back in float32 on the CPU."""
        with (
            self.network.lock.here,
            using(self.network.kernels),
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.request.precision == "bf16"),
        ):
            tokens = self.encode(batch.to(self.device))
        return Tokens(brought_back(tokens.values), tokens.layout)


class NetworkCache:
    """The last few networks, so that a second call pays nothing for loading. Thread-safe."""

    def __init__(self, size: int = 2) -> None:
        self._kept: KeptNetworks[Network] = KeptNetworks(size)

    def get(self, embedder: type[Embedder], request: ModelRequest, device: torch.device) -> Network:
        """The network of a request, loaded at most once for equal cards and equal knobs about weights."""
        card, own = request.card, set(WeightsKnobs.model_fields) - set(ModelKnobs.model_fields)
        weights_knobs = tuple(request.knobs.model_dump(include=own).items())
        facts = card.id, card.weights, tuple(card.arch.items())
        key = (embedder, *facts, request.places, weights_knobs, _stamp(request.knobs), device)
        return self._kept.get(key, lambda: _loaded(embedder, request, device))


_NETWORKS = NetworkCache()


def embedder_for(request: ModelRequest, device: torch.device) -> Embedder:
    """The adapter that the card of a request names; its network is one of those that the process keeps."""
    adapter = request.card.adapter
    if isinstance(adapter, str):
        module, name = adapter.split(":")
        adapter = vars(import_module(module))[name]
    return adapter(request, device, _NETWORKS)


def _loaded(embedder: type[Embedder], request: ModelRequest, device: torch.device) -> Network:
    network = embedder.build(request, LibrarySettings.read())
    network.module.to(device)
    return network


def _stamp(knobs: ModelKnobs) -> tuple[int, int] | None:
    """Size and time of an explicit checkpoint, so that a file that was replaced is read again."""
    if not isinstance(knobs, WeightsKnobs) or knobs.ckpt is None or not knobs.ckpt.is_file():
        return None
    status = knobs.ckpt.stat()
    return status.st_size, status.st_mtime_ns
