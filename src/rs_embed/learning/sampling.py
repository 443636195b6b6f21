"""The vectors of places: tokens of grids and maps under them, or pooled vectors.

A map consists of tokens, so a head for maps is trained on tokens. A point has the token that contains it. A polygon or
box has the tokens whose middle lies inside.
"""

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.geo import one_cell, project
from rs_embed.core.progress import progress_bar
from rs_embed.core.specs import BBox, PointBuffer, SpatialSpec
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.meta import Meta
from rs_embed.embedding.points import cells_of
from rs_embed.errors import Failure, NoValidPixels, OutsideCoverage, RSEmbedError, SpecError
from rs_embed.exports.region.shape import shapes_of
from rs_embed.exports.results.map_level import tokens_in
from rs_embed.learning.origin import VectorOrigin
from rs_embed.pipeline.request import EmbeddingRequest
from rs_embed.places import Given, Places, Temporal, read_places
from rs_embed.places.naming import Columns
from rs_embed.places.reading import is_frame, opened_table
from rs_embed.plan import Plan, resolved

if TYPE_CHECKING:
    import geopandas

    from rs_embed.exports.results.embedding_map import EmbeddingMap
    from rs_embed.exports.results.map_store import Time
    from rs_embed.exports.results.run import Run

TOKENS_PER_PLACE = 16
"""Most tokens of one polygon: more of them hardly differ."""


@dataclass
class Vectors:
    """The vectors of some places: none, one or several for each."""

    values: list[NDArray[np.float32]] = field(default_factory=list)
    """`[n, D]` for each place; n is 0 if it failed."""
    errors: dict[int, str] = field(default_factory=dict)
    """Position of a place -> why it has no vector."""
    origin: VectorOrigin | None = None

    def add(self, found: NDArray[np.float32] | Exception | str) -> None:
        """Add the next place: its vectors, or why it has none."""
        if not isinstance(found, np.ndarray):
            self.errors[len(self.values)] = found if isinstance(found, str) else told(found)
            found = np.empty((0, 0), np.float32)
        self.values.append(found)

    def add_origin(self, origin: VectorOrigin) -> None:
        """Check that vectors come from the same model and settings as those before.

        Raises:
            SpecError: They do not.
        """
        self.origin = origin if self.origin is None else self.origin.joined(origin)

    @property
    def known_origin(self) -> VectorOrigin:
        """The origin.

        Raises:
            SpecError: No place has a vector.
        """
        if self.origin is None:
            raise self._none()
        return self.origin

    def take(self, rows: NDArray[np.int64]) -> "Vectors":
        """Select places, in this order."""
        errors = {at: self.errors[row] for at, row in enumerate(rows.tolist()) if row in self.errors}
        return Vectors([self.values[row] for row in rows.tolist()], errors, self.origin)

    def stacked(self) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Return all vectors `[M, D]`, and for each the position of its place, `[M]`.

        Raises:
            SpecError: No place has a vector.
        """
        counts = [len(one) for one in self.values]
        if not any(counts):
            raise self._none()
        return np.concatenate([one for one in self.values if len(one)]), np.repeat(np.arange(len(counts)), counts)

    def _none(self) -> SpecError:
        return SpecError(
            f"Expected vectors of {len(self.values)} places, got none.",
            first=next(iter(self.errors.values()), None),
            fix="check that the places lie where there is imagery",
        )


def told(error: Exception) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {error.headline if isinstance(error, RSEmbedError) else error}"


def with_size(given: Given, half_m: float | None) -> tuple[Given, float | None]:
    """Open a table of places; return it with the buffer to read it with: none if it has its own, or no points."""
    table = opened_table(given, Columns())
    if is_frame(table):
        own = "buffer_m" in Columns().found(table.columns)
    else:
        own = isinstance(table, list | tuple) and len(table) > 0 and isinstance(table[0], SpatialSpec)
    return cast("Given", table), None if own else half_m


def places_of(given: Given, temporal: Temporal = None, half_m: float | None = None) -> Places:
    """Read places; points without a buffer get one of `half_m`, metres."""
    if isinstance(given, Places):
        return given
    table, half_m = with_size(given, half_m)
    return read_places(table, temporal=temporal, buffer_m=half_m)


def computed(places: Places, request: EmbeddingRequest, *, progress: bool = True) -> Vectors:
    """Compute the vectors of places, fetching ahead; memory holds a grid only until its tokens are taken."""
    grids = request.output.kind == "grid"
    half_m = context_m(request) if grids else 0.0
    spatials = [_around(place.spatial, half_m) if grids else place.spatial for place in places]
    plan = Plan.laid(request, spatials, [place.window for place in places])
    found = Vectors()
    with (
        progress_bar(len(places), shown=progress, label="embed", unit="places") as advance,
        closing(plan.run()) as results,
    ):
        for place, result in zip(places, results, strict=True):
            if isinstance(result, Failure):
                found.add(result.error)
            else:
                found.add_origin(VectorOrigin.of(result))
                found.add(of_grid(result, place.spatial) if grids else result.data[None])
            advance(1, isinstance(result, Failure))
    return found


def context_m(request: EmbeddingRequest) -> float:
    """Return half the side of the square that gives a point's token all of the network's window, metres."""
    from rs_embed.embedders.base import embedder_for
    from rs_embed.embedders.runtime.device import pick_device

    model = resolved(request)
    return embedder_for(model, pick_device(request.device)).geometry().image_px * model.scale_m / 2


def in_region(places: Places, region: "EmbeddingMap", time: "Time") -> Vectors:
    """Read the tokens of places from the map of a region; each chunk of points is read once."""
    number, level, found = region.time_number(time), region.levels[0], Vectors(origin=VectorOrigin.of_map(region))
    is_point = np.isfinite(places.lon)
    rows = region.sample(places.take(np.flatnonzero(is_point)), time) if is_point.any() else None
    points = iter(()) if rows is None else zip(rows["embedding"], rows["error"], strict=True)
    for place, point in zip(places, is_point.tolist(), strict=True):
        if point:
            vector, error = next(points)
            found.add(error if vector is None else vector[None])
            continue
        try:
            cells = level.crop(place.spatial)  # type: ignore[arg-type]  # a box or a polygon
        except OutsideCoverage as error:
            found.add(error)
            continue
        found.add(_inside(level.tokens(number, cells), cells.geobox(level.geobox), place.spatial))
    return found


def of_run(run: "Run", model: str | None) -> tuple["geopandas.GeoDataFrame", Vectors]:
    """Read the pooled vectors of a run, and its table.

    Raises:
        SpecError: The run holds grids.
    """
    header = run.header(model)
    if header is not None and header.output == "grid":
        raise SpecError(
            "Expected a run of pooled vectors, got grids.",
            fix="fit from the table of labels with model=..., which takes the tokens under the places",
        )
    frame, found = run.to_frame(model), Vectors()
    for vector, status, error, meta in zip(
        frame["embedding"], frame["status"], frame["error"], frame["meta"], strict=True
    ):
        if status == "ok":
            found.add_origin(VectorOrigin.of_meta(Meta.model_validate_json(meta), len(vector)))
        found.add(vector[None] if status == "ok" else str(error))
    return frame, found


def of_grid(grid: Embedding, spatial: SpatialSpec) -> NDArray[np.float32] | RSEmbedError:
    """Return the tokens of a grid under a place, `[n, D]`, or why there are none."""
    if grid.geobox is None:
        return SpecError("Expected a georeferenced grid, got one without a place.", fix="pass spatial=...")
    return _inside(np.moveaxis(grid.data, 0, -1), grid.geobox, spatial)


def _inside(tokens: NDArray[np.float32], geobox: GeoBox, spatial: SpatialSpec) -> NDArray[np.float32] | RSEmbedError:
    """Choose among tokens `[H, W, D]`: the one under a point, or those inside of a polygon."""
    if isinstance(spatial, PointBuffer):
        lon, lat = spatial.lon, spatial.lat
    else:
        crs = str(geobox.crs)
        shape = shapes_of(spatial, crs)[crs]
        found = tokens[tokens_in(shape, geobox) & np.isfinite(tokens).all(axis=-1)]
        if len(found):
            spread = np.linspace(0, len(found) - 1, min(len(found), TOKENS_PER_PLACE)).round().astype(int)
            return np.asarray(found[spread], np.float32)
        middle = shape.representative_point()  # it is smaller than a token
        (lon,), (lat,) = project(np.array([middle.x]), np.array([middle.y]), crs, "EPSG:4326")
    (row,), (col,) = cells_of(geobox, np.array([lon]), np.array([lat]))
    if row < 0:
        return OutsideCoverage(f"Expected lon {lon:.6f}, lat {lat:.6f} on the grid, got it outside.")
    token = np.asarray(tokens[row, col], np.float32)
    if not np.isfinite(token).all():
        return NoValidPixels(f"Expected valid pixels at lon {lon:.6f}, lat {lat:.6f}, got a token of nodata.")
    return token[None]


def _around(spatial: SpatialSpec, half_m: float) -> SpatialSpec:
    """Return the square to fetch for the tokens of a place: at least the network's window. Points have their own."""
    if isinstance(spatial, PointBuffer):
        return spatial
    cell = one_cell(spatial)
    left, bottom, right, top = cell.boundingbox
    x, y, half_m = (left + right) / 2, (bottom + top) / 2, max(half_m, (right - left) / 2, (top - bottom) / 2)
    return BBox(x - half_m, y - half_m, x + half_m, y + half_m, str(cell.crs))
