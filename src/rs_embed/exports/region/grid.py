"""The grid of a map: tokens in blocks, blocks on a lattice that is the same for every region."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, Field

from rs_embed.core.specs import GridBlock, TemporalSpec
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from shapely import MultiPolygon

    from rs_embed.embedders.base import Embedder

MAX_BLOCK_PX = 2048
"""Side of a block: 10 bands of its imagery are 170 MB."""
MAX_BLOCK_BYTES = 64 * 2**20
"""Of the tokens of a block, which is one file of the map."""
BLOCK_COST_PX = 128
"""What a block costs beside its pixels, as a margin of so many."""
SMALLEST_OVERVIEW = 8
"""Tokens along a block at the coarsest overview; a block writes its own part of each."""
Rings = list[list[tuple[float, float]]]


@dataclass(frozen=True)
class BlockSize:
    """How large a block is, and how much imagery around it its tokens need."""

    cells: int
    """Tokens along a side."""
    cell_m: float
    before_m: float
    after_m: float
    shift_m: float
    """How far north and west of the pixels that a token is made of the token begins."""

    @property
    def side_m(self) -> float:
        """Side on the ground."""
        return self.cells * self.cell_m


def block_size(embedder: "Embedder", extent_m: tuple[float, float], cells: int | None = None) -> BlockSize:
    """The block of a model: so many windows that a map is exactly what one tiled call over everything would give.

    All windows that a token of the block is blended from are encoded with it. Windows lie on the same lattice whatever
    the size of a block, so that does not change a number. Where coarser tokens are interpolated to finer ones, a block
    begins one of them before a window, which saves a row of windows at its other end.

    Args:
        embedder: The model.
        extent_m: Width and height of the region.
        cells: Tokens along a side; `None` chooses.

    Raises:
        SpecError: Blocks of so many tokens would cut windows.
    """
    geometry, cell_px = embedder.geometry(), embedder.cell_px
    size, stride = _lattice(embedder)
    step, scale_m = math.lcm(stride, cell_px), embedder.request.scale_m
    coarse_px = geometry.lattice_px if len(embedder.readout.grids) > 1 else 0
    before_px = -coarse_px - stride * (math.floor((-2 * coarse_px - size) / stride) + 1)
    after_px = size - stride + coarse_px
    if cells is None:
        dim = embedder.readout.width(embedder.request.output)
        most_px = min(MAX_BLOCK_PX, int((MAX_BLOCK_BYTES / (4 * dim)) ** 0.5) * cell_px)

        def cost(count: int) -> float:
            """Pixels to be read for the region, with something for each block; more without overviews."""
            blocks = math.prod(math.ceil(side_m / (count * step * scale_m)) + 1 for side_m in extent_m)
            overviews = min(_halvings(count * step // cell_px), 3)
            return blocks * (count * step + before_px + after_px + BLOCK_COST_PX) ** 2 * (1 - overviews / 20)

        cells = min(range(1, max(1, most_px // step) + 1), key=cost) * step // cell_px
    if cells < 1 or cells * cell_px % step:
        fitting = max(1, round(cells * cell_px / step)) * step // cell_px
        raise SpecError(
            f"Expected block_cells as a multiple of {step // cell_px} for {embedder.request.card.id}, got {cells}.",
            fix=f"block_cells={fitting}",
        )
    shift_m = geometry.token_shift_px * scale_m
    return BlockSize(cells, cell_px * scale_m, before_px * scale_m, after_px * scale_m, shift_m)


def _lattice(embedder: "Embedder") -> tuple[int, int]:
    """Side of the windows in which tokens see each other, and how far they start from each other, pixels."""
    from rs_embed.embedders.prepare.framing import frame_chip, stride_of

    geometry = embedder.geometry()
    wide = 4 * max(geometry.image_px, geometry.lattice_px)
    frame = embedder.windows(frame_chip((wide, wide), "tile", geometry))
    if len(frame.windows) == 1:  # cut by nothing: tokens know only themselves
        return geometry.lattice_px, geometry.lattice_px
    size = frame.windows[0].height
    return size, stride_of(size, geometry.lattice_px)


def _halvings(count: int) -> int:
    """How often a block of so many tokens can be halved for its overviews."""
    levels = 0
    while count % 2 == 0 and count // 2 >= SMALLEST_OVERVIEW:
        count, levels = count // 2, levels + 1
    return levels


class MapGrid(BaseModel):
    """Where the tokens of a map lie, as JSON and back."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    crs: str
    west: float
    """Of the first block, metres of the CRS; a multiple of the block's side, as `north`."""
    north: float
    rows: Annotated[int, Field(ge=1)]
    """Blocks."""
    columns: Annotated[int, Field(ge=1)]
    cells: Annotated[int, Field(ge=1)]
    """Tokens along a block."""
    cell_m: float
    before_m: float
    after_m: float
    shift_m: float
    region: tuple[Rings, ...]
    """Polygons in the CRS: exterior ring, then holes."""
    days: tuple[tuple[date, date] | None, ...]
    """Each window of the time axis: the first day, and the day after the last."""

    @classmethod
    def over(
        cls, region: "MultiPolygon", crs: str, size: BlockSize, windows: tuple[TemporalSpec | None, ...]
    ) -> "MapGrid":
        """The blocks that cover a region.

        Args:
            region: In the CRS.
            crs: Projected, in metres.
            size: Of a block.
            windows: Of the time axis.
        """
        side_m = size.side_m
        west, south, east, north = region.bounds
        left, top = math.floor(west / side_m), math.ceil(north / side_m)
        columns, rows = math.ceil(east / side_m) - left, top - math.floor(south / side_m)
        rings = tuple(
            [[(x, y) for x, y in ring.coords] for ring in (part.exterior, *part.interiors)] for part in region.geoms
        )
        days = tuple(None if window is None else (window.start, window.end) for window in windows)
        given = {"crs": crs, "west": left * side_m, "north": top * side_m, "region": rings, "days": days}
        return cls(rows=max(rows, 1), columns=max(columns, 1), **vars(size), **given)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.rows * self.cells, self.columns * self.cells

    @property
    def geobox(self) -> GeoBox:
        """The grid of all tokens."""
        west, north = self.west - self.shift_m, self.north + self.shift_m
        return GeoBox(self.shape, Affine(self.cell_m, 0, west, 0, -self.cell_m, north), self.crs)

    @property
    def windows(self) -> tuple[TemporalSpec | None, ...]:
        """The time axis."""
        return tuple(None if days is None else TemporalSpec(*days) for days in self.days)

    @cached_property
    def levels(self) -> int:
        """How many overviews there are, each half as fine as the one before."""
        return _halvings(self.cells)

    def block(self, row: int, column: int) -> GridBlock:
        """A block, with the imagery around it."""
        side_m = self.cells * self.cell_m
        west, north = self.west + column * side_m, self.north - row * side_m
        return GridBlock(west, north - side_m, west + side_m, north, self.crs, self.before_m, self.after_m)

    def blocks_inside(self) -> Iterator[tuple[int, int, int]]:
        """Time, row and column of every block that the region touches; one time after the other."""
        import shapely

        side_m = self.cells * self.cell_m
        rows, columns = (one.ravel() for one in np.mgrid[: self.rows, : self.columns])
        west, north = self.west + columns * side_m, self.north - rows * side_m
        shapely.prepare(self.polygons)
        touched = shapely.intersects(self.polygons, shapely.box(west, north - side_m, west + side_m, north))
        for time in range(len(self.days)):
            for index in np.flatnonzero(touched).tolist():
                yield time, int(rows[index]), int(columns[index])

    def number(self, time: int, row: int, column: int) -> int:
        """The number of a block among all of the map."""
        return (time * self.rows + row) * self.columns + column

    def position(self, number: int) -> tuple[int, int, int]:
        """Time, row and column of a block."""
        rest, column = divmod(number, self.columns)
        return *divmod(rest, self.rows), column

    @cached_property
    def polygons(self) -> "MultiPolygon":
        """The region."""
        from shapely import MultiPolygon, Polygon

        return MultiPolygon([Polygon(rings[0], rings[1:]) for rings in self.region])

    def inside(self, geobox: GeoBox) -> NDArray[np.bool_]:
        """`[row, col]`: tokens that the region touches."""
        import shapely
        from rasterio.features import geometry_mask

        left, bottom, right, top = geobox.boundingbox.bbox
        there = shapely.clip_by_rect(self.polygons, left, bottom, right, top)
        if there.is_empty:
            return np.zeros(tuple(geobox.shape), bool)
        mask: NDArray[np.bool_] = geometry_mask([there], geobox.shape, geobox.affine, all_touched=True, invert=True)
        return mask
