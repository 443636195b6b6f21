"""One level of a map, the tokens or an overview, read in pieces of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rs_embed.core.geo import outline, project, subgrid
from rs_embed.core.specs import BBox, Region
from rs_embed.errors import OutsideCoverage, SpecError, StorageError
from rs_embed.formats.parts import UNREADABLE

if TYPE_CHECKING:
    import zarr
    from zarr.core.metadata import ArrayV3Metadata

    Values = zarr.Array[ArrayV3Metadata]

NO_VALUE = -128
"""The number in an int8 map where there is no value."""
WINDOW_BYTES = 16 * 2**20
"""Largest window of float32 values to process at a time, bytes, whatever the size of the map's blocks."""
_EDGE_CELLS = 1e-6
"""A box that ends this close to the edge of a cell ends at the edge: rounding of PROJ."""
_ALL = slice(None)


@dataclass(frozen=True)
class Cells:
    """Some cells of a level."""

    row: int
    col: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Its rows within the level."""
        return slice(self.row, self.row + self.height)

    @property
    def cols(self) -> slice:
        """Its columns within the level."""
        return slice(self.col, self.col + self.width)

    def within(self, other: "Cells") -> "Cells":
        """Return the intersection; its height or width is 0 if there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.row + self.height, other.row + other.height) - row)
        width = max(0, min(self.col + self.width, other.col + other.width) - col)
        return Cells(row, col, height, width)

    def moved(self, rows: int, cols: int) -> "Cells":
        """Return these cells, moved by some rows and columns."""
        return Cells(self.row + rows, self.col + cols, self.height, self.width)

    def geobox(self, whole: GeoBox) -> GeoBox:
        """Return their grid."""
        return subgrid(whole, (self.row, self.col), 1, (self.height, self.width))


class Level:
    """The arrays of one resolution.

    Args:
        group: The group of the arrays.
        folder: Folder of that group's files, which shows which blocks exist.
        affine: Transform from columns and rows to x and y.
        crs: Name of the CRS.
    """

    def __init__(self, group: "zarr.Group", folder: Path, affine: Affine, crs: str) -> None:
        self.folder = folder
        self._embedding, self._valid = _array(group, "embedding"), _array(group, "valid")
        self._scale = _array(group, "scale") if self._embedding.dtype == np.int8 else None
        height, width = self._embedding.shape[2:]
        self.geobox = GeoBox((height, width), affine, crs)
        """The grid."""
        self.dtype: np.dtype[np.generic] = np.dtype(self._embedding.dtype)
        """Type as stored; values are read as float32."""
        self.block: int = (self._embedding.shards or self._embedding.chunks)[-1]
        """Side of a block (one file), cells."""
        self.chunk: int = self._embedding.chunks[-1]
        """Side of the smallest part that can be read, cells."""

    @property
    def dim(self) -> int:
        """Length of a token."""
        return int(self._embedding.shape[1])

    @property
    def times(self) -> int:
        """How many."""
        return int(self._embedding.shape[0])

    @property
    def whole(self) -> Cells:
        """All cells."""
        height, width = self._embedding.shape[2:]
        return Cells(0, 0, height, width)

    @cached_property
    def blocks(self) -> tuple[int, int]:
        """Number of rows and columns of blocks."""
        return -(-self.whole.height // self.block), -(-self.whole.width // self.block)

    def read(self, time: int, rows: slice, cols: slice, bands: slice = _ALL) -> NDArray[np.float32]:
        """Return values `[D, H, W]`, NaN where there is no value. Steps of slices must be positive.

        Raises:
            StorageError: A block is damaged.
        """
        try:
            stored = np.asarray(self._embedding[time, bands, rows, cols])
            values: NDArray[np.float32] = stored.astype(np.float32)
            if self._scale is not None:
                height, width = self._embedding.shape[2:]
                block_rows = np.arange(height)[rows] // self.block
                block_cols = np.arange(width)[cols] // self.block
                factors = self._factors(self._scale, time, bands, block_rows, block_cols)
                values *= factors
                values[stored == NO_VALUE] = np.nan
        except UNREADABLE as error:
            raise self._damaged(rows, cols, error) from error
        return values

    def valid(self, time: int, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Return the share of valid pixels under each token, `[H, W]`, 0 to 1.

        Raises:
            StorageError: A block is damaged.
        """
        try:
            return np.asarray(self._valid[time, rows, cols]).astype(np.float32, copy=False)
        except UNREADABLE as error:
            raise self._damaged(rows, cols, error) from error

    def tokens(self, time: int, window: Cells) -> NDArray[np.float32]:
        """Return the values of `read` as `[H, W, D]`."""
        return np.moveaxis(self.read(time, window.rows, window.cols), 0, -1)

    def done(self, time: int) -> list[tuple[int, int]]:
        """Return row and column of each existing block, in order."""
        folder = self.folder / "embedding" / "c" / str(time) / "0"
        rows = (one for one in folder.iterdir() if one.name.isdecimal()) if folder.is_dir() else ()
        found = [(int(row.name), int(file.name)) for row in rows for file in row.iterdir() if file.name.isdecimal()]
        return sorted(found)

    def windows(self, time: int, crop: Cells | None = None) -> Iterator[Cells]:
        """Yield windows of at most `WINDOW_BYTES` that cover all existing blocks, with each chunk in one window.

        Args:
            time: Number of the time.
            crop: Only the part within these cells.
        """
        side = self.chunk * max(1, int((WINDOW_BYTES / (4 * self.dim)) ** 0.5 / self.chunk))
        for block_row, block_col in self.done(time):
            block = Cells(block_row * self.block, block_col * self.block, self.block, self.block).within(self.whole)
            if crop is not None and not _has_cells(block.within(crop)):
                continue
            for row in range(block.row, block.row + block.height, side):
                for col in range(block.col, block.col + block.width, side):
                    part = Cells(row, col, side, side).within(block)
                    part = part if crop is None else part.within(crop)
                    if _has_cells(part):
                        yield part

    def crop(self, bbox: "BBox | Region | tuple[float, float, float, float] | None") -> Cells:
        """Return the cells that a box touches.

        Args:
            bbox: West, south, east and north in degrees, or a box or polygon in its own CRS.

        Raises:
            SpecError: It is not a box.
            OutsideCoverage: It is outside of the map.
        """
        if bbox is None:
            return self.whole
        place = bbox if isinstance(bbox, BBox | Region) else _box(bbox)
        xs, ys = project(*outline(place), place.crs, str(self.geobox.crs))
        cols, rows = ~self.geobox.affine @ (xs, ys)
        top, left = (int(np.floor(axis.min() + _EDGE_CELLS)) for axis in (rows, cols))
        bottom, right = (int(np.ceil(axis.max() - _EDGE_CELLS)) for axis in (rows, cols))
        window = Cells(top, left, bottom - top, right - left).within(self.whole)
        if not _has_cells(window):
            edges = ", ".join(f"{edge:.0f}" for edge in self.geobox.boundingbox)
            raise OutsideCoverage(
                f"Expected a box that overlaps the map, got {place!r}.",
                map=f"{edges} (left, bottom, right, top) in {self.geobox.crs}",
                fix="choose a box inside of it; without bbox= it is all of the map",
            )
        return window

    @staticmethod
    def _factors(
        scale: "Values",
        time: int,
        bands: slice,
        block_rows: NDArray[np.intp],
        block_cols: NDArray[np.intp],
    ) -> NDArray[np.float32]:
        """The factors of the stored values, in a shape that broadcasts to `[D, H, W]`."""
        if not (block_rows.size and block_cols.size):
            return np.ones((1, 1, 1), np.float32)
        top, left = int(block_rows[0]), int(block_cols[0])
        part = np.asarray(scale[time, bands, top : int(block_rows[-1]) + 1, left : int(block_cols[-1]) + 1])
        if part.shape[1:] == (1, 1):
            return part
        spread: NDArray[np.float32] = part[:, block_rows - top][:, :, block_cols - left]
        return spread

    def _damaged(self, rows: slice, cols: slice, error: BaseException) -> StorageError:
        return StorageError(
            f"Expected tokens in rows {rows.start} to {rows.stop} and columns {cols.start} to {cols.stop}, got damaged "
            f"ones in {str(self.folder)!r}.",
            error=f"{type(error).__name__}: {error}",
            fix="remove the file of that block, and repeat the same call of embed_region: it makes the block again",
        )


def ground(
    geobox: GeoBox, rows: NDArray[np.integer | np.floating], cols: NDArray[np.integer | np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of places on a grid, in its CRS; integers are corners of cells."""
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f


def tokens_in(shape: BaseGeometry, geobox: GeoBox) -> NDArray[np.bool_]:
    """Return the tokens of a grid whose middle lies in a polygon, `[H, W]`.

    Args:
        shape: The polygon, in the CRS of the grid.
        geobox: The grid.
    """
    from rasterio.features import geometry_mask

    part = shapely.clip_by_rect(shape, *geobox.boundingbox.bbox)
    if part.area == 0:
        return np.zeros(tuple(geobox.shape), np.bool_)
    mask: NDArray[np.bool_] = geometry_mask([part], geobox.shape, geobox.affine, invert=True)
    return mask


def _array(group: "zarr.Group", name: str) -> "Values":
    import zarr

    found = group.get(name)
    if not isinstance(found, zarr.Array):
        raise KeyError(f"no array {name!r}")
    return found


def _box(given: object) -> BBox:
    if not isinstance(given, tuple | list) or len(given) != 4:
        raise SpecError(
            f"Expected a box, got {given!r}.",
            fix='(west, south, east, north) in degrees, or BBox(..., crs="EPSG:32633") in metres',
        )
    return BBox(*given)


def _has_cells(window: Cells) -> bool:
    return window.height > 0 and window.width > 0
