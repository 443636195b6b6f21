"""The grid of a map: tokens in blocks, blocks on a lattice that is the same for every region."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, Field

from rs_embed.core.geo import prepared
from rs_embed.core.specs import GridBlock, TemporalSpec
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from shapely import MultiPolygon

    from rs_embed.embedders.base import Embedder

MAX_BLOCK_PX = 2048
"""Largest side of a block, pixels: 10 bands of its imagery are 170 MB."""
MAX_BLOCK_BYTES = 64 * 2**20
"""Largest size of a block's tokens, bytes; a block is one file of the map."""
SMALLEST_OVERVIEW = 8
"""Fewest tokens along a block in the coarsest overview; each block writes its own part of every overview."""
_SLIVER = 1e-6
"""Rounding tolerance at the edges of a region, as a share of a window."""
Rings = list[list[tuple[float, float]]]


@dataclass(frozen=True)
class BlockSize:
    """How large a block is, and how much imagery around it its tokens need."""

    cells: int
    """Tokens along a side."""
    step_cells: int
    """Tokens from the start of one window to the start of the next; the side of a block is a multiple of it."""
    cell_m: float
    before_m: float
    """Imagery that tokens need to their west and north."""
    after_m: float
    """Imagery that tokens need to their east and south."""
    shift_m: float
    """Distance from a token's north-west corner to its first pixel."""


def block_size(embedder: "Embedder", cells: int | None = None) -> BlockSize:
    """Return the block size of a model: whole windows, so that a map equals one tiled call over the whole region.

    A block is encoded with all windows that contribute to its tokens. The lattice of windows does not depend on the
    size of a block, so the size does not change the values. If coarser tokens are interpolated to finer ones, a block
    begins one coarse token before a window, which saves a row of windows at its other end.

    Args:
        embedder: The model.
        cells: Tokens along a side. Default: as many as the limits allow, or slightly fewer if that number can be halved
            more often, for overviews.

    Raises:
        SpecError: Blocks of so many tokens would cut windows.
    """
    geometry, cell_px = embedder.geometry(), embedder.cell_px
    size, stride = _lattice(embedder)
    step, scale_m = math.lcm(stride, cell_px), embedder.request.scale_m
    step_cells = step // cell_px
    if cells is None:
        dim = embedder.readout.width(embedder.request.output)
        most_cells = min(MAX_BLOCK_PX // cell_px, int((MAX_BLOCK_BYTES / (4 * dim)) ** 0.5))
        most = max(1, most_cells // step_cells)
        counts = range(max(1, most // 2), most + 1)
        cells = step_cells * max(counts, key=lambda count: (_halvings(count * step_cells), count))
    if cells < 1 or cells % step_cells:
        raise SpecError(
            f"Expected block_cells as a multiple of {step_cells} for {embedder.request.card.id}, got {cells}.",
            fix=f"block_cells={max(1, round(cells / step_cells)) * step_cells}",
        )
    coarse_px = geometry.lattice_px if len(embedder.readout.grids) > 1 else 0
    before_px = -coarse_px - stride * (math.floor((-2 * coarse_px - size) / stride) + 1)
    after_px = size - stride + coarse_px
    margins_m = (px * scale_m for px in (before_px, after_px, geometry.token_shift_px))
    return BlockSize(cells, step_cells, cell_px * scale_m, *margins_m)


def _lattice(embedder: "Embedder") -> tuple[int, int]:
    """Side of the windows in which tokens see each other, and the distance between their starts, pixels."""
    from rs_embed.embedders.prepare.framing import frame_chip, stride_of

    geometry = embedder.geometry()
    wide = 4 * max(geometry.image_px, geometry.lattice_px)
    frame = embedder.windows(frame_chip((wide, wide), "tile", geometry))
    if len(frame.windows) == 1:  # no windows: tokens see only themselves
        return geometry.lattice_px, geometry.lattice_px
    size = frame.windows[0].height
    return size, stride_of(size, geometry.lattice_px)


def _halvings(count: int) -> int:
    """How often a block of `cells` tokens can be halved for its overviews."""
    levels = 0
    while count % 2 == 0 and count // 2 >= SMALLEST_OVERVIEW:
        count, levels = count // 2, levels + 1
    return levels


class MapGrid(BaseModel):
    """The grid of a map's tokens; can be written as JSON and read back."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    crs: str
    west: float
    """Western edge of all tokens, metres of the CRS; like `north`, the start of a window."""
    north: float
    height: Annotated[int, Field(ge=1)]
    """Tokens from north to south; the last blocks may extend further."""
    width: Annotated[int, Field(ge=1)]
    cells: Annotated[int, Field(ge=1)]
    """Tokens along the side of a block."""
    step_cells: Annotated[int, Field(ge=1)]
    cell_m: float
    before_m: float
    after_m: float
    shift_m: float
    region: tuple[Rings, ...]
    """The region's polygons in the CRS: exterior ring, then holes."""
    days: tuple[tuple[date, date] | None, ...]
    """The windows of the time axis: first day, and day after the last."""

    @classmethod
    def over(
        cls, region: "MultiPolygon", crs: str, size: BlockSize, windows: tuple[TemporalSpec | None, ...]
    ) -> "MapGrid":
        """Cover a region with blocks, from the window that contains its north-west corner.

        Args:
            region: The region, in the CRS.
            crs: A projected CRS in metres.
            size: The size of a block.
            windows: The windows of the time axis.
        """
        step_m = size.step_cells * size.cell_m
        west, south, east, north = region.bounds
        left = step_m * math.floor(west / step_m + _SLIVER)
        top = step_m * math.ceil(north / step_m - _SLIVER)
        parts = 1 << _halvings(size.cells)
        height, width = (
            parts * max(1, math.ceil(length / (parts * size.cell_m) - _SLIVER)) for length in (top - south, east - left)
        )
        rings = tuple(
            [[(x, y) for x, y in ring.coords] for ring in (part.exterior, *part.interiors)] for part in region.geoms
        )
        days = tuple(None if window is None else (window.start, window.end) for window in windows)
        given = {
            "crs": crs,
            "west": left,
            "north": top,
            "height": height,
            "width": width,
            "region": rings,
            "days": days,
        }
        return cls(**vars(size), **given)

    @property
    def rows(self) -> int:
        """Number of blocks from north to south."""
        return -(-self.height // self.cells)

    @property
    def columns(self) -> int:
        """Number of blocks from west to east."""
        return -(-self.width // self.cells)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.height, self.width

    @property
    def geobox(self) -> GeoBox:
        """The grid of all tokens."""
        return GeoBox(self.shape, Affine(self.cell_m, 0, self.west, 0, -self.cell_m, self.north), self.crs)

    @property
    def windows(self) -> tuple[TemporalSpec | None, ...]:
        """The time axis."""
        return tuple(None if days is None else TemporalSpec(*days) for days in self.days)

    @cached_property
    def levels(self) -> int:
        """Number of overviews, each with half the resolution of the one before."""
        return _halvings(self.cells)

    def block_geobox(self, row: int, column: int) -> GeoBox:
        """Return the grid of a block's tokens."""
        corner = self.geobox.affine @ Affine.translation(column * self.cells, row * self.cells)
        return GeoBox((self.cells, self.cells), corner, self.crs)

    def blocks(self) -> Iterator[tuple[int, GridBlock]]:
        """Yield number and place of every block that overlaps the region, one time after the other.

        The place is the part of the block that the region covers, in whole windows.
        """
        places = [(row, column, place) for row, column in self._touched() if (place := self._place(row, column))]
        for time in range(len(self.days)):
            yield from ((self.number(time, row, column), place) for row, column, place in places)

    def _touched(self) -> Iterator[tuple[int, int]]:
        import shapely

        side_m = self.cells * self.cell_m
        rows, columns = (one.ravel() for one in np.mgrid[: self.rows, : self.columns])
        west, north = self.west + columns * side_m, self.north - rows * side_m
        boxes = shapely.box(west, north - side_m, west + side_m, north)
        touched = shapely.intersects(prepared(self.polygons), boxes)
        yield from zip(rows[touched].tolist(), columns[touched].tolist(), strict=True)

    def _place(self, row: int, column: int) -> GridBlock | None:
        """The part of a block to embed; `None` if the region only touches its border."""
        import shapely

        west, south, east, north = self.block_geobox(row, column).boundingbox.bbox
        there = shapely.clip_by_rect(self.polygons, west, south, east, north)
        if there.area == 0:
            return None
        left, bottom, right, top = there.bounds
        step_m = self.step_cells * self.cell_m
        return self._fitted((left, bottom, right, top), (west, north), step_m)

    def _fitted(
        self, bounds: tuple[float, float, float, float], corner: tuple[float, float], step_m: float
    ) -> GridBlock:
        """The pixel area of the smallest rectangle of whole steps from a corner that contains the bounds."""
        (left, bottom, right, top), (west, north) = bounds, corner
        x0, y0 = (math.floor(distance / step_m + _SLIVER) * step_m for distance in (left - west, north - top))
        x1, y1 = (math.ceil(distance / step_m - _SLIVER) * step_m for distance in (right - west, north - bottom))
        x, y = west + self.shift_m, north - self.shift_m
        return GridBlock(x + x0, y - y1, x + x1, y - y0, self.crs, self.before_m, self.after_m)

    def number(self, time: int, row: int, column: int) -> int:
        """Return the number of a block within the map."""
        return (time * self.rows + row) * self.columns + column

    def position(self, number: int) -> tuple[int, int, int]:
        """Return time, row and column of a block."""
        rest, column = divmod(number, self.columns)
        return *divmod(rest, self.rows), column

    @cached_property
    def polygons(self) -> "MultiPolygon":
        """The region."""
        from shapely import MultiPolygon, Polygon

        return MultiPolygon([Polygon(rings[0], rings[1:]) for rings in self.region])

    def masked(self, embedding: Embedding) -> Embedding:
        """Return an embedding in which tokens outside of the region are NaN and their valid share is 0."""
        if embedding.geobox is None:
            return embedding
        inside = self.inside(embedding.geobox)
        data = np.where(inside, embedding.data, np.float32(np.nan))
        valid = None if embedding.valid is None else np.where(inside, embedding.valid, np.float32(0))
        return replace(embedding, data=data, valid=valid)

    def overlaps(self, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which boxes `[n, 4]` (west, south, east, north) overlap or touch the region.

        Unlike `inside`, it may run in several threads at the same time.
        """
        import shapely

        found: NDArray[np.bool_] = shapely.intersects(prepared(self.polygons), shapely.box(*boxes.T))
        return found

    def inside(self, geobox: GeoBox) -> NDArray[np.bool_]:
        """Return which tokens the region touches, `[row, col]`."""
        import shapely
        from rasterio.features import geometry_mask

        left, bottom, right, top = geobox.boundingbox.bbox
        there = shapely.clip_by_rect(self.polygons, left, bottom, right, top)
        if there.is_empty:
            return np.zeros(tuple(geobox.shape), bool)
        mask: NDArray[np.bool_] = geometry_mask([there], geobox.shape, geobox.affine, all_touched=True, invert=True)
        return mask
