"""Split requests to fit the service's limits, and decode its answers into arrays."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import registered
from rs_embed.core.geo import subgrid
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import ReadError, UnitMismatch
from rs_embed.providers.common.plausible import refuse_implausible
from rs_embed.providers.earthengine.archives import BYTES_PER_PIXEL, HIGHEST_OLCI_REFLECTANCE, SENTINEL, Archive

MAX_BYTES = 50_331_648
"""48 MiB, as Earth Engine counts them: before compression, masks included."""
MAX_SIDE_PX = 32_768
MAX_BANDS = 1_024
FLOOR_PX = 16
"""Side of the smallest piece that a request is split into: 256 pixels cannot be too many."""
MAX_HEADER_BYTES = 65_536
"""Largest header of an NPY answer: about 20 bytes per band. By default, numpy reads at most 10,000."""


@dataclass(frozen=True)
class Piece:
    """The pixels of one request: some frames, on a part of the grid."""

    first_frame: int
    frames: int
    row: int
    col: int
    height: int
    width: int

    def geobox(self, whole: GeoBox) -> GeoBox:
        """The part of the grid."""
        if (self.height, self.width) == whole.shape:
            return whole
        return subgrid(whole, (self.row, self.col), 1, (self.height, self.width))

    def smaller(self) -> list["Piece"]:
        """Split it: into two halves of the frames or, if it is one frame, into four quarters of the grid.

        `None` if its sides are at the minimum: then the cost is not due to the number of pixels.
        """
        if self.frames > 1:
            return [
                replace(self, first_frame=self.first_frame + first, frames=count)
                for first, count in _cuts(self.frames, -(-self.frames // 2))
            ]
        if max(self.height, self.width) <= FLOOR_PX:
            return []
        rows, cols = (_cuts(side, max(FLOOR_PX, -(-side // 2))) for side in (self.height, self.width))
        return [
            replace(self, row=self.row + row, col=self.col + col, height=height, width=width)
            for row, height in rows
            for col, width in cols
        ]


def pieces(frames: int, shape: tuple[int, int], sensor: SensorSpec, archive: Archive) -> list[Piece]:
    """Divide a chip into as few requests as the limits allow, usually one.

    Args:
        frames: Number of frames.
        shape: Height and width of the grid.
        sensor: Determines the number of bands of a frame.
        archive: Determines the number of bytes of a value.
    """
    frames_each = max(1, min(frames, MAX_BANDS // (len(sensor.bands) + 1)))
    found = []
    for first, count in _cuts(frames, frames_each):
        pixel = count * (len(sensor.bands) * BYTES_PER_PIXEL[archive.transport] + BYTES_PER_PIXEL["uint16"])
        height, width = shape
        width = min(width, MAX_SIDE_PX, MAX_BYTES // pixel)
        height = min(height, MAX_SIDE_PX, max(1, MAX_BYTES // (pixel * width)))
        if (height, width) != shape:  # squares of the same content touch fewer stored tiles than strips
            side = int((MAX_BYTES // pixel) ** 0.5)
            height, width = min(shape[0], side), min(shape[1], side)
        found += [
            Piece(first, count, row, col, rows, cols)
            for row, rows in _cuts(shape[0], height)
            for col, cols in _cuts(shape[1], width)
        ]
    return found


def _cuts(length: int, at_most: int) -> list[tuple[int, int]]:
    """Start and length of equal parts of at most `at_most`, as few as possible."""
    parts = -(-length // at_most)
    edges = [length * i // parts for i in range(parts + 1)]
    return [(start, end - start) for start, end in pairwise(edges)]


def decode(body: bytes, names: Sequence[str], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Decode the bands of an NPY answer, `[C, H, W]`, with the values in transit.

    Raises:
        ReadError: The answer is incomplete, or does not contain these bands.
    """
    try:
        table = np.load(io.BytesIO(body), allow_pickle=False, max_header_size=MAX_HEADER_BYTES)
    except (ValueError, EOFError, OSError) as error:
        raise ReadError(
            f"Expected pixels from Earth Engine, got an answer that cannot be read: {error}",
            bytes=len(body),
            fix="try again",
        ) from error
    found_names = table.dtype.names or ()
    if table.shape != shape or any(name not in found_names for name in names):
        raise ReadError(
            f"Expected {len(names)} bands of {shape[0]} x {shape[1]} px, got {len(found_names)} of {table.shape}.",
            fix="report this: Earth Engine's answer does not match the request",
        )
    return np.stack([table[name].astype(np.float32) for name in names])


def in_units(stored: NDArray[np.float32], sensor: SensorSpec, archive: Archive) -> NDArray[np.float32]:
    """Convert values in transit to the units of the collection, `[C, H, W]`, NaN where nodata.

    Raises:
        UnitMismatch: Every pixel is at the limit that reflectances are clipped to; or, for a collection that the user
            registered, values exceed a limit of their unit.
    """
    values = np.where(stored == np.float32(SENTINEL[archive.transport]), np.float32(np.nan), stored)
    for i, band in enumerate(sensor.bands):
        scale, offset = archive.scale[band]
        if (scale, offset) != (1, 0):
            values[i] = values[i] * np.float32(scale) + np.float32(offset)
    own = registered(sensor.collection)
    for band, plane in zip(sensor.bands, values, strict=True):
        if own is not None:  # the user stated its scale and unit
            refuse_implausible(plane[None], own[band].unit, archive.asset)
    if archive.radiance and np.nanmin(values, initial=np.inf) >= HIGHEST_OLCI_REFLECTANCE:
        raise UnitMismatch(
            f"Expected radiances of {archive.asset}, got numbers about a hundred times as high: integers to be scaled.",
            fix="report this: Earth Engine now stores the collection in another form",
        )
    return values
