"""The metadata of an embedding: everything needed to compute it again."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from rs_embed.core.display import safely


class InputMeta(BaseModel):
    """The metadata of one modality of the input."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    modality: str
    collection: str
    provider: str
    bands: tuple[str, ...]
    units: tuple[str, ...]
    """Unit of the pixels as the provider returned them, one per band."""
    scene_ids: tuple[str, ...]
    scene_times: tuple[str, ...]
    """Acquisition times, ISO 8601, UTC."""
    frames: int
    frame_times: tuple[str, ...]
    """Mean acquisition time of each frame, ISO 8601, UTC; an empty string if unknown."""
    scenes_per_frame: tuple[int, ...]
    """Number of scenes in each frame; empty if unknown."""
    shape_px: tuple[int, int]
    valid_fraction: float
    """Share of pixels at which every band has a value, 0 to 1."""
    offset_applied: float | None
    composite: str
    fill_value: float | str
    cloudy_pct: float
    cloud_mask: str
    scale_m: float
    """Requested pixel size of the chip, metres."""
    instrument_mode: str | None
    """Sentinel-1 only."""
    orbit_pass: str | None
    """Sentinel-1 only; `None` for both passes."""
    notes: tuple[str, ...]
    clear_observations: float | None = None
    """Mean number of valid, unmasked observations per pixel and frame; `None` if unknown."""
    clipped_fraction: float | None = None
    """Share of values outside the model's training range, which were clipped. Large chips are counted on every n-th row
    and column; `None` if not counted."""


class Channels(BaseModel):
    """The layer and modality to which the channels `start` to `stop` belong: an entry of `meta["channels"]`.

    Only models that keep modalities or layers apart have such entries.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    layer: int
    """Block of the network, from 0."""
    modality: str
    """Name of the modality; several, joined by "+", if they were merged."""
    start: int
    stop: int


class Debiased(BaseModel):
    """What was subtracted from the tokens of a grid, and how it was estimated."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    by: Literal["position"]
    """The position offsets: the mean token at each position in the network's window, less the mean of all tokens."""
    estimated_on: Literal["region", "sample scene", "nothing"]
    """The windows used: those of the region itself, or of the bundled sample scene. "nothing" if the tokens of the
    model do not depend on their position."""
    windows: int
    """Number of windows: the smallest over all positions."""


class Meta(BaseModel):
    """The provenance of an embedding: typed, JSON-serialisable, and readable like a mapping.

    `meta["ground_cover_m"]` looks up a field, then an entry of `model`, which holds what is specific to a model family.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    model_key: str
    """The authors' name of the variant."""
    card_revision: int
    kind: str
    """"foundation model", "baseline", "precomputed" or "location"."""
    output: Literal["pooled", "grid"]
    pooling: str | None
    """How tokens were pooled into a vector; `None` for a grid."""
    grid_kind: str | None
    """Kind of the tokens in the grid; `None` for a vector."""
    placed: bool | None = None
    """For a grid, whether the model's tokens depend on their position in the window; `None` in older files."""
    debias: Debiased | None = None
    """What was subtracted from the tokens; `None` if they are as the model returned them."""
    cls_removed: bool
    """Whether the encoder returned class or register tokens that were left out."""
    modality: tuple[str, ...]
    absent: dict[str, str] = {}
    """Requested modality that the place lacks -> the reason. The model ran without it."""
    inputs: tuple[InputMeta, ...]
    spatial: str | None
    temporal: str | None
    crs: str | None
    """CRS of the chip and the grid."""
    transform: tuple[float, ...] | None
    """Affine transform of the grid, or of the chip for a vector: (a, b, c, d, e, f) with x = a col + b row + c and
    y = d col + e row + f."""
    input_prep: str
    image_size: int
    """Longer side of the network's input, pixels."""
    input_px: tuple[int, int]
    """Height and width of the network's input, pixels."""
    windows: int
    """Number of network inputs that the chip was cut into."""
    ground_cover_m: float
    """Side of the square that an input covers, metres, as passed to the model."""
    gsd_m: float
    """True ground size of an input pixel, metres."""
    patch_size: int
    normalization: str
    valid_fraction: float
    """Share of valid pixels, 0 to 1: the smallest over the inputs."""
    nodata_tokens: int | None = None
    """Number of tokens left out because of nodata: NaN in a grid, not counted in a vector. `None` in older files, and
    for a vector that the encoder computes itself, which includes fill values there."""
    device: str
    precision: str
    kernels: str = "torch"
    """Implementation of the matrix products: "packed" (oneDNN, on the CPU) or "torch". Results differ by rounding."""
    weights: str
    """Identity of the weights: the hub or file with its sha256, `random:<seed>`, `bundled:...` or `precomputed:...`."""
    weights_note: str | None
    """A remark on the weights: that they are random, what else their file contains, or its precision."""
    licence: str | None = None
    """Licence of the model, as its card names it; `None` in older files."""
    accepted_licence: str | None = None
    """Ids of the licences that had to be accepted, and were; `None` if none had to be."""
    knobs: dict[str, JsonValue]
    """Every knob with its value in force."""
    model: dict[str, JsonValue]
    """Facts specific to the model family (THOR: group_merge, token counts, ...)."""
    versions: dict[str, str]
    """Package -> version, for the packages that affect the values."""
    created: str
    """Time of computation, ISO 8601, UTC."""
    fingerprint: str
    """sha256 of the whole request and the weights; equal across processes.

    Rasters are identified by path, size and modification time; arrays, the sample and weights by content.
    """

    @property
    def warning(self) -> str | None:
        """The note to display wherever values are shown: that the weights are random, else `None`."""
        return self.weights_note if self.weights.startswith("random:") else None

    def flat(self) -> dict[str, object]:
        """Return all fields and the entries of `model` in one dictionary."""
        fields = {name: value for name, value in self if name != "model"}
        return {**self.model, **fields}

    def __getitem__(self, name: str) -> object:
        """Return a field or an entry of `model`."""
        return self.flat()[name]

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is a field or an entry of `model`."""
        return name in self.flat()

    def keys(self) -> Iterator[str]:
        """Iterate over all names that `meta[name]` accepts."""
        return iter(self.flat())

    def get(self, name: str, default: object = None) -> object:
        """Return `meta[name]`, or the default."""
        return self.flat().get(name, default)

    def __repr__(self) -> str:
        from rs_embed.embedding.show import meta_line

        return meta_line(self)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self)

    def _repr_html_(self) -> str:
        from rs_embed.embedding.show import meta_html

        return safely(self, meta_html)
