"""The facts of a model as data. This module needs neither torch nor imagery."""

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
    """A checkpoint on the Hugging Face hub, and the facts that identify it."""

    hub: str
    """Hugging Face repository, `owner/name`."""
    file: str
    """Path inside the repository."""
    licence: str
    revision: str | None = None
    """Commit. `None` if unknown when the card was written; the newest is then used, and `Meta` records which."""
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def source(self) -> str:
        """Where the checkpoint comes from, for display."""
        return self.hub


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint that a Python package ships with its code. The package must be installed and is never imported."""

    package: str
    """Name of the distribution, as passed to pip."""
    file: str
    """Path inside the installation."""
    licence: str
    sha256: str

    @property
    def source(self) -> str:
        """Where the checkpoint comes from, for display."""
        return f"package {self.package}"


@dataclass(frozen=True)
class LocalWeights:
    """A checkpoint on this machine."""

    file: str
    """Absolute path of the file."""
    licence: str
    sha256: str

    @property
    def source(self) -> str:
        """Where the checkpoint comes from, for display."""
        return "file"


@dataclass(frozen=True)
class BandStats:
    """A model's name for a band, and the statistics by which it standardises the band."""

    model_name: str
    """The model's name for the band."""
    unit: Unit
    """Unit of `mean` and `std`."""
    mean: float
    std: float
    wavelength_um: float | None = None
    """Central wavelength that the model is told, micrometres, for models that take any band by its wavelength."""
    bandwidth_um: float | None = None
    """Bandwidth that the model is told, micrometres."""
    highest: float | None = None
    """Value at which the training data were clipped, in `unit`, if they were."""


Pixels = NDArray[np.float32]
"""Pixels of one band, `[T, H, W]`; NaN is nodata."""


@dataclass(frozen=True)
class DerivedBand:
    """A channel computed from bands of the same chip, such as NDVI, slope or a ratio of polarisations."""

    name: str
    unit: Unit
    of: tuple[str, ...]
    """The source bands, by their names in the collection."""
    compute: Callable[[Mapping[str, Pixels], float], Pixels]
    """Function of the source bands by name, in the units of the collection, and the pixel size in metres. Results that
    are not finite are nodata, which is replaced by the mean."""


@dataclass(frozen=True)
class Modality:
    """One kind of input: the imagery to fetch by default, and how it is standardised."""

    name: str
    sensor: SensorSpec
    """The default imagery; its bands are the default channels, in order."""
    stats: Mapping[str, BandStats]
    """Every band of the collection that the model knows -> the model's name and statistics for it."""
    image_px: int
    """Side of the network's input, pixels."""
    patch_px: int
    """Side of a patch, in pixels of a band."""
    clip: tuple[float, float] | None = None
    """Values are clipped to this range, in the collection's own unit, before standardising."""
    byte_range: tuple[float, float] | None = None
    """The values of bytes 0 and 255 in the collection's own unit, if the model also takes 8-bit pictures."""
    native_gsd_m: Mapping[str, float] = field(default_factory=dict)
    """Band -> pixel size inside the model, metres, for bands that differ from the model's default."""
    fixed: bool = False
    """Whether the model requires exactly the bands of `sensor`, in their order and at its pixel size."""
    is_series: bool = False
    """Whether the model takes a series of dated frames."""
    keeps_empty: bool = False
    """For a series, whether a sub-window without valid pixels becomes a frame of NaN. Frame `i` then belongs to
    sub-window `i` in every modality, and the adapter can mask it. Otherwise the frame is left out."""
    first_year: int | None = None
    """For a product of calendar years, its first year. The time window must then be one whole year."""
    derived: tuple[DerivedBand, ...] = ()
    """Channels appended to those of `sensor`; `stats` has an entry for each."""
    optional: bool = False
    """Whether the model runs without this modality where nothing was acquired or nothing is valid. It is then masked,
    and the metadata records it; at least one modality must be present."""
    grid_px: int = 1
    """Pixels of this modality along the side of one pixel of the grid that all modalities share."""
    token_sets: int = 1
    """Number of sets of bands that have a token of their own in each patch, to estimate what a model costs."""

    def __post_init__(self) -> None:
        named = (*self.sensor.bands, *(band.name for band in self.derived))
        missing = [name for name in named if name not in self.stats]
        if missing:
            raise SpecError(
                f"Expected statistics of every channel of {self.name}, got none of {', '.join(missing)}.",
                fix="add them to `stats`, with mean 0 and std 1 if there are none",
            )


def is_file_id(model_id: str) -> bool:
    """Return whether an id is the path of a filter bank, which defines its own model (`embedders/banks.py`)."""
    return model_id.endswith(".safetensors")


def lasting_id(model_id: str) -> str:
    """Return the id in the form in which it is stored: paths become absolute."""
    return str(Path(model_id).expanduser().absolute()) if is_file_id(model_id) else model_id


Kind = Literal["foundation model", "baseline", "precomputed", "location"]
"""A "precomputed" model was run by its authors, and the embeddings themselves are fetched. A "location" model takes
only a location and has no modalities."""


@dataclass(frozen=True)
class ModelCard:
    """One model of the catalog."""

    id: str
    revision: int
    """Increased whenever the results of this model change."""
    kind: Kind
    title: str
    adapter: "str | type[Embedder]"
    """Dotted path, `module:Class`, imported when the model is first used; or the class itself, which needs torch to
    list the card."""
    knobs: type[ModelKnobs]
    arch: Mapping[str, int]
    """Keyword arguments of the encoder."""
    dim: int
    """Length of a pooled vector."""
    parameters_m: float
    """Number of parameters of the encoder, millions."""
    weights: Weights | PackagedWeights | LocalWeights | None
    """The checkpoint; `None` if the weights are part of this package or the model has none (`kind="precomputed"`)."""
    modalities: tuple[Modality, ...]
    """The inputs. The first is the default, unless `default` names others. Empty for a model that takes only a
    location, whose inputs are its `place_modalities`."""
    input_prep: Literal["resize", "crop", "tile"]
    """The meaning of `input_prep="auto"` for this model."""
    licence: str
    """The licence: an id of `embedders/licences.py`, with further text or without, or any text for your own model.
    Licences with terms must be accepted before the model runs."""
    citation: str
    model_key: str
    """The authors' name of the variant."""
    dense: bool = False
    """Whether the model has tokens finer than a patch: `OutputSpec.grid("dense")`."""
    default: tuple[str, ...] = ()
    """Modalities used if the request names none; empty for the first modality only. Optional ones that the backend does
    not offer are then masked. If the user names such a modality, it is an error."""
    place_modalities: tuple[str, ...] = ()
    """Location inputs of the model, such as "Coordinates". Nothing is fetched for them."""
    pooled_is_grid_mean: bool = False
    """Whether the pooled mean equals the mean of the grid."""
    backend: str | None = None
    """The backend with the model's imagery, which `backend="auto"` then selects; `None` for any backend."""
    aliases: tuple[str, ...] = ()
    extra: str | None = None
    """Extra of this package that the model requires, if any."""

    def __repr__(self) -> str:
        inputs = ", ".join(self.modality_names or self.place_modalities)
        size = f"{parameters_text(self.parameters_m)} parameters, " if self.parameters_m else ""
        return f"ModelCard({self.id}, {self.kind}, {size}dim {self.dim}, inputs: {inputs})"

    def _repr_html_(self) -> str:
        return safely(self, _html)

    def modality(self, name: str) -> Modality:
        """Return the modality with a name; the caller has checked that it exists."""
        return next(modality for modality in self.modalities if modality.name == name)

    @property
    def default_names(self) -> tuple[str, ...]:
        """Inputs used if the request names none."""
        return self.default or (self.modality_names or self.place_modalities)[:1]

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names of all modalities, default first."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def default_backend(self) -> str:
        """The meaning of `backend="auto"`: the card's own backend, "auto", or "none" if nothing is fetched."""
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
    """Return the meaning of `backend="auto"` for several models: the backend that their cards name, or "auto".

    Models without imagery go with any backend.

    Raises:
        SpecError: The cards name different backends.
    """
    named = {card.id: card.default_backend for card in cards if card.modalities}
    if len(set(named.values())) > 1:
        raise SpecError(
            "Expected models of one backend, got several.", **named, fix="pass `backend`, or request them one by one"
        )
    return next(iter(named.values()), "auto")
