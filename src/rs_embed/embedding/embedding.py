"""An embedding: the numbers, where they lie, and everything needed to compute them again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from rs_embed.core.checks import short
from rs_embed.core.display import safely
from rs_embed.embedding.position import PositionMeans
from rs_embed.errors import ReadoutError, StorageError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from rs_embed.embedding.points import Outside, Points


class InputMeta(BaseModel):
    """What one modality of the input was."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    modality: str
    collection: str
    provider: str
    bands: tuple[str, ...]
    units: tuple[str, ...]
    """Unit in which the pixels arrived, per band."""
    scene_ids: tuple[str, ...]
    scene_times: tuple[str, ...]
    """Acquisition times, ISO 8601, UTC."""
    frames: int
    frame_times: tuple[str, ...]
    """Mean acquisition time of each frame, ISO 8601, UTC; empty where not known."""
    scenes_per_frame: tuple[int, ...]
    """How many scenes each frame is made of; empty where that is not known."""
    shape_px: tuple[int, int]
    valid_fraction: float
    """Share of pixels at which every band had a value."""
    offset_applied: float | None
    composite: str
    fill_value: float | str
    cloudy_pct: float
    cloud_mask: str
    scale_m: float
    """Pixel size that the chip was asked for, metres."""
    instrument_mode: str | None
    """Sentinel-1 only."""
    orbit_pass: str | None
    """Sentinel-1 only; `None`: both."""
    notes: tuple[str, ...]
    clear_observations: float | None = None
    """Mean number of valid, unmasked observations per pixel and frame; `None` where that is not known."""
    clipped_fraction: float | None = None
    """Share of the values that lay beyond what the model was trained on and were clipped, counted on every n-th row and
    column of larger chips; `None`: not counted."""


class Channels(BaseModel):
    """Whose the channels `start` to `stop` are: an entry of `meta["channels"]`, where a model tells."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    layer: int
    """Block of the network, from 0."""
    modality: str
    """Several, joined by "+", where they were merged."""
    start: int
    stop: int


class Debiased(BaseModel):
    """What was taken out of the tokens of a grid, and how it was known."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    by: Literal["position"]
    """The mean token of each place in the network's window, less the mean of all."""
    estimated_on: Literal["region", "sample scene", "nothing"]
    """Windows of the grid itself, or of the scene that comes with the package; "nothing": there is nothing to take out,
    as the model's tokens do not carry their place."""
    windows: int
    """How many: the fewest that any place was seen in."""


class Meta(BaseModel):
    """Where an embedding comes from. Typed, JSON-serialisable, and readable like a mapping.

    `meta["ground_cover_m"]` finds a field, then an entry of `model` (what only this family has).
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    model_key: str
    """The authors' own name of the variant."""
    card_revision: int
    kind: str
    """"foundation model", "baseline", "precomputed" or "location"."""
    output: Literal["pooled", "grid"]
    pooling: str | None
    """How tokens became a vector; `None` for a grid."""
    grid_kind: str | None
    """Which tokens the grid is made of; `None` for a vector."""
    placed: bool | None = None
    """Of a grid, whether the model's tokens carry their place in the window; `None` in files written before."""
    debias: Debiased | None = None
    """What was taken out of the tokens; `None`: they are as the model gives them."""
    cls_removed: bool
    """Whether the encoder returned class or register tokens that were left out."""
    modality: tuple[str, ...]
    absent: dict[str, str] = {}
    """Modalities that were asked for and that the place lacks -> why; the model did without them."""
    inputs: tuple[InputMeta, ...]
    spatial: str | None
    temporal: str | None
    crs: str | None
    """Of the chip and the grid."""
    transform: tuple[float, ...] | None
    """Affine of the grid, or of the chip for a vector: (a, b, c, d, e, f), x = a col + b row + c."""
    input_prep: str
    image_size: int
    """Side of the network's input, pixels; the longer one of a rectangle."""
    input_px: tuple[int, int]
    """Height and width of the network's input."""
    windows: int
    """How many network inputs the chip was cut into."""
    ground_cover_m: float
    """Side of the ground that the model is told its input covers, metres."""
    gsd_m: float
    """True ground size of an input pixel, metres."""
    patch_size: int
    normalization: str
    valid_fraction: float
    """The smallest over the inputs."""
    nodata_tokens: int | None = None
    """Tokens left out for nodata: NaN in a grid, not counted in a vector. `None` for a vector of the encoder's own,
    which sees fill values there, and in files written before this was counted."""
    device: str
    precision: str
    kernels: str = "torch"
    """Whose matrix products: "packed" (oneDNN, on the CPU) or "torch"; numbers differ by rounding alone."""
    weights: str
    """Identity of the weights: hub or file and sha256, `random:<seed>`, `bundled:...` or `precomputed:...`."""
    weights_note: str | None
    """That they are random; or what the file holds beside them, and in which precision."""
    knobs: dict[str, JsonValue]
    """Every knob that was in force."""
    model: dict[str, JsonValue]
    """What only this family has (THOR: group_merge, token counts, ...)."""
    versions: dict[str, str]
    """Packages that took part."""
    created: str
    """ISO 8601, UTC."""
    fingerprint: str
    """sha256 of the whole request and the weights; equal across processes.

    Rasters count by path, size and time of change; arrays, the sample and weights by content.
    """

    @property
    def warning(self) -> str | None:
        """What must be seen wherever the numbers are shown: that weights are random."""
        return self.weights_note if self.weights.startswith("random:") else None

    def flat(self) -> dict[str, object]:
        """Fields, and the entries of `model` beside them, in one dictionary."""
        fields = {name: value for name, value in self if name != "model"}
        return {**self.model, **fields}

    def __getitem__(self, name: str) -> object:
        """A field, or an entry of `model`."""
        return self.flat()[name]

    def __contains__(self, name: object) -> bool:
        """Whether `meta[name]` gives something."""
        return name in self.flat()

    def keys(self) -> Iterator[str]:
        """All names that `meta[name]` knows."""
        return iter(self.flat())

    def get(self, name: str, default: object = None) -> object:
        """`meta[name]`, or the default."""
        return self.flat().get(name, default)

    def __repr__(self) -> str:
        from rs_embed.embedding.show import meta_line

        return meta_line(self)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self)

    def _repr_html_(self) -> str:
        from rs_embed.embedding.show import meta_html

        return safely(self, meta_html)


@dataclass(frozen=True, eq=False)
class Embedding:
    """The result of one request."""

    data: NDArray[np.float32]
    """`[D]` for a pooled vector, `[D, H, W]` for a grid (row 0 is the north)."""
    meta: Meta
    geobox: GeoBox | None
    """Grid output: the token grid. Pooled: the chip that was pooled. `None` for an array without a place."""
    valid: NDArray[np.float32] | None = None
    """Of a grid, `[H, W]` from 0 to 1: the share of valid pixels under each token, over frames and modalities; 0
    outside of a polygon. `None` for a vector (`meta.valid_fraction` is its share), and in files written before."""
    position_means: PositionMeans | None = None
    """Of a grid of many windows: what its tokens carry of their place in the window. `debiased` takes it out."""

    @property
    def is_grid(self) -> bool:
        """Whether `data` is `[D, H, W]`."""
        return self.data.ndim == 3

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        """`data`, for `np.asarray(embedding)` and whatever takes arrays."""
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        from rs_embed.embedding.show import embedding_line

        return embedding_line(self)

    def _repr_html_(self) -> str:
        from rs_embed.embedding.show import embedding_html

        return safely(self, embedding_html)

    def by_modality(self) -> dict[str, NDArray[np.float32]]:
        """The channels of each modality, for embeddings made with `merge_method="dict"`.

        They are views; where several layers were asked for, copies that join a modality's layers.

        Raises:
            ReadoutError: Modalities do not have channels of their own here.
        """
        whose = TypeAdapter(list[Channels]).validate_python(self.meta.get("channels", []))
        if not whose or any("+" in one.modality for one in whose):
            raise ReadoutError(
                "There are no channels of one modality here: every channel stands for all of them.",
                model=self.meta.model_id,
                modality="+".join(self.meta.modality),
                fix='for TerraMind: make it with merge_method="dict"',
            )
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for one in whose:
            parts.setdefault(one.modality, []).append(self.data[one.start : one.stop])
        return {name: some[0] if len(some) == 1 else np.concatenate(some) for name, some in parts.items()}

    def at(self, lon: float, lat: float) -> NDArray[np.float32]:
        """The vector `[D]` of the token that a point lies on; NaN where it lies on nodata. Nothing is interpolated.

        Raises:
            SpecError: The point lies outside of the grid, or this is no grid with a place.
        """
        from rs_embed.embedding.points import token_at

        return token_at(self, lon, lat)

    def sample(self, points: "Points", outside: "Outside" = "raise") -> NDArray[np.float32]:
        """The vectors `[N, D]` of the tokens that points lie on, in their order; NaN on nodata, nothing interpolated.

        Args:
            points: A list of (lon, lat) or of shapely points (longitude and latitude, too), an array `[N, 2]`, a
                GeoSeries or GeoDataFrame of points in any CRS, or a DataFrame with columns lon and lat.
            outside: What becomes of points beside the grid: "raise" names them, "nan" gives them NaN.

        Raises:
            SpecError: Points lie outside or are invalid, or this is no grid with a place.
        """
        from rs_embed.embedding.points import sample_points

        return sample_points(self, points, outside)

    def debiased(self) -> "Embedding":
        """The grid without what its tokens carry of their place in the window, if it knows that; else itself.

        `OutputSpec.grid(debias="position")` does the same for every grid, however few windows it has.
        """
        means = self.position_means
        if means is None:
            return self
        data = self.data - means.field((self.data.shape[1], self.data.shape[2]))
        told = Debiased(by="position", estimated_on="region", windows=means.windows)
        return replace(self, data=data, meta=self.meta.model_copy(update={"debias": told}), position_means=None)

    def to_xarray(self) -> "xr.DataArray":
        """Dimensions `band`, or `band, y, x` with CRS, transform and pixel-centre coordinates."""
        from rs_embed.formats.netcdf import to_xarray

        return to_xarray(self)

    def save(self, path: str | Path) -> Path:
        """Write to `.npz`, `.nc`, or (grids) `.tif` or `.zarr`; all of them keep the metadata.

        A file that is there is replaced, a folder is not. More formats: `register_format`.

        Raises:
            StorageError: Another suffix, a vector as `.tif` or `.zarr`, or a path that cannot be written.
        """
        from rs_embed.formats.files import save

        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Embedding":
        """Read back what `save` wrote.

        Raises:
            StorageError: There is no such file, or it is not one of ours.
        """
        from rs_embed.formats.files import load

        if not isinstance(path, str | Path):
            raise StorageError(f"Expected the path of a file, got {short(path)}.", fix='for example "field.npz"')
        return load(Path(path))

    def similarity(self, other: "Embedding", *, debias: bool = True) -> "float | xr.DataArray":
        """Cosine similarity, from -1 to 1 (NaN where a vector is zero or has no value).

        Two vectors give a number; a vector and a grid a map `[y, x]` with coordinates and CRS; two grids of the same
        shape a map of how alike they are cell by cell.

        Args:
            debias: Compare grids without what their tokens carry of their place in the window, where they know it
                (`debiased`); the map's `long_name` says which. `False`: as they are.

        Raises:
            SpecError: The two are not of the same model and weights, or are grids of other shapes, or of one the place
                was taken out and of the other not.
        """
        from rs_embed.embedding.similarity import similarity

        return similarity(self, other, debias=debias)

    def change(self, other: "Embedding", *, debias: bool = True) -> "xr.DataArray":
        """How much each cell changed between two grids of the same ground: 1 - cosine, from 0 (not) to 2, `[y, x]`.

        Args:
            other: Of another time.
            debias: As for `similarity`.

        Raises:
            SpecError: These are not two such grids.
        """
        from rs_embed.embedding.similarity import change

        return change(self, other, debias=debias)

    def plot(self, path: str | Path | None = None, *, raw: bool = False) -> "Figure":
        """A picture: the first three principal components of a grid as RGB, or the bars of a vector.

        A grid is shown without what its tokens carry of their place in the window, where it knows that (`debiased`).
        The title says which.

        Args:
            path: Also write it there (`.png`, `.pdf`, ...).
            raw: Show tokens as they are.
        """
        from rs_embed.embedding.plot import plot_embedding

        return plot_embedding(self, None if path is None else Path(path), raw=raw)
