"""An embedding: its values, their place on the ground, and its metadata."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray
from odc.geo.geobox import GeoBox
from pydantic import TypeAdapter

from rs_embed.core.checks import short
from rs_embed.core.display import safely
from rs_embed.embedding.meta import Channels, Debiased, Meta
from rs_embed.embedding.position import PositionMeans
from rs_embed.errors import ReadoutError, StorageError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from rs_embed.core.chip import Chip
    from rs_embed.embedding.points import Outside, Points
    from rs_embed.explore.packing import Stored
    from rs_embed.explore.tiles import BaseMap
    from rs_embed.explore.widget import PageWidget


@dataclass(frozen=True, eq=False)
class Embedding:
    """The embedding of one place: a vector or a grid, with metadata."""

    data: NDArray[np.float32]
    """`[D]` for a pooled vector, `[D, H, W]` for a grid, whose row 0 is the northernmost."""
    meta: Meta
    geobox: GeoBox | None
    """Georeference of the token grid, or of the pooled chip for a vector; `None` for an array without a place."""
    valid: NDArray[np.float32] | None = None
    """For a grid, `[H, W]` from 0 to 1: the share of valid pixels under each token, over frames and modalities; 0
    outside a polygon. `None` for a vector, whose share is `meta.valid_fraction`, and in older files."""
    position_means: PositionMeans | None = None
    """For a grid of many windows: the position offsets of its tokens, which `debiased` subtracts."""

    @property
    def is_grid(self) -> bool:
        """Whether this is a grid, `[D, H, W]`, and not a vector."""
        return self.data.ndim == 3

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        """Return `data`, for `np.asarray(embedding)` and functions that take arrays."""
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        from rs_embed.embedding.show import embedding_line

        return embedding_line(self)

    def _repr_html_(self) -> str:
        from rs_embed.embedding.show import embedding_html

        return safely(self, embedding_html)

    def by_modality(self) -> dict[str, NDArray[np.float32]]:
        """Return the channels of each modality, for embeddings computed with `merge_method="dict"`.

        Returns:
            Modality -> `[d]` or `[d, H, W]`. The arrays are views, or copies if several layers of a modality are
            joined.

        Raises:
            ReadoutError: The modalities do not have separate channels.
        """
        whose = TypeAdapter(list[Channels]).validate_python(self.meta.get("channels", []))
        if not whose or any("+" in one.modality for one in whose):
            raise ReadoutError(
                "Expected separate channels for each modality, got channels that combine all of them.",
                model=self.meta.model_id,
                modality="+".join(self.meta.modality),
                fix='for TerraMind, compute the embedding with merge_method="dict"',
            )
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for one in whose:
            parts.setdefault(one.modality, []).append(self.data[one.start : one.stop])
        return {name: some[0] if len(some) == 1 else np.concatenate(some) for name, some in parts.items()}

    def at(self, lon: float, lat: float) -> NDArray[np.float32]:
        """Return the vector of the token that contains a point, without interpolation.

        Args:
            lon: Longitude, degrees.
            lat: Latitude, degrees.

        Returns:
            `[D]`; NaN where the token lies on nodata.

        Raises:
            SpecError: The point lies outside the grid, or this is not a georeferenced grid.
        """
        from rs_embed.embedding.points import token_at

        return token_at(self, lon, lat)

    def sample(self, points: "Points", outside: "Outside" = "raise") -> NDArray[np.float32]:
        """Return the vectors of the tokens that contain the points, in their order and without interpolation.

        Args:
            points: A list of (lon, lat) pairs or of shapely points in degrees, an array `[N, 2]` of the same, a
                GeoSeries or GeoDataFrame of points in any CRS, or a DataFrame with columns lon and lat.
            outside: What to do with points outside the grid: "raise" an error that names the first, or return "nan".

        Returns:
            `[N, D]`; NaN on nodata.

        Raises:
            SpecError: Points lie outside or are invalid, or this is not a georeferenced grid.
        """
        from rs_embed.embedding.points import sample_points

        return sample_points(self, points, outside)

    def debiased(self) -> "Embedding":
        """Return the grid less its position offsets, or the embedding itself if they are not known.

        A grid knows its offsets if it has at least 32 windows. `OutputSpec.grid(debias="position")` subtracts them from
        any grid, however few windows it has.
        """
        means = self.position_means
        if means is None:
            return self
        data = self.data - means.field((self.data.shape[1], self.data.shape[2]))
        record = Debiased(by="position", estimated_on="region", windows=means.windows)
        return replace(self, data=data, meta=self.meta.model_copy(update={"debias": record}), position_means=None)

    def to_xarray(self) -> "xr.DataArray":
        """Convert to an `xarray.DataArray`.

        Returns:
            An array with the dimension `band` for a vector, or `band, y, x` for a grid, with CRS, transform and
            coordinates of the pixel centres.
        """
        from rs_embed.formats.netcdf import to_xarray

        return to_xarray(self)

    def save(self, path: str | Path) -> Path:
        """Write the embedding with its metadata to a file; the suffix selects the format.

        `.npz` and `.nc` hold vectors and grids, `.tif` and `.zarr` hold grids. `register_format` adds more. An existing
        file is replaced, an existing folder is not.

        Returns:
            The path written.

        Raises:
            StorageError: The suffix is unknown or does not suit a vector, or the path cannot be written.
        """
        from rs_embed.formats.files import save

        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Embedding":
        """Read an embedding that `save` wrote.

        Raises:
            StorageError: The file does not exist, or `save` did not write it.
        """
        from rs_embed.formats.files import load

        if not isinstance(path, str | Path):
            raise StorageError(
                f"Expected the path of a file, got {short(path)}.", fix='pass a path, for example "field.npz"'
            )
        return load(Path(path))

    def similarity(self, other: "Embedding", *, debias: bool = True) -> "float | xr.DataArray":
        """Compute the cosine similarity with another embedding, from -1 to 1.

        Args:
            other: An embedding of the same model and weights.
            debias: Compare grids less their position offsets, if all of them know theirs (see `debiased`). The
                `long_name` of the map records whether they were subtracted. `False` compares grids as they are.

        Returns:
            A number for two vectors. For a vector and a grid, a map `[y, x]` with coordinates and CRS. For two grids of
            the same ground, a map `[y, x]` of their similarity cell by cell. NaN where a vector is zero or has no
            value.

        Raises:
            SpecError: The embeddings differ in model or weights, the grids cover different ground, or position offsets
                were subtracted from only one of them.
        """
        from rs_embed.embedding.similarity import similarity

        return similarity(self, other, debias=debias)

    def change(self, other: "Embedding", *, debias: bool = True) -> "xr.DataArray":
        """Compute the change of each cell between two grids of the same ground: 1 - cosine similarity.

        Args:
            other: A grid of the same place at another time.
            debias: See `similarity`.

        Returns:
            A map `[y, x]` from 0, no change, to 2, with coordinates and CRS.

        Raises:
            SpecError: The embeddings are not two grids of the same ground, model and weights.
        """
        from rs_embed.embedding.similarity import change

        return change(self, other, debias=debias)

    def plot(self, path: str | Path | None = None, *, raw: bool = False) -> "Figure":
        """Plot a grid as the RGB of its first three principal components, or a vector as a bar chart.

        A grid is shown less its position offsets if it knows them (see `debiased`); the title says so.

        Args:
            path: Also write the figure to this file (`.png`, `.pdf`, ...).
            raw: Show the tokens as they are.

        Raises:
            StorageError: The file cannot be written.
        """
        from rs_embed.embedding.plot import plot_embedding

        return plot_embedding(self, None if path is None else Path(path), raw=raw)

    def explore(
        self,
        path: str | Path = "explore.html",
        *,
        beside: "Embedding | Sequence[Embedding]" = (),
        imagery: "Chip | None" = None,
        credit: str = "",
        base_map: "BaseMap | None" = None,
        stored: "Stored" = "auto",
        max_mb: float = 25.0,
    ) -> Path:
        """Write a grid as one HTML file in which you click a place to see what is like it. It needs no network.

        Args:
            path: Ends in .html; an existing file is replaced.
            beside: Other grids in the same CRS to compare with: of other models, or of other times.
            imagery: A Sentinel-2 chip to show in true colour: `inspect_chip(...).chips[...]`.
            credit: The line under the map that names the source of the imagery. Default: from the metadata.
            base_map: A map to show under the result, from the network: the address of its tiles (XYZ, Web Mercator) and
                their attribution, `("https://tiles.example.org/{z}/{x}/{y}.png", "© Example")`. It is off until
                somebody chooses it on the page.
            stored: How the page holds the tokens: "float32" as they are, "int8" with a factor for each dimension, or
                "pca64", int8 of 64 principal components. "auto": the most exact of these with which the page stays
                small. The page says which, and for "pca64" the share of the variance.
            max_mb: Largest size of the file, MB.

        Returns:
            The path written.

        Raises:
            SpecError: This is a vector, the grids differ in CRS, or the page would be larger than `max_mb`.
            NoValidPixels: A grid has no value.
            BandMismatch: The imagery lacks B4, B3 or B2.
            StorageError: The path does not end in .html, or cannot be written.
        """
        from rs_embed.explore.grids import explore_embeddings
        from rs_embed.explore.page import PageOptions

        others = [beside] if isinstance(beside, Embedding) else beside
        options = PageOptions(base_map, stored, max_mb)
        return explore_embeddings([self, *others], path, imagery=imagery, credit=credit, options=options)

    def widget(
        self,
        *,
        beside: "Embedding | Sequence[Embedding]" = (),
        imagery: "Chip | None" = None,
        credit: str = "",
        base_map: "BaseMap | None" = None,
        stored: "Stored" = "auto",
        height_px: int = 680,
    ) -> "PageWidget":
        """Show the page of `explore` in a notebook; needs the extra `notebook`.

        Args:
            height_px: Height of the view.

        The other arguments and errors are those of `explore`. `selected` and `labels` of the result are what you have
        clicked and labelled, as GeoDataFrames.

        Raises:
            MissingDependency: anywidget is not installed.
        """
        from rs_embed.explore.notebook import widget_of

        return widget_of(
            lambda page: self.explore(
                page, beside=beside, imagery=imagery, credit=credit, base_map=base_map, stored=stored
            ),
            height_px,
        )
