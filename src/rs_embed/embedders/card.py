"""The facts of a model, as data: no torch, no imagery, nothing that can fail."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.bands import Unit
from rs_embed.core.display import card, parameters_text, safely
from rs_embed.core.settings import ModelKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from rs_embed.embedders.base import Embedder


@dataclass(frozen=True)
class Weights:
    """Where a checkpoint lives and how to know it again."""

    hub: str
    """Hugging Face repository, `owner/name`."""
    file: str
    """Path inside the repository."""
    licence: str
    revision: str | None = None
    """Commit. `None`: not known when the card was written; then the newest, and Meta records which."""
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return self.hub


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint that a Python package ships beside its code: it is installed, not downloaded, and never imported."""

    package: str
    """What pip calls it."""
    file: str
    """Path inside the installation."""
    licence: str
    sha256: str

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return f"package {self.package}"


@dataclass(frozen=True)
class LocalWeights:
    """A checkpoint that lies on this machine."""

    file: str
    """Its absolute path."""
    licence: str
    sha256: str

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return "file"


@dataclass(frozen=True)
class BandStats:
    """How a model names a band and standardises it."""

    model_name: str
    """The band's name inside the model."""
    unit: Unit
    """Of `mean` and `std`."""
    mean: float
    std: float


Pixels = NDArray[np.float32]
"""`[T, H, W]` of one band, NaN where nodata."""


@dataclass(frozen=True)
class DerivedBand:
    """A channel that is computed from bands of the same chip: NDVI, slope, a ratio of polarisations."""

    name: str
    unit: Unit
    of: tuple[str, ...]
    """The bands that it is computed from, as the collection names them."""
    compute: Callable[[Mapping[str, Pixels], float], Pixels]
    """Of these bands by name, in the units of the collection, and the pixel size in metres. What comes out not finite
    is nodata, which becomes the mean."""


@dataclass(frozen=True)
class Modality:
    """One kind of input: what is fetched by default, and how it is standardised."""

    name: str
    sensor: SensorSpec
    """Default request; its bands are the default channels, in order."""
    stats: Mapping[str, BandStats]
    """Every band of the collection that the model knows -> its name and statistics in the model."""
    image_px: int
    """Side of the network's input, pixels."""
    patch_px: int
    """Side of a patch, in pixels of a band."""
    clip: tuple[float, float] | None = None
    """Values are clipped to this range, in the collection's own unit, before standardising."""
    byte_range: tuple[float, float] | None = None
    """What 0 and 255 stand for in the collection's own unit, if the model takes pictures of bytes, too."""
    native_gsd_m: Mapping[str, float] = field(default_factory=dict)
    """Pixel size per band inside the model, where it is not the model's own default."""
    fixed: bool = False
    """Whether the model takes exactly the bands of `sensor`, in their order, at its pixel size."""
    is_series: bool = False
    """Whether the model takes several dated frames."""
    keeps_empty: bool = False
    """Of a series: whether a window without a valid pixel is a frame of NaN, so that frame `i` is of window `i` in
    every modality and the adapter can mask it. Else it is left out."""
    first_year: int | None = None
    """Of a product of calendar years: the first one there is, and a window must be one of them, whole."""
    derived: tuple[DerivedBand, ...] = ()
    """Channels that follow those of `sensor`; `stats` has them by their names."""
    optional: bool = False
    """Whether the model can do without it where a place lacks it: nothing was acquired there, or nothing is valid. Then
    it is masked, and the metadata say so; one modality at least must be there."""
    grid_px: int = 1
    """How many of its pixels lie along a pixel of the grid that all modalities of a request share."""

    def __post_init__(self) -> None:
        named = (*self.sensor.bands, *(band.name for band in self.derived))
        missing = [name for name in named if name not in self.stats]
        if missing:
            raise SpecError(
                f"Expected statistics of every channel of {self.name}, got none of {', '.join(missing)}.",
                fix="add them to `stats`; mean 0 and std 1 where there are none",
            )


def is_file_id(model_id: str) -> bool:
    """Whether a model is named by a file of its own: a bank of filters (`embedders/banks.py`)."""
    return model_id.endswith(".safetensors")


def lasting_id(model_id: str) -> str:
    """The id as it is written down: a file is found from any folder."""
    return str(Path(model_id).expanduser().absolute()) if is_file_id(model_id) else model_id


Kind = Literal["foundation model", "baseline", "precomputed", "location"]
"""Precomputed: its authors ran it, and what is fetched are embeddings already. Location: it is told where, and shown
nothing, so it has no modalities."""


@dataclass(frozen=True)
class ModelCard:
    """One model of the catalog."""

    id: str
    revision: int
    """Raised whenever the numbers of this model change."""
    kind: Kind
    title: str
    adapter: "str | type[Embedder]"
    """Dotted path, `module:Class`, imported only when the model is used; or the class itself, for a card that need not
    be listed without torch."""
    knobs: type[ModelKnobs]
    arch: Mapping[str, int]
    """Keyword arguments of the encoder."""
    dim: int
    """Length of a pooled vector."""
    parameters_m: float
    """Values in the encoder, millions."""
    weights: Weights | PackagedWeights | LocalWeights | None
    """`None`: in the package, or there are none (`kind="precomputed"`)."""
    modalities: tuple[Modality, ...]
    """The first is the default, unless `default` names others. None: nothing is fetched, and `place_modalities` is all
    that it is told."""
    input_prep: Literal["resize", "crop", "tile"]
    """What `input_prep="auto"` means for this model."""
    licence: str
    citation: str
    model_key: str
    """The authors' own name of the variant."""
    dense: bool = False
    """Whether it has tokens finer than a patch: `OutputSpec.grid(kind="dense")`."""
    default: tuple[str, ...] = ()
    """Modalities that are fed where none is named, if that is not the first alone. Optional ones that the backend does
    not offer at all are then masked, too; to one that the user names, that is an error."""
    place_modalities: tuple[str, ...] = ()
    """What the model can be told about the place beside imagery, such as "Coordinates"; nothing is fetched for it."""
    pooled_is_grid_mean: bool = False
    """Whether the pooled mean equals the mean of the grid."""
    backend: str | None = None
    """The one that has its imagery, which `backend="auto"` then means; `None`: whichever is set up."""
    aliases: tuple[str, ...] = ()
    extra: str | None = None
    """Extra of this package that the model needs."""

    def __repr__(self) -> str:
        inputs = ", ".join(self.modality_names or self.place_modalities)
        size = f"{parameters_text(self.parameters_m)} parameters, " if self.parameters_m else ""
        return f"ModelCard({self.id}, {self.kind}, {size}dim {self.dim}, inputs: {inputs})"

    def _repr_html_(self) -> str:
        return safely(self, _html)

    def modality(self, name: str) -> Modality:
        """The modality of that name (the caller has checked that it exists)."""
        return next(modality for modality in self.modalities if modality.name == name)

    @property
    def default_names(self) -> tuple[str, ...]:
        """What is fed where nothing is named."""
        return self.default or (self.modality_names or self.place_modalities)[:1]

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names of all modalities, default first."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def default_backend(self) -> str:
        """What `backend="auto"` means: the one that the card names, "auto", or "none" where nothing is fetched."""
        return (self.backend or "auto") if self.modalities else "none"


def _html(model: ModelCard) -> str:
    """What a notebook shows."""
    facts = {
        "Id": model.id,
        "Aliases": ", ".join(model.aliases),
        "Parameters": parameters_text(model.parameters_m),
        "Dimensions": f"{model.dim:,}",
        "Inputs": ", ".join((*model.modality_names, *model.place_modalities)),
        "Weights": model.weights.source if model.weights else "none" if model.kind == "precomputed" else "bundled",
        "Licence": model.licence,
        "Citation": model.citation,
    }
    return card(model.title, model.kind, facts)


def auto_backend(cards: Iterable[ModelCard]) -> str:
    """What `backend="auto"` means for these models: the backend that their cards name, or "auto".

    Those that need no imagery go with any.

    Raises:
        SpecError: They name different ones.
    """
    named = {card.id: card.default_backend for card in cards if card.modalities}
    if len(set(named.values())) > 1:
        raise SpecError(
            "Expected models of one backend, got several.", **named, fix="name the backend, or ask for them one by one"
        )
    return next(iter(named.values()), "auto")
