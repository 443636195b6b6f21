"""From a chip to the network's inputs and back: resize, crop or tile, then stitch.

Each of the three methods is a set of windows on the chip. A window may extend beyond the south and east edges of the
chip. The part outside is padding, and its tokens are dropped after encoding. The north-west corner of the token grid
is therefore always that of the first window, and the geobox of the grid is exact for regions of any shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from odc.geo.geobox import GeoBox
from torch import Tensor
from torch.nn.functional import interpolate

from rs_embed.core.geo import project
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens

Prep = Literal["resize", "crop", "tile"]
"""How a chip becomes inputs: see `frame_chip`."""
TILE_OVERLAP = 0.125
"""Smallest overlap of neighbouring windows, as a share of their side; tokens there are blended. With a quarter, the
documented 4 km chip would cost TerraMind nine windows instead of four."""


@dataclass(frozen=True)
class InputGeometry:
    """The constraints of a network on the size and position of its input windows."""

    image_px: int
    """Side of the input, pixels."""
    lattice_px: int
    """Side of the coarsest token, pixels. Windows start on multiples of it, and inputs of native size end on one."""
    square: bool
    """Whether every input must be square."""
    patch_px: int
    """Side of a patch, pixels; recorded in the metadata."""
    token_shift_px: int = 0
    """Padding of the patch convolution, pixels: the first token begins this far north and west of the input."""
    native_only: bool = False
    """Whether the pixel size must never change. A tiled chip is then one window, which the adapter splits itself."""


@dataclass(frozen=True)
class Window:
    """A rectangle of chip pixels that becomes one network input."""

    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True)
class Frame:
    """The windows of one chip, and where their tokens lie on it."""

    prep: Prep
    windows: tuple[Window, ...]
    input_px: tuple[int, int]
    """Height and width of every network input."""
    origin_px: tuple[int, int]
    """North-west corner `(row, col)` of the token lattice, chip pixels."""
    extent_px: tuple[int, int]
    """Height and width of the token lattice including padding, chip pixels."""
    keep_px: tuple[int, int]
    """Height and width of the part of the extent that lies on the chip, chip pixels."""
    token_shift_px: int = 0
    """See `InputGeometry.token_shift_px`; input pixels."""

    @property
    def token_origin_px(self) -> tuple[float, float]:
        """North-west corner `(row, col)` of the ground that the tokens see, chip pixels."""
        shift = self.token_shift_px * self.zoom
        return self.origin_px[0] - shift, self.origin_px[1] - shift

    @property
    def zoom(self) -> float:
        """Chip pixels per input pixel."""
        return self.windows[0].height / self.input_px[0]


def frame_chip(shape_px: tuple[int, int], prep: Prep, geometry: InputGeometry) -> Frame:
    """Plan the windows of a chip.

    - `"resize"`: the whole chip, padded to a square and resampled to `image_px`.
    - `"crop"`: the centre of the chip at native pixel size, at most `image_px` a side.
    - `"tile"`: windows of at most `image_px` a side at native pixel size, overlapping by at least an eighth.

    Args:
        shape_px: Height and width of the chip, pixels.
        prep: One of the three methods above.
        geometry: The constraints of the network.
    """
    shift = geometry.token_shift_px
    if prep == "resize":
        side = max(shape_px)
        size = (geometry.image_px, geometry.image_px)
        return Frame(prep, (Window(0, 0, side, side),), size, (0, 0), (side, side), shape_px, shift)
    height, width = (min(geometry.image_px, _round_up(px, geometry.lattice_px)) for px in shape_px)
    if geometry.square:
        height = width = max(height, width)
    if prep == "tile" and geometry.native_only:
        height, width = (_round_up(px, geometry.lattice_px) for px in shape_px)
        return Frame(prep, (Window(0, 0, height, width),), (height, width), (0, 0), (height, width), shape_px, shift)
    if prep == "crop":
        row, col = max(0, (shape_px[0] - height) // 2), max(0, (shape_px[1] - width) // 2)
        keep = (min(height, shape_px[0]), min(width, shape_px[1]))
        return Frame(
            prep, (Window(row, col, height, width),), (height, width), (row, col), (height, width), keep, shift
        )
    rows = _starts(shape_px[0], height, geometry.lattice_px)
    cols = _starts(shape_px[1], width, geometry.lattice_px)
    windows = tuple(Window(row, col, height, width) for row in rows for col in cols)
    extent = (rows[-1] + height, cols[-1] + width)
    return Frame(prep, windows, (height, width), (0, 0), extent, shape_px, shift)


def _round_up(value: int, step: int) -> int:
    return math.ceil(value / step) * step


def _starts(length: int, size: int, step: int) -> list[int]:
    """Return evenly spaced window starts, on multiples of `step`, that cover `length`."""
    last = max(0, _round_up(length - size, step))
    gaps = math.ceil(last / stride_of(size, step))
    return [round(last * i / gaps / step) * step for i in range(gaps + 1)] if gaps else [0]


def stride_of(size: int, step: int) -> int:
    """The farthest that tiled windows may start from each other, pixels.

    A chip that is longer than a window by a multiple of it is cut at exactly this stride.

    Args:
        size: Side of a window.
        step: What windows start on multiples of.
    """
    return max(size - _round_up(math.ceil(size * TILE_OVERLAP), step), step)


def cut_windows(image: Tensor, frame: Frame, grid_px: int = 1, *, codes: bool = False) -> list[Tensor]:
    """Cut the network inputs of a frame from an image.

    Args:
        image: `[..., H, W]`, standardised, without NaN. Padding takes each band's mean over the chip, as the authors
            of THOR fill missing pixels (FM4CS/THOR, thor_dataset_base.py).
        frame: The windows to cut.
        grid_px: Image pixels along the side of one frame pixel.
        codes: Whether pixels are codes of classes, which are never mixed: padding is 0, and resizing takes the nearest.

    Returns:
        One `[..., h, w]` per window. If the frame resizes, windows are interpolated bilinearly (half-pixel centres,
        no antialiasing).
    """
    height, width = image.shape[-2:]
    bottom = max(0, grid_px * max(w.row + w.height for w in frame.windows) - height)
    right = max(0, grid_px * max(w.col + w.width for w in frame.windows) - width)
    if bottom or right:
        mean = image.new_zeros(()) if codes else image.mean(dim=(-2, -1), keepdim=True)
        padded = image.new_empty(*image.shape[:-2], height + bottom, width + right)
        padded[..., :height, :width] = image
        padded[..., height:, :] = mean
        padded[..., :height, width:] = mean
        image = padded
    rows = [slice(grid_px * w.row, grid_px * (w.row + w.height)) for w in frame.windows]
    cols = [slice(grid_px * w.col, grid_px * (w.col + w.width)) for w in frame.windows]
    cuts = [image[..., there, across] for there, across in zip(rows, cols, strict=True)]
    if frame.zoom == 1:
        return cuts
    if codes:
        return [interpolate(cut[None], frame.input_px, mode="nearest-exact")[0] for cut in cuts]
    return [interpolate(cut[None], frame.input_px, mode="bilinear", align_corners=False)[0] for cut in cuts]


def centre_of(geobox: GeoBox, window: Window) -> tuple[float, float]:
    """Return longitude and latitude, in degrees, of the centre of the part of a window that lies on the chip."""
    height, width = geobox.shape
    row = (window.row + min(height, window.row + window.height)) / 2
    col = (window.col + min(width, window.col + window.width)) / 2
    x, y = geobox.affine @ (col, row)
    lons, lats = project(np.array([x]), np.array([y]), str(geobox.crs), "EPSG:4326")
    return float(lons[0]), float(lats[0])


def stitch(tokens: Tensor, layout: TokenLayout, frame: Frame) -> Tokens:
    """Join the tokens of all windows into one seamless lattice.

    Where windows overlap, tokens are averaged with weights that fall towards the edge of a window, which avoids
    visible seams. Prefix tokens are averaged over all windows. Where there is no window, tokens are NaN.

    Args:
        tokens: `[windows, N, D]`, in the order of `frame.windows`.
        layout: The token layout of one window.
        frame: The windows.

    Returns:
        `[1, N', D]` with the layout of the whole extent.
    """
    if (frame.windows[0].height, frame.windows[0].width) == frame.extent_px:
        return Tokens(tokens, layout)
    parts = [tokens[:, : layout.prefix].mean(dim=0, keepdim=True)]
    grids = []
    start = layout.prefix
    for grid in layout.grids:
        stop = start + grid.height * grid.width
        whole = _stitch_grid(tokens[:, start:stop], grid, frame)
        parts.append(whole.flatten(0, 1)[None])
        grids.append(TokenGrid(grid.name, whole.shape[0], whole.shape[1]))
        start = stop
    return Tokens(torch.cat(parts, dim=1), TokenLayout(tuple(grids), layout.prefix))


def _stitch_grid(tokens: Tensor, grid: TokenGrid, frame: Frame) -> Tensor:
    """Join one token grid: `[windows, h*w, D]` -> `[H, W, D]`."""
    first = frame.windows[0]
    cell_px = first.height // grid.height
    rows, cols = frame.extent_px[0] // cell_px, frame.extent_px[1] // cell_px
    total = tokens.new_zeros(rows, cols, tokens.shape[-1])
    weights = tokens.new_zeros(rows, cols, 1)
    weight = _tent(grid.height, tokens)[:, None, None] * _tent(grid.width, tokens)[None, :, None]
    for window, values in zip(frame.windows, tokens, strict=True):
        row, col = window.row // cell_px, window.col // cell_px
        there = (slice(row, row + grid.height), slice(col, col + grid.width))
        total[there] += values.reshape(grid.height, grid.width, -1) * weight
        weights[there] += weight
    return total / weights


def _tent(length: int, like: Tensor) -> Tensor:
    ramp = torch.arange(length, device=like.device, dtype=like.dtype)
    return torch.minimum(ramp + 0.5, length - ramp - 0.5)


def kept_shape(grid: TokenGrid, frame: Frame) -> tuple[int, int]:
    """Return how many rows and columns of a (stitched) grid touch the chip rather than lie wholly on padding."""
    shape: list[int] = []
    for cells, extent, keep in zip((grid.height, grid.width), frame.extent_px, frame.keep_px, strict=True):
        shape.append(math.ceil(keep * cells / extent - 1e-9))
    return shape[0], shape[1]


def kept_tokens(layout: TokenLayout, frame: Frame) -> Tensor:
    """Return a boolean mask `[N]` of the patch tokens that touch the chip. Prefix tokens are never kept."""
    masks: Sequence[Tensor] = [torch.zeros(layout.prefix, dtype=torch.bool)]
    for grid in layout.grids:
        mask = torch.zeros(grid.height, grid.width, dtype=torch.bool)
        rows, cols = kept_shape(grid, frame)
        mask[:rows, :cols] = True
        masks = [*masks, mask.flatten()]
    return torch.cat(list(masks))
