"""The interface between the pipeline and a model: chips go in, tokens come out.

An adapter has four methods. It does not fetch, batch, pool or read the environment.
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
from rs_embed.embedders.licences import Licence, to_accept
from rs_embed.embedders.prepare.framing import Frame, InputGeometry
from rs_embed.embedders.runtime.device import to_host
from rs_embed.embedders.runtime.kept import KeptNetworks
from rs_embed.encoders.kernels.linear import Kernels, Linear, packs, using
from rs_embed.encoders.tokens import Tokens
from rs_embed.errors import BandMismatch

Merge = Literal["mean", "max", "sum", "concat"]


@dataclass(frozen=True)
class ModelRequest:
    """The part of a call that all its items share."""

    card: ModelCard
    knobs: ModelKnobs
    inputs: tuple[tuple[Modality, SensorSpec], ...]
    """The inputs of the model, in order, each with the imagery to fetch for it."""
    precision: WorkingPrecision = "fp32"
    places: tuple[str, ...] = ()
    """Location inputs of the model in addition to imagery: some of the card's `place_modalities`."""
    output: OutputSpec = field(default_factory=OutputSpec)
    best_effort: bool = False
    """Whether the user named no inputs. Optional ones of the card's default that the backend lacks are then left
    out."""

    def __post_init__(self) -> None:
        for modality, sensor in self.inputs:
            for band in modality.derived:
                missing = [name for name in band.of if name not in sensor.bands]
                if missing:
                    raise BandMismatch(
                        f"Expected {', '.join(missing)} among the bands of {modality.name}, got none: {band.name} is "
                        "computed from it.",
                        found=", ".join(sensor.bands),
                        fix="leave `bands` and `sensor` out, or add the missing bands",
                    )

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names of all inputs of the model."""
        return (*(modality.name for modality, _ in self.inputs), *self.places)

    def may_lack(self, modality: Modality) -> bool:
        """Return whether the model runs without a modality that the backend does not offer."""
        return self.best_effort and modality.optional

    @property
    def to_accept(self) -> tuple[Licence, ...]:
        """Licences that the user must accept; none for random weights."""
        knobs = self.knobs
        return () if isinstance(knobs, WeightsKnobs) and not knobs.pretrained else to_accept(self.card)

    @property
    def dense(self) -> bool:
        """Whether tokens finer than a patch are requested."""
        return self.output.kind == "grid" and self.output.detail == "dense"

    @property
    def scale_m(self) -> float:
        """Pixel size of the shared grid, metres: the finest of the inputs, not counting subdivisions of the grid.

        For a model that takes only a location, the side of a cell.
        """
        if isinstance(self.knobs, PlaceKnobs):
            return self.knobs.cell_m
        return min(sensor.scale_m * modality.grid_px for modality, sensor in self.inputs)


@dataclass(frozen=True)
class ModelInput:
    """One network input, or a stacked batch of them."""

    tensors: Mapping[str, Tensor]
    """Tensors by name; with a leading batch axis if this is a batch."""
    ground_cover_m: float = 0.0
    """Side of the square that the input covers, metres, as passed to the model."""

    @property
    def signature(self) -> tuple[object, ...]:
        """Key of inputs that can be stacked: those with equal signatures."""
        return (self.ground_cover_m, *((name, tuple(t.shape)) for name, t in sorted(self.tensors.items())))

    @classmethod
    def stack(cls, inputs: Sequence["ModelInput"]) -> "ModelInput":
        """Stack inputs of equal signature into a batch, on the device of the first."""
        first = inputs[0]
        tensors = {
            name: torch.stack([one.tensors[name].to(like.device) for one in inputs])
            for name, like in first.tensors.items()
        }
        return cls(tensors, first.ground_cover_m)

    def to(self, device: torch.device) -> "ModelInput":
        """Return the input on another device."""
        if all(t.device == device for t in self.tensors.values()):
            return self
        return ModelInput({name: t.to(device) for name, t in self.tensors.items()}, self.ground_cover_m)


@dataclass(frozen=True)
class Network:
    """An encoder with its weights, ready to run. Calls that need the same network share it."""

    module: nn.Module
    weights_id: str
    """Identity of the weights: the hub or file with its sha256, `random:<seed>`, `bundled:...`, `precomputed:...`."""
    note: str | None = None
    """A remark for the metadata: that the weights are random, what else their file contains, or its precision."""
    kernels: Kernels = "auto"
    """Implementation of its matrix products: the value of `RS_EMBED_KERNELS` when it was loaded."""
    lock: PerProcess[threading.Lock] = field(default_factory=lambda: PerProcess(threading.Lock), compare=False)
    """Allows one batch at a time, because an encoder may convert its weights to the precision of the batch."""


@dataclass(frozen=True)
class Readout:
    """How the tokens of a request become a vector or a grid."""

    dim: int
    """Length of a token."""
    grids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of each token grid -> modalities whose pixels form its tokens before attention. A grid that is not listed
    uses all modalities."""
    grid_kind: str = "patch_tokens"
    """Name of the grid's tokens in the metadata."""
    merge: Merge = "mean"
    """How several token grids are merged into one."""
    parts: int = 1
    """Number of outputs, such as layers, concatenated in a token."""
    pools_merged: bool = False
    """Whether a vector is pooled from the merged grid instead of from all tokens with equal weights."""
    pools_prefix: bool = False
    """Whether prefix tokens, which lie on no grid, count in a pooled vector."""
    own_vector: str | None = None
    """Name of the encoder's first prefix token, if it is the vector; `None` if tokens are pooled."""
    weighted: bool = False
    """Whether the last channel of a token is its weight in the pooled mean."""
    keeps_nodata: bool = False
    """Whether NaN tokens are nodata, which stay in a grid and do not count in a vector."""
    unit_length: bool = False
    """Whether a pooled vector is normalised to length 1."""
    placed: bool = True
    """Whether tokens depend on their position in the window. Tokens that are encoded on their own or computed by a
    convolution do not."""

    def width(self, output: OutputSpec) -> int:
        """Return the number of channels of a vector or of a cell of a grid."""
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
        """The encoder, loaded on first use, after all checks that do not need it."""
        return self._cache.get(type(self), self.request, self.device)

    @staticmethod
    @abstractmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Load the encoder.

        Called once for each combination of weights, location inputs and device. It must not depend on other knobs.

        Raises:
            WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
        """

    @abstractmethod
    def geometry(self) -> InputGeometry:
        """Return the size and token lattice of the network's input.

        Raises:
            SpecError: Image size, patch size and pixel size do not fit together.
        """

    def check(self, output: OutputSpec) -> None:  # noqa: B027  (most models have every output)
        """Check the request before anything is fetched or loaded.

        Raises:
            RSEmbedError: The model cannot produce this output with these knobs, or a requirement is not installed.
        """

    def load(self) -> None:
        """Load everything that may be missing, so that it fails before imagery is fetched."""
        self.network  # noqa: B018

    @abstractmethod
    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Build the network inputs of one place, one per window of the frame.

        Move pixels to the current device with `placed`. Small tensors may stay on the CPU until the batch runs.

        Args:
            chips: Modality -> chip. An optional modality that the place lacks is missing; the adapter decides what the
                network gets instead and how it is masked. A model that takes only a location gets a chip without bands
                for each location input; its geobox holds the cells.
            frame: The windows of the chip.
        """

    @abstractmethod
    def encode(self, batch: ModelInput) -> Tokens:
        """Run the network on a batch.

        Called in inference mode, on `self.device`, and in the precision of the request.

        Returns:
            Tokens `[B, N, D]` with their layout.
        """

    @cached_property
    def readout(self) -> Readout:
        """How tokens become a vector or a grid. The default is one grid of patch tokens, and their mean."""
        return Readout(self.request.card.dim)

    def windows(self, frame: Frame) -> Frame:
        """Return the windows within which tokens attend to each other.

        These are the windows of the frame, unless the adapter splits them further.
        """
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
        """Return every knob with its value for this request."""
        return {**self.request.knobs.model_dump(mode="json"), "modality": "+".join(self.request.modality_names)}

    @property
    def kernels(self) -> Literal["packed", "torch"]:
        """Implementation of the matrix products: "packed" is oneDNN with packed weights, "torch" is torch's choice."""
        dtype = torch.bfloat16 if self.request.precision == "bf16" else torch.float32
        with torch.no_grad(), using(self.network.kernels):
            quick = packs(dtype, self.device.type)
        return (
            "packed" if quick and any(isinstance(part, Linear) for part in self.network.module.modules()) else "torch"
        )

    def facts(self) -> dict[str, JsonValue]:
        """Return metadata that is specific to the model family."""
        return {}

    def facts_of(self, given: ModelInput) -> dict[str, JsonValue]:
        """Return metadata that is specific to the model family and the place.

        Args:
            given: The first network input of the place.
        """
        return {}

    def run(self, batch: ModelInput) -> Tokens:
        """Call `encode` with device, precision and gradients set up; return tokens in float32 on the CPU."""
        with (
            self.network.lock.here,
            using(self.network.kernels),
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.request.precision == "bf16"),
        ):
            tokens = self.encode(batch.to(self.device))
        return Tokens(to_host(tokens.values), tokens.layout)


class NetworkCache:
    """A cache of the most recently used networks, so that a second call does not load them again. Thread-safe."""

    def __init__(self, size: int = 2) -> None:
        self._kept: KeptNetworks[Network] = KeptNetworks(size)

    def get(self, embedder: type[Embedder], request: ModelRequest, device: torch.device) -> Network:
        """Return the network of a request, loaded once for equal cards and equal weights knobs."""
        card, own = request.card, set(WeightsKnobs.model_fields) - set(ModelKnobs.model_fields)
        weights_knobs = tuple(request.knobs.model_dump(include=own).items())
        facts = card.id, card.weights, tuple(card.arch.items())
        key = (embedder, *facts, request.places, weights_knobs, _stamp(request.knobs), device)
        return self._kept.get(key, lambda: _loaded(embedder, request, device))


_NETWORKS = NetworkCache()


def embedder_for(request: ModelRequest, device: torch.device) -> Embedder:
    """Return the adapter that the card names, set up for the request. Its network comes from the process's cache."""
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
    """Return size and modification time of an explicit checkpoint, so that a replaced file is read again."""
    if not isinstance(knobs, WeightsKnobs) or knobs.ckpt is None or not knobs.ckpt.is_file():
        return None
    status = knobs.ckpt.stat()
    return status.st_size, status.st_mtime_ns
