"""The map of a whole region, opened: parts are read when they are needed, and never all of it at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from odc.geo.geobox import GeoBox
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from rs_embed.core.checks import require_whole
from rs_embed.core.geo import pixel_size_m
from rs_embed.core.specs import BBox, Region, TemporalSpec
from rs_embed.exports.results.index import IndexFacts
from rs_embed.exports.results.kept_index import IndexReport, KeptIndex
from rs_embed.exports.results.map_card import map_html, map_text
from rs_embed.exports.results.map_level import Level
from rs_embed.exports.results.map_store import StoredMap, Time
from rs_embed.formats.base import RunHeader

if TYPE_CHECKING:
    import geopandas
    import xarray as xr
    from matplotlib.figure import Figure
    from zarr.abc.store import Store

    from rs_embed.explore.packing import Stored
    from rs_embed.explore.tiles import BaseMap
    from rs_embed.explore.widget import PageWidget
    from rs_embed.exports.region.shape import RegionLike
    from rs_embed.exports.results.map_index import MapIndex
    from rs_embed.exports.results.map_vectors import Examples, MapVector
    from rs_embed.pipeline.request import Backend
    from rs_embed.places import Given

Box: TypeAlias = BBox | Region | tuple[float, float, float, float] | None
"""West, south, east and north in degrees, or a box or polygon in its own CRS; `None` means the whole map."""


class EmbeddingMap:
    """The tokens of a region on one grid, at one or several times, with overviews.

    Only what a call needs is read, in windows of bounded size, so memory does not depend on the size of the map.
    Rasters go to a file given as `out`; without one, results of at most 64 MB are returned.

    Args:
        path: Path of the Zarr store.
        store: The store to read its arrays from; by default, the one at `path`.

    Raises:
        StorageError: It is not a map of rs_embed, or it is damaged.
    """

    def __init__(self, path: Path, store: "Store | None" = None) -> None:
        self.path = path
        self._stored = StoredMap.read(path, store)
        self._kept = KeptIndex(path.parent, self._opened_index)

    def _opened_index(self, folder: Path, facts: IndexFacts) -> "MapIndex":
        from rs_embed.exports.results.map_index import MapIndex

        return MapIndex(self.levels[0], folder, facts)

    @property
    def header(self) -> RunHeader:
        """The model, its weights and licence, as the run recorded them."""
        return self._stored.header

    @property
    def region(self) -> BaseGeometry:
        """The requested region, in the CRS of the map."""
        return self._stored.region

    @property
    def crs(self) -> CRS:
        """The CRS of the grid."""
        return self._stored.crs

    @property
    def levels(self) -> tuple[Level, ...]:
        """The map, then its overviews, each with half the resolution of the one before."""
        return self._stored.levels

    @property
    def times(self) -> tuple[TemporalSpec | None, ...]:
        """The windows of days, in order; a single `None` if no days were requested."""
        return self._stored.times

    @property
    def geobox(self) -> GeoBox:
        """CRS, transform and shape of the tokens."""
        return self.levels[0].geobox

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.levels[0].whole.height, self.levels[0].whole.width

    @property
    def cell_m(self) -> float:
        """Side of a token, metres."""
        return pixel_size_m(self.geobox)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in the CRS of the map."""
        left, bottom, right, top = self.geobox.boundingbox
        return left, bottom, right, top

    @property
    def dim(self) -> int:
        """Length of a token's vector."""
        return self.levels[0].dim

    @property
    def done(self) -> float:
        """Share of the region's blocks that exist, 0 to 1, over all times."""
        return self._stored.done

    @property
    def blocks(self) -> int:
        """Number of blocks that the region has, over all times."""
        return self._stored.blocks

    def __repr__(self) -> str:
        return map_text(self)

    def _repr_html_(self) -> str:
        return map_html(self)

    def level(self, number: int) -> Level:
        """Return one of `levels`.

        Raises:
            SpecError: There is no such level.
        """
        return self.levels[require_whole("level", number, 0, len(self.levels) - 1)]

    def time_number(self, time: Time) -> int:
        """Return the number of a time in `times`; `None` means the only one.

        Raises:
            SpecError: There is no such time, or several match.
        """
        return self._stored.time_number(time)

    def to_xarray(self, bbox: Box = None, *, level: int = 0, time: Time = None) -> "xr.DataArray":
        """Return the tokens as `[band, y, x]`, or as `[time, band, y, x]` for all of several times; float32.

        The array is lazy: values are read when they are used. Select a part before you compute with it. The
        coordinate `valid_fraction` is the share of valid pixels under each token.

        Args:
            bbox: Only the tokens that this touches.
            level: 0 is the map, 1 and more are overviews.
            time: By default, all times.

        Raises:
            SpecError: There is no such level or time.
            OutsideCoverage: The box is outside of the map.
        """
        from rs_embed.exports.results.map_xarray import lazy_array

        return lazy_array(self, bbox, level, time)

    def at(self, lon: float, lat: float, time: Time = None) -> "MapVector":
        """Return the vector of the token under a point, without interpolation.

        Args:
            lon: Degrees.
            lat: Degrees.
            time: May be left out where the map has only one.

        Raises:
            OutsideCoverage: The point lies outside of the region, or in a block that is not done yet.
            NoValidPixels: All pixels there are nodata.
        """
        from rs_embed.exports.results.map_vectors import vector_at

        return vector_at(self, lon, lat, time)

    def sample(self, points: "Given", time: Time = None) -> "geopandas.GeoDataFrame":
        """Return the vectors of the tokens under points: one row for each point, in order.

        Columns are `id`, those of your table, `geometry`, `embedding` (an array), `valid_fraction`, `status` ("ok" or
        "failed") and `error`. A point without a token has a row, too, with the reason. Each chunk is read once.

        Args:
            points: What `read_places` takes: a list of (lon, lat), a DataFrame, a GeoDataFrame of points, or a file.
            time: May be left out where the map has only one.

        Raises:
            SpecError: A row is invalid or not a point.
        """
        from rs_embed.exports.results.map_vectors import sample_map

        return sample_map(self, points, time)

    def similar(
        self,
        lon: float | None = None,
        lat: float | None = None,
        *,
        like: "Examples | None" = None,
        unlike: "Examples" = (),
        time: Time = None,
        level: int = 0,
        out: str | Path | None = None,
    ) -> "xr.DataArray":
        """Compute the similarity of each token to a place or to examples: cosine, -1 to 1.

        Several examples become one vector: the mean of those in `like`, each of length 1, less the mean of those in
        `unlike`.

        Args:
            lon: Of the place, degrees.
            lat: Of the place, degrees.
            like: Instead of a place: a (lon, lat), a vector, an `Embedding`, what `at` gives, or a list of these.
            unlike: Examples of what you do not look for, in the same forms.
            time: May be left out where the map has only one.
            level: 0 is the map, 1 and more are overviews.
            out: Write a Cloud Optimized GeoTIFF there, block by block.

        Returns:
            `[y, x]` with coordinates; with `out`, a small overview of the file.

        Raises:
            SpecError: An example is of another model or weights, or the result is too large without `out`.
            OutsideCoverage: An example lies outside of the region.
        """
        from rs_embed.exports.results.map_rasters import similarity_raster
        from rs_embed.exports.results.map_vectors import direction

        vector = direction(self, (lon, lat), like, unlike, time)
        return similarity_raster(self, vector, time, level, out)

    def most_similar(
        self,
        lon: float | None = None,
        lat: float | None = None,
        *,
        like: "Examples | None" = None,
        unlike: "Examples" = (),
        top: int = 10,
        time: Time = None,
        times: Sequence[Time] | None = None,
        within: "RegionLike | None" = None,
        level: int = 0,
        exact: bool = False,
    ) -> "geopandas.GeoDataFrame":
        """Find the tokens most similar to a place or examples, best first, and without the place itself.

        If there is an index (`build_index`) and the map has not changed since, the search uses it. It is fast, but may
        miss a few of the nearest tokens, and similarities are rounded to about 0.001. Without an index, at coarser
        levels, and where `within` leaves few tokens, all of them are compared. The result's `attrs` say which: `exact`,
        and for an index its `recall` (the share of the ten nearest that it finds).

        Args:
            lon: Of the place, degrees.
            lat: Of the place, degrees.
            like: Examples, as for `similar`.
            unlike: Examples of what you do not look for.
            top: Number of tokens.
            time: Of the place and examples; may be left out where the map has only one.
            times: The times to search: a list, such as `region.times` for all. Default: `time`.
            within: Only tokens whose middle lies there: a box (west, south, east, north), or any form of a region that
                `embed_region` takes.
            level: 0 is the map; a coarser level is faster and gives places that are further apart.
            exact: Compare all tokens even if there is an index.

        Returns:
            Columns `similarity`, `row`, `column` (of the level), `time` (its number in `times`) and `geometry`, the
            middle of the token.

        Raises:
            SpecError: An example is of another model or weights, or there is no such time or level.
            OutsideCoverage: An example, or all of `within`, lies outside of the map.
        """
        from rs_embed.exports.results.map_search import TokenSearch, best_places
        from rs_embed.exports.results.map_vectors import direction

        vector = direction(self, (lon, lat), like, unlike, time)
        place = None if lon is None or lat is None else (lon, lat)
        asked = TokenSearch.of(self, place, top, level=level, time=time, times=times, within=within)
        return best_places(asked, vector, None if exact or level else self._kept.current())

    def build_index(self, *, progress: bool = True) -> "IndexReport":
        """Build an index of the tokens in the folder of the run, which makes `most_similar` fast on large maps.

        An index covers the blocks that were there when it was built: after more blocks are made, build it again. An
        existing index is replaced once the new one is complete. Memory does not depend on the size of the map.

        Args:
            progress: Show a bar on a terminal.

        Raises:
            SpecError: The map has no token, or does not lie in the folder of its run.
            StorageError: A block is damaged, the run is in use, or the disk refuses.
            MissingDependency: The extra `search` is not installed.
        """
        from rs_embed.exports.results.map_index import build_map_index

        return build_map_index(self, progress=progress)

    def pca(
        self, out: str | Path | None = None, *, time: Time = None, level: int | None = None, seed: int = 0
    ) -> "xr.DataArray":
        """Return the first three principal components as red, green, blue and opacity.

        They are fitted on a random sample of the tokens, and stretched between their 2nd and 98th percentiles there.

        Args:
            out: Write a Cloud Optimized GeoTIFF (uint8, with alpha) there; its tags record each component's share of
                the variance.
            time: May be left out where the map has only one.
            level: 0 is the map, 1 and more are overviews. Default: the map with `out`, otherwise an overview.
            seed: Seed of the sample.

        Returns:
            `[band, y, x]` in 0..1; with `out`, a small overview of the file.

        Raises:
            NoValidPixels: There is no token with a value.
            SpecError: The result is too large without `out`.
        """
        from rs_embed.exports.results.map_rasters import pca_raster

        return pca_raster(self, time, level, seed, out)

    def change(
        self,
        first: "Time | EmbeddingMap",
        second: Time = None,
        *,
        time: Time = None,
        level: int = 0,
        out: str | Path | None = None,
    ) -> "xr.DataArray":
        """Compute the change of each token between two times: 1 - cosine, from 0 (no change) to 2.

        Args:
            first: A time of this map, or another map on the same grid.
            second: Another time of this map.
            time: With another map: the time to use in both; may be left out if they have only one.
            level: 0 is the map, 1 and more are overviews.
            out: Write a Cloud Optimized GeoTIFF there, block by block.

        Returns:
            `[y, x]` with coordinates; with `out`, a small overview of the file.

        Raises:
            SpecError: The maps differ in grid, model or weights, or the result is too large without `out`.
        """
        from rs_embed.exports.results.map_rasters import change_raster

        if isinstance(first, EmbeddingMap):
            pair = ((self, self.time_number(time)), (first, first.time_number(time)))
        else:
            pair = ((self, self.time_number(first)), (self, self.time_number(second)))
        return change_raster(pair, level, out)

    def to_geotiff(self, path: str | Path, bbox: Box = None, *, time: Time = None, level: int = 0) -> Path:
        """Write the tokens, or those in a box, as a Cloud Optimized GeoTIFF with a band for each dimension, float32.

        Args:
            path: Ends in .tif.
            bbox: Only the tokens that this touches.
            time: May be left out where the map has only one.
            level: 0 is the map, 1 and more are overviews.

        Raises:
            StorageError: It cannot be written.
            OutsideCoverage: The box is outside of the map.
        """
        from rs_embed.exports.results.map_rasters import write_tokens

        return write_tokens(self, Path(path), bbox, time, level)

    def plot(self, path: str | Path | None = None, *, time: Time = None) -> "Figure":
        """Draw the map in the colours of its principal components, from an overview.

        Args:
            path: File to write as well (`.png`, `.pdf`, ...).
            time: By default, the first.
        """
        from rs_embed.exports.results.map_rasters import plot_map

        return plot_map(self, time, None if path is None else Path(path))

    def explore(
        self,
        bbox: Box = None,
        path: str | Path = "explore.html",
        *,
        time: Time = None,
        level: int = 0,
        imagery: "Backend | None" = None,
        base_map: "BaseMap | None" = None,
        stored: "Stored" = "auto",
        max_mb: float = 25.0,
    ) -> Path:
        """Write a part of the map as one HTML file in which you click a place to see what is like it.

        Args:
            bbox: Only the tokens that this touches.
            path: Ends in .html; an existing file is replaced.
            time: By default, all times, with a slider.
            level: 0 is the map, 1 and more are overviews.
            imagery: Where to fetch true colour from: a backend, for Sentinel-2 of the same days, or the path of a
                raster with red, green and blue.
            base_map: See `Embedding.explore`.
            stored: See `Embedding.explore`.
            max_mb: Largest size of the file, MB.

        Raises:
            SpecError: The part is too large for a page; the message says by how much.
            OutsideCoverage: The box is outside of the map.
            NoValidPixels: There is no token with a value.
            StorageError: The path does not end in .html, or cannot be written.
        """
        from rs_embed.explore.page import PageOptions
        from rs_embed.exports.results.exploring import explore_map

        options = PageOptions(base_map, stored, max_mb)
        return explore_map(self, bbox, path, time=time, level=level, imagery=imagery, options=options)

    def widget(
        self,
        bbox: Box = None,
        *,
        time: Time = None,
        level: int = 0,
        imagery: "Backend | None" = None,
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
                bbox, page, time=time, level=level, imagery=imagery, base_map=base_map, stored=stored
            ),
            height_px,
        )
