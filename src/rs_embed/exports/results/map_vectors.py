"""Read vectors of a map: at points, of examples, and the most similar ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import shapely
from numpy.typing import DTypeLike, NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.checks import require_lon_lat, short
from rs_embed.core.optional import require
from rs_embed.core.specs import BBox, PointBuffer, Region, TemporalSpec
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.points import cells_of
from rs_embed.embedding.similarity import ModelFacts, require_same_model
from rs_embed.errors import NoValidPixels, OutsideCoverage, RSEmbedError, SpecError, StorageError
from rs_embed.exports.results.map_level import Cells, Level
from rs_embed.formats.base import RunHeader
from rs_embed.places import Given, Places, read_places
from rs_embed.places.kept import frame_of

if TYPE_CHECKING:
    import geopandas

    from rs_embed.exports.results.embedding_map import EmbeddingMap
    from rs_embed.exports.results.map_store import Time

_ANY_BUFFER_M = 1.0
"""The size that places require; points have none."""


@dataclass(frozen=True, eq=False)
class MapVector:
    """The vector of one token of a map."""

    data: NDArray[np.float32]
    """`[D]`."""
    geobox: GeoBox
    """The token's own cell."""
    valid: float
    """Share of valid pixels under the token, 0 to 1."""
    window: TemporalSpec | None
    """Its days."""
    header: RunHeader
    """The model, its weights and licence."""

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        """Return `data`, for `np.asarray(vector)` and functions that take arrays."""
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        x, y = self.geobox.affine @ (0.5, 0.5)
        return f"MapVector({self.header.model_id}, {self.data.shape}, {x:.1f}, {y:.1f} in {self.geobox.crs})"


Example: TypeAlias = tuple[float, float] | MapVector | Embedding | NDArray[np.floating]
Examples: TypeAlias = Example | Sequence[Example]


def vector_at(whole: "EmbeddingMap", lon: float, lat: float, time: "Time") -> MapVector:
    """See `EmbeddingMap.at`."""
    lon, lat = require_lon_lat(lon, lat)
    number, level = whole.time_number(time), whole.levels[0]
    (row,), (col,) = cells_of(level.geobox, np.array([lon]), np.array([lat]))
    cell = Cells(int(row), int(col), 1, 1)
    data = level.tokens(number, cell)[0, 0] if row >= 0 else np.full(whole.dim, np.nan, np.float32)
    if not np.isfinite(data).all():
        raise _Missing(whole, number).why(cell, lon, lat)
    share = float(level.valid(number, cell.rows, cell.cols)[0, 0])
    return MapVector(data, cell.geobox(level.geobox), share, whole.times[number], whole.header)


def sample_map(whole: "EmbeddingMap", points: Given, time: "Time") -> "geopandas.GeoDataFrame":
    """See `EmbeddingMap.sample`."""
    require("geopandas", "export")
    import geopandas
    import pandas as pd

    number, places = whole.time_number(time), read_places(points, buffer_m=None if _has_size(points) else _ANY_BUFFER_M)
    if np.isnan(places.lon).any():
        raise SpecError(
            f"Expected points, got a box or a polygon in row {int(np.isnan(places.lon).argmax())}.",
            fix="take its centroid; `to_xarray(bbox)` gives all that it covers",
        )
    found = _sampled(whole, number, places)
    rows = pd.DataFrame(
        {
            "embedding": pd.Series(found.vectors, dtype=object),
            "valid_fraction": found.valid,
            "status": ["failed" if one is None else "ok" for one in found.vectors],
            "error": pd.Series(found.errors, dtype=object),
        }
    )
    ids = pd.Series([place.id for place in places], name="id", dtype=object)
    frame = pd.concat([ids, frame_of([place.kept for place in places]), rows], axis=1)
    return geopandas.GeoDataFrame(frame, geometry=shapely.points(places.lon, places.lat), crs="EPSG:4326")


def _has_size(points: Given) -> bool:
    """Whether these are specs, which have a size of their own."""
    if isinstance(points, list | tuple) and points:
        return isinstance(points[0], PointBuffer | BBox | Region)
    return isinstance(points, Places)


@dataclass
class _Sampled:
    vectors: list[NDArray[np.float32] | None]
    valid: NDArray[np.float32]
    errors: list[str | None]


def _sampled(whole: "EmbeddingMap", number: int, places: Places) -> _Sampled:
    level, missing = whole.levels[0], _Missing(whole, number)
    rows, cols = cells_of(level.geobox, places.lon, places.lat)
    found = _Sampled([None] * len(places), np.full(len(places), np.nan, np.float32), [None] * len(places))
    for indices in _by_chunk(level, rows, cols):
        try:
            tokens, shares = _of_chunk(level, number, rows[indices], cols[indices])
        except StorageError as error:
            for index in indices:
                found.errors[index] = f"{type(error).__name__}: {error}"
            continue
        for index, token, share in zip(indices.tolist(), tokens, shares, strict=True):
            if np.isfinite(token).all():
                found.vectors[index], found.valid[index] = token, share
                continue
            why = missing.why(Cells(int(rows[index]), int(cols[index]), 1, 1), places.lon[index], places.lat[index])
            found.errors[index] = f"{type(why).__name__}: {why.headline}"
    return found


def _by_chunk(level: Level, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield the points of each chunk, then those outside of the grid."""
    across = -(-level.whole.width // level.chunk)
    chunks = np.where(rows < 0, -1, rows // level.chunk * across + cols // level.chunk)
    order = np.argsort(chunks, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1)


def _of_chunk(
    level: Level, number: int, rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tokens `[N, D]` and shares `[N]` at the points of one chunk; NaN outside of the grid (-1)."""
    if rows[0] < 0:
        return np.full((len(rows), level.dim), np.nan, np.float32), np.zeros(len(rows), np.float32)
    top, left = int(rows.min()), int(cols.min())
    window = Cells(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
    inside = (rows - top, cols - left)
    return level.tokens(number, window)[inside], level.valid(number, window.rows, window.cols)[inside]


@dataclass
class _Missing:
    """Explains why there is no token at a place."""

    whole: "EmbeddingMap"
    time: int
    _done: set[tuple[int, int]] | None = field(default=None, init=False)

    def why(self, cell: Cells, lon: float, lat: float) -> RSEmbedError:
        """Return the error for a cell of level 0; a row of -1 means outside of the grid."""
        level, region = self.whole.levels[0], self.whole.region
        edges = ", ".join(f"{edge:.0f}" for edge in region.bounds)
        if cell.row < 0 or not shapely.intersects(region, shapely.box(*cell.geobox(level.geobox).boundingbox)):
            return OutsideCoverage(
                f"Expected a place in the region of the map, got lon {lon:.6f}, lat {lat:.6f}, which lies outside.",
                region=f"{edges} (left, bottom, right, top) in {level.geobox.crs}",
                fix="choose a place inside; `map.region` is the outline",
            )
        block = (cell.row // level.block, cell.col // level.block)
        if self._done is None:
            self._done = set(level.done(self.time))
        if block not in self._done:
            return OutsideCoverage(
                f"Expected a block that is done, got lon {lon:.6f}, lat {lat:.6f} in one that is missing so far.",
                block=f"row {block[0]}, column {block[1]} of blocks, time {self.time}",
                fix="repeat the same call of embed_region: it continues with the missing blocks",
            )
        return NoValidPixels(
            f"Expected valid pixels, got lon {lon:.6f}, lat {lat:.6f} in a token of nodata.",
            token=f"row {cell.row}, column {cell.col}, time {self.time}",
            fix="choose a place nearby, or another time",
        )


def direction(
    whole: "EmbeddingMap",
    place: tuple[float | None, float | None],
    like: Examples | None,
    unlike: Examples,
    time: "Time",
) -> NDArray[np.float32]:
    """Return the vector that tokens are compared with, `[D]`; see `EmbeddingMap.similar`."""
    lon, lat = place
    if (like is None) == (lon is None) or (lon is None) != (lat is None):
        raise SpecError(
            "Expected a place or examples, got " + ("both." if like is not None else "neither, or half of a place."),
            fix="similar(lon, lat), or similar(like=[...], unlike=[...])",
        )
    given: Examples = like if like is not None else (float(lon or 0), float(lat or 0))
    wanted = [_unit(whole, one, time) for one in _listed(given)]
    if not wanted:
        raise SpecError("Expected at least one example in like, got none.", fix="for example like=[(12.94, 47.77)]")
    vector: NDArray[np.float64] = np.mean(wanted, axis=0)
    if others := [_unit(whole, one, time) for one in _listed(unlike)]:
        vector = vector - np.mean(others, axis=0)
    if not np.linalg.norm(vector) > np.finfo(np.float32).eps:
        raise SpecError("Expected examples that differ from those in unlike, got the same.", fix="choose other ones")
    return vector.astype(np.float32)


def _listed(given: Examples) -> list[Example]:
    if isinstance(given, MapVector | Embedding):
        return [given]
    if isinstance(given, np.ndarray):
        return list(np.atleast_2d(given))
    if isinstance(given, tuple) and len(given) == 2:
        lon, lat = given
        if isinstance(lon, int | float | np.number) and isinstance(lat, int | float | np.number):
            return [(float(lon), float(lat))]
    if isinstance(given, list | tuple):
        return [one for part in given for one in _listed(part)]
    raise SpecError(
        f"Expected examples, got {short(given)}.", fix="a (lon, lat), a vector, an Embedding, or a list of these"
    )


def _unit(whole: "EmbeddingMap", example: Example, time: "Time") -> NDArray[np.float64]:
    """Return the vector of an example, of length 1.

    Raises:
        SpecError: It belongs to another model, has another length, or is zero or NaN.
    """
    if isinstance(example, tuple):
        example = vector_at(whole, *example, time)
    if isinstance(example, Embedding):
        if example.is_grid:
            raise SpecError("Expected a vector, got a grid.", fix="take one of its tokens: emb.at(lon, lat)")
        mine = ModelFacts.of(example)
        require_same_model(mine, facts_of(whole.header, whole.dim, mine.weights), "map")
    if isinstance(example, MapVector) and example.header is not whole.header:
        mine = facts_of(example.header, len(example.data), whole.header.weights)
        require_same_model(mine, facts_of(whole.header, whole.dim, mine.weights), "map")
    vector = np.asarray(example, np.float64)
    if vector.shape != (whole.dim,):
        raise SpecError(f"Expected a vector of {whole.dim} numbers, got the shape {vector.shape}.", fix="see map.dim")
    length = np.linalg.norm(vector)
    if not (np.isfinite(length) and length > 0):
        raise SpecError("Expected a vector with a direction, got zeros or NaN.", fix="choose another example")
    return vector / length


def facts_of(header: RunHeader, dim: int, weights: str | None = None) -> ModelFacts:
    """Return what must be equal in two maps.

    Args:
        header: Header of the map.
        dim: Length of its vectors.
        weights: Assumed if the header does not state the weights.
    """
    return ModelFacts(header.model_id, header.card_revision, header.weights or weights or "", dim)
