"""The windows of a map's block that its tokens need: those elsewhere are not encoded."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.geo import pixel_size_m, subgrid
from rs_embed.core.specs import GridBlock, SpatialSpec
from rs_embed.embedders.base import Embedder
from rs_embed.embedders.prepare.framing import Frame
from rs_embed.errors import SpecError
from rs_embed.pipeline.plan import Job

_MARGIN_CELLS = 0.05
"""Tolerance at the edges of tokens, as a share of a token."""


def needed_windows(frame: Frame, geobox: GeoBox | None, spatial: SpatialSpec | None, job: Job) -> Frame:
    """Return a frame without the windows that no token inside the region needs (`Job.overlaps`).

    The tokens inside have the same values with and without the other windows. Where tokens of several sizes are merged,
    a token is interpolated between coarse tokens: it also needs those beside the coarse token that it lies in.

    Args:
        frame: All windows of a chip.
        geobox: The grid of the chip, pixels.
        spatial: Its place: a block of a map, or another, which needs all of its windows.
        job: The model.
    """
    if job.overlaps is None or geobox is None or not isinstance(spatial, GridBlock) or len(frame.windows) == 1:
        return frame
    cell_px, reach_px = job.embedder.cell_px, _reach_px(job.embedder)
    rows, cols = (math.ceil(side / cell_px) for side in frame.keep_px)
    own = cells_of(spatial, subgrid(geobox, frame.token_origin_px, cell_px, (rows, cols)))
    corners = [
        [(cell_px * part.start, cell_px * part.stop) for part in own],
        [(one.row - reach_px, one.row + one.height + reach_px) for one in frame.windows],
        [(one.col - reach_px, one.col + one.width + reach_px) for one in frame.windows],
    ]
    block_px, by_row, by_col = (np.array(one, np.float64) for one in corners)
    tops, bottoms = by_row.clip(*block_px[0]).T  # the part of a window's tokens that belongs to the block
    lefts, rights = by_col.clip(*block_px[1]).T
    (top, left), affine, margin = frame.token_origin_px, geobox.affine, _MARGIN_CELLS * cell_px
    west, north = affine @ (lefts + left - margin, tops + top - margin)
    east, south = affine @ (rights + left + margin, bottoms + top + margin)
    needed = (tops < bottoms) & (lefts < rights) & job.overlaps(np.stack([west, south, east, north], axis=1))
    windows = tuple(window for window, is_needed in zip(frame.windows, needed, strict=True) if is_needed)
    return replace(frame, windows=windows) if windows else frame


def encoded_cells(frame: Frame, cells: tuple[int, int], job: Job) -> NDArray[np.bool_]:
    """Return which cells of a merged grid have all of their tokens, if windows were left out.

    Args:
        frame: The windows that were encoded.
        cells: Rows and columns of the grid, which spans the frame.
        job: The model.
    """
    if job.overlaps is None:
        return np.ones(cells, bool)
    lattice_px = job.embedder.geometry().lattice_px
    rows, cols = (-(-side // lattice_px) for side in frame.extent_px)
    covered = np.zeros((rows, cols), bool)
    for window in frame.windows:
        row, col = window.row // lattice_px, window.col // lattice_px
        covered[row : row - -window.height // lattice_px, col : col - -window.width // lattice_px] = True
    if _reach_px(job.embedder):  # cells are interpolated between the tokens around them
        around = np.pad(covered, 1, constant_values=True)
        covered = np.all([around[i : i + rows, j : j + cols] for i in range(3) for j in range(3)], axis=0)
    at_row, at_col = np.arange(cells[0]) * rows // cells[0], np.arange(cells[1]) * cols // cells[1]
    found: NDArray[np.bool_] = covered[at_row[:, None], at_col]
    return found


def _reach_px(embedder: Embedder) -> int:
    """How far from a window its tokens are used."""
    return embedder.geometry().lattice_px if len(embedder.readout.grids) > 1 else 0


def cells_of(block: GridBlock, around: GeoBox) -> tuple[slice, slice]:
    """Rows and columns of a block in the token grid of the imagery around it.

    Raises:
        SpecError: Its edges lie between tokens.
    """
    cell_m = pixel_size_m(around)
    rows, cols, first = (
        (side / cell_m) for side in (block.north - block.south, block.east - block.west, block.before_m)
    )
    if any(abs(count - round(count)) > 1e-6 for count in (rows, cols, first)):
        raise SpecError(
            f"Expected a block of whole tokens of {cell_m:g} m, got {block!r}.",
            fix=f"choose edges and margins that are multiples of {cell_m:g} m",
        )
    start = round(first)
    return slice(start, start + round(rows)), slice(start, start + round(cols))
