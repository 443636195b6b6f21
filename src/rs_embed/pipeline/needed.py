"""The windows of a map's block that its tokens need: those elsewhere are not encoded."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.geo import pixel_size_m, subgrid
from rs_embed.core.specs import GridBlock, SpatialSpec
from rs_embed.embedders.prepare.framing import Frame, Window
from rs_embed.errors import SpecError
from rs_embed.pipeline.plan import Job


def needed_windows(frame: Frame, geobox: GeoBox | None, spatial: SpatialSpec | None, job: Job) -> Frame:
    """Return a frame without the windows that no token inside the region needs (`Job.inside`).

    The tokens inside have the same values with and without the other windows. Where tokens of several sizes are merged,
    a token is interpolated between coarse tokens: it also needs those beside the coarse token that it lies in.

    Args:
        frame: All windows of a chip.
        geobox: The grid of the chip, pixels.
        spatial: Its place: a block of a map, or another, which needs all of its windows.
        job: The model.
    """
    if job.inside is None or geobox is None or not isinstance(spatial, GridBlock) or len(frame.windows) == 1:
        return frame
    cell_px = job.embedder.cell_px
    rows, cols = (math.ceil(side / cell_px) for side in frame.keep_px)
    around = subgrid(geobox, frame.token_origin_px, cell_px, (rows, cols))
    own = cells_of(spatial, around)
    wanted = np.zeros((rows, cols), bool)
    wanted[own] = job.inside(around[own])
    reach_px = job.embedder.geometry().lattice_px if len(job.embedder.readout.grids) > 1 else 0
    windows = tuple(window for window in frame.windows if _sees(window, wanted, cell_px, reach_px))
    return replace(frame, windows=windows) if windows else frame


def _sees(window: Window, wanted: NDArray[np.bool_], cell_px: int, reach_px: int) -> bool:
    """Whether a window, with so many pixels around it, overlaps a wanted token."""
    rows, cols = (
        slice(max(0, start - reach_px) // cell_px, math.ceil((start + size + reach_px) / cell_px))
        for start, size in ((window.row, window.height), (window.col, window.width))
    )
    return bool(wanted[rows, cols].any())


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
