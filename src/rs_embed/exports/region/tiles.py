"""Write the blocks of a map as files: each block writes only its own shards, at every level."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.atomic import make_folder, remove_parts, replacing
from rs_embed.core.resources import require_room
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError
from rs_embed.exports.records import Stamp
from rs_embed.exports.region.grid import MapGrid
from rs_embed.exports.region.store import EMBEDDING, NO_VALUE, SCALE, VALID, MapArray, arrays_of
from rs_embed.exports.unit import MAP
from rs_embed.formats.base import Dtype
from rs_embed.formats.quantize import quantize


@dataclass(frozen=True)
class MapTiles:
    """Writes the blocks of a model."""

    grid: MapGrid
    dim: int
    dtype: Dtype

    @cached_property
    def _arrays(self) -> list[MapArray]:
        return arrays_of(self.grid, self.dim, self.dtype)

    def write(self, model: Path, number: int, embedding: Embedding) -> dict[str, Stamp]:
        """Write a block and its part of every overview.

        Args:
            model: Folder of the model.
            number: Number of the block.
            embedding: Tokens of the block, NaN outside of the region (see `MapGrid.masked`).

        Returns:
            The files by path inside the model's folder, the finest tokens first.

        Raises:
            SpecError: The tokens are not on the planned grid.
        """
        at = self.grid.position(number)
        data, valid = self._whole_block(embedding, *at[1:])
        make_folder(model / MAP)
        require_room(model / MAP, 2 * data.nbytes)
        stamps: dict[str, Stamp] = {}
        levels = {0: self._stored(data, valid)}
        for level in range(1, self.grid.levels + 1):
            data, valid = halved(data, valid)
            levels[level] = self._stored(data, valid)
        for array in self._arrays:
            path = model / array.file(*at)
            make_folder(path.parent)
            with replacing(path) as part:
                part.write_bytes(array.shard_bytes(levels[array.level][array.name]))
                stamps[array.file(*at)] = Stamp.of(part)
        return stamps

    def _whole_block(
        self, embedding: Embedding, row: int, column: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Tokens and validity of a whole block, NaN and 0 where nothing was embedded."""
        block = self.grid.block_geobox(row, column)
        at = _position_in(block, embedding)
        data = np.full((len(embedding.data), *block.shape), np.nan, np.float32)
        valid = np.zeros(tuple(block.shape), np.float32)
        data[:, *at] = embedding.data
        valid[at] = 1 if embedding.valid is None else embedding.valid
        data[:, ~np.isfinite(data).all(axis=0)] = np.nan
        return data, valid

    def _stored(self, data: NDArray[np.float32], valid: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        """The arrays of a level, as stored."""
        gone = np.isnan(data[0])
        if self.dtype != "int8":
            stored, _ = quantize(data.reshape(len(data), -1), self.dtype)
            return {EMBEDDING: stored, VALID: valid}
        stored, scale = quantize(np.where(gone, np.float32(0), data).reshape(len(data), -1), self.dtype)
        stored[:, gone.ravel()] = NO_VALUE
        return {EMBEDDING: stored, VALID: valid, SCALE: np.empty(0) if scale is None else scale}

    def row_of(self, file: str) -> int:
        """Return the number of the block that a file belongs to."""
        time, *_, row, column = (int(part) for part in file.rpartition("/c/")[2].split("/"))
        return self.grid.number(time, row, column)

    def clean(self, model: Path, number: int) -> None:
        """Remove the incomplete files of a block that a killed process left."""
        for array in self._arrays:
            path = model / array.file(*self.grid.position(number))
            remove_parts(path.parent, path.name.__eq__)


def _position_in(block: GeoBox, embedding: Embedding) -> tuple[slice, slice]:
    """Return rows and columns of an embedding in a block.

    Raises:
        SpecError: Its cells are not cells of the block.
    """
    found = embedding.geobox
    if found is not None and found.crs == block.crs:
        offset = ~block.affine @ found.affine
        col, row = round(offset.c), round(offset.f)
        rows, cols = found.shape
        aligned = offset.almost_equals(Affine.translation(col, row), 1e-6)
        if aligned and min(row, col) >= 0 and row + rows <= block.shape[0] and col + cols <= block.shape[1]:
            return slice(row, row + rows), slice(col, col + cols)
    raise SpecError(
        f"Expected tokens of {block.resolution.x:g} m in a block of {block.shape[0]}, got {embedding!r} elsewhere.",
        block=str(tuple(block.affine)[:6]),
        found=None if found is None else str(tuple(found.affine)[:6]),
        fix="the model's adapter must give the size of its cells (Embedder.cell_px)",
    )


def halved(data: NDArray[np.float32], valid: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Halve the resolution: the mean of those of 2 x 2 tokens that have a value, and of their shares of valid pixels.

    Args:
        data: `[D, H, W]`, NaN where there is no value; H and W are even.
        valid: `[H, W]`.
    """
    dim, height, width = data.shape
    there = ~np.isnan(data[0])
    counts = there.reshape(height // 2, 2, width // 2, 2).sum(axis=(1, 3), dtype=np.float32)
    sums = np.where(there, data, np.float32(0)).reshape(dim, height // 2, 2, width // 2, 2).sum(axis=(2, 4))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(counts > 0, sums / counts, np.float32(np.nan))
    return means, valid.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3), dtype=np.float32)
