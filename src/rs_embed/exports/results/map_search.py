"""Find the tokens of a map that are most similar to a vector: by its index, or by comparing all tokens."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from rs_embed.core.checks import require_whole, short
from rs_embed.core.geo import project
from rs_embed.core.optional import require
from rs_embed.core.specs import BBox
from rs_embed.embedding.points import cells_of
from rs_embed.embedding.similarity import cosine
from rs_embed.errors import SpecError
from rs_embed.exports.results.map_level import Cells, Level, ground, tokens_in

if TYPE_CHECKING:
    import geopandas

    from rs_embed.exports.region.shape import RegionLike
    from rs_embed.exports.results.embedding_map import EmbeddingMap
    from rs_embed.exports.results.map_index import MapIndex
    from rs_embed.exports.results.map_store import Time

EXACT_BYTES = 64_000_000
"""Tokens of a filter that are compared one by one even if there is an index, bytes."""


@dataclass(frozen=True)
class TokenSearch:
    """Which tokens a search may find, and how many it returns."""

    top: int
    level: Level
    times: tuple[int, ...]
    within: shapely.MultiPolygon | None = None
    """In the CRS of the map."""
    crop: Cells | None = None
    """The cells around it."""
    itself: tuple[int, int, int] = (-1, -1, -1)
    """Time, row and column of the token that is not to be found."""

    @classmethod
    def of(
        cls,
        whole: "EmbeddingMap",
        place: tuple[float, float] | None,
        top: int,
        *,
        level: int,
        time: "Time",
        times: "Sequence[Time] | None",
        within: "RegionLike | None",
    ) -> "TokenSearch":
        """Check the arguments of a search; see `EmbeddingMap.most_similar`.

        Raises:
            SpecError: There is no such level or time, or `within` is no place.
            OutsideCoverage: `within` is outside of the map.
        """
        require_whole("top", top, 1, sys.maxsize)
        one = whole.level(level)
        if times is not None and (isinstance(times, str) or not isinstance(times, Sequence) or not times):
            raise SpecError(f"Expected a list of times, got {short(times)}.", fix="times=region.times for all of them")
        numbers = {whole.time_number(moment) for moment in ([time] if times is None else times)}
        itself = (-1, -1, -1)
        if place is not None:
            (row,), (col,) = cells_of(one.geobox, np.array([place[0]]), np.array([place[1]]))
            itself = (whole.time_number(time), int(row), int(col))
        crs = str(one.geobox.crs)
        shape = _shape(within, crs)
        crop = None if shape is None else one.crop(_around(shape, crs))
        return cls(top, one, tuple(sorted(numbers)), shape, crop, itself)

    @property
    def tokens(self) -> float:
        """About how many tokens may be found."""
        cells = math.prod(self.level.geobox.shape)
        if self.within is not None:
            cells = min(cells, self.within.area / abs(self.level.geobox.affine.determinant))
        return cells * len(self.times)


def _shape(within: "RegionLike | None", crs: str) -> shapely.MultiPolygon | None:
    from rs_embed.exports.region.shape import shapes_of  # here, because it needs the readers of places

    if within is None:
        return None
    if isinstance(within, tuple) and len(within) == 4:
        within = BBox(*within)
    return shapes_of(within, crs)[crs]


def best_places(
    asked: TokenSearch, vector: NDArray[np.float32], index: "MapIndex | None" = None
) -> "geopandas.GeoDataFrame":
    """See `EmbeddingMap.most_similar`.

    Args:
        asked: What may be found.
        vector: What it is compared with, `[D]`.
        index: The index to use, unless few tokens may be found.
    """
    require("geopandas", "export")
    import geopandas

    level = asked.level
    if index is None or 4 * level.dim * asked.tokens <= EXACT_BYTES:
        best = _scanned(asked, vector)
        attrs: Mapping[str, object] = {"exact": True}
    else:
        best, attrs = index.search(asked, vector), index.attrs
    rows, cols = best[:, 1].astype(int), best[:, 2].astype(int)
    xs, ys = ground(level.geobox, rows + 0.5, cols + 0.5)
    points = shapely.points(*project(xs, ys, str(level.geobox.crs), "EPSG:4326"))
    columns = {"similarity": best[:, 0].astype(np.float32), "row": rows, "column": cols, "time": best[:, 3].astype(int)}
    found = geopandas.GeoDataFrame(columns, geometry=points, crs="EPSG:4326")
    found.attrs.update(attrs)
    return found


def _scanned(asked: TokenSearch, vector: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compare all tokens, window by window: similarity, row, column and time of the best, `[n, 4]`."""
    level, within = asked.level, asked.within
    best = np.empty((0, 4))
    for time in asked.times:
        for window in level.windows(time, asked.crop):
            likeness = cosine(level.tokens(time, window), vector).astype(np.float64)
            if within is not None:
                likeness[~tokens_in(within, window.geobox(level.geobox))] = np.nan
            rows, cols = np.nonzero(likeness >= (best[-1, 0] if len(best) == asked.top else -np.inf))
            moments = np.full(len(rows), time)
            found = np.stack([likeness[rows, cols], rows + window.row, cols + window.col, moments], axis=1)
            best = best_of(np.concatenate([best, found]), asked)
    return best


def _around(shape: shapely.MultiPolygon, crs: str) -> BBox:
    west, south, east, north = shape.bounds
    return BBox(west, south, east, north, crs)


def best_of(found: NDArray[np.float64], asked: TokenSearch) -> NDArray[np.float64]:
    """Sort tokens `[n, 4]`, best first; keep `top` of them, without the place itself."""
    time, row, col = asked.itself
    others = found[(found[:, 1] != row) | (found[:, 2] != col) | (found[:, 3] != time)]
    order = np.lexsort((others[:, 3], others[:, 2], others[:, 1], -others[:, 0]))
    best: NDArray[np.float64] = others[order[: asked.top]]
    return best
