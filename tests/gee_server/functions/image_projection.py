"""Projections: where an image's pixels lie, and how they are read from another grid."""

import numpy as np

from gee_server.errors import EarthEngineError
from gee_server.functions.image_values import inside
from gee_server.geometry import EARTH
from gee_server.grid import Grid, Projection, reproject
from gee_server.image import Band, Image, projection_of
from gee_server.interpreter import function
from gee_server.pixels import DOUBLE, FLOAT, Node, OpNode, full

_LARGEST_WINDOW_PX = 40_000_000
_MARGIN_PX = 3


@function("Image.projection")
def _projection(image: Image) -> Projection:
    return projection_of(image, "Image.projection")


@function("Image.resample")
def _resample(image: Image, mode: str) -> Image:
    if mode not in ("bilinear", "bicubic"):
        raise EarthEngineError(f"Image.resample: Unrecognized mode '{mode}'. Must be 'bilinear' or 'bicubic'.")
    if mode == "bicubic":
        raise EarthEngineError("The loopback Earth Engine server has no bicubic resampling.")
    return image.derived([Band(band.name, _Bilinear(band.node)) for band in image.bands], keep=True)


def _window(node: Node, grid: Grid) -> tuple[Grid, np.ndarray, np.ndarray]:
    """The node's own pixels around a grid, and where the grid's pixel centres lie among them (pixel corner = 0)."""
    sx, shx, tx, shy, sy, ty = node.proj.transform
    if shx or shy:
        raise EarthEngineError("The loopback Earth Engine server has no sheared projections.")
    x, y = grid.centres_in(node.proj.crs)
    col, row = (x - tx) / sx, (y - ty) / sy
    first_col, first_row = (int(np.floor(one.min())) - _MARGIN_PX for one in (col, row))
    width, height = (int(np.ceil(one.max())) + _MARGIN_PX - first
                     for one, first in ((col, first_col), (row, first_row)))  # fmt: skip
    if width * height > _LARGEST_WINDOW_PX:
        raise EarthEngineError("User memory limit exceeded.")
    moved = (sx, 0.0, tx + first_col * sx, 0.0, sy, ty + first_row * sy)
    return Grid(Projection(node.proj.crs, moved), width, height), col - first_col, row - first_row


class _Bilinear(Node):
    """Interpolated between the centres of the node's own pixels; nothing changes on its own grid.

    The real service does not say whether integers stay whole; here they do not, so that a cast must round.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(FLOAT if node.type == FLOAT else DOUBLE, node.proj, (node,))

    def compute(self, look, grid):
        node = self.parents[0]
        if node.proj.is_composite:
            return look.plane(node, grid)
        window, col, row = _window(node, grid)
        values, valid = full(look.plane(node, window), window)
        left, top = np.floor(col - 0.5 + 1e-9), np.floor(row - 0.5 + 1e-9)
        east, south = np.maximum(col - 0.5 - left, 0), np.maximum(row - 0.5 - top, 0)
        total, sound = np.zeros(col.shape), np.ones(col.shape, bool)
        for dc, along in ((0, 1 - east), (1, east)):
            for dr, down in ((0, 1 - south), (1, south)):
                weight = along * down
                at = (top + dr).astype(int), (left + dc).astype(int)
                total += np.where(weight > 1e-6, values[at] * weight, 0)
                sound &= valid[at] | (weight <= 1e-6)
        return total, sound


class _Reprojected(Node):
    """Computed in one projection, then read from others by nearest neighbour."""

    def __init__(self, node: Node, proj: Projection) -> None:
        super().__init__(node.type, proj, (node,))

    def compute(self, look, grid):
        window, col, row = _window(self, grid)
        values, valid = full(look.plane(self.parents[0], window), window)
        at = np.floor(row + 1e-6).astype(int), np.floor(col + 1e-6).astype(int)
        return values[at], valid[at]


def wanted_projection(crs: Projection, transform, scale, asker: str) -> Projection:
    """Out of the three arguments that say it."""
    if transform is not None and scale is not None:
        raise EarthEngineError(f"{asker}: Cannot specify both crsTransform and scale.")
    if transform is not None:
        return Projection(crs.crs, tuple(float(one) for one in transform))
    if scale is not None:
        sx, _, tx, _, sy, ty = crs.transform
        step = crs.at_scale(scale).transform[0]
        origin = (tx, ty) if (sx, sy) != (1.0, 1.0) else (0.0, 0.0)
        return Projection(crs.crs, (step, 0.0, origin[0], 0.0, -step, origin[1]))
    return crs


@function("Image.reproject")
def _reproject(image: Image, crs: Projection, crsTransform, scale) -> Image:
    proj = wanted_projection(crs, crsTransform, scale, "Image.reproject")
    return image.derived([Band(band.name, _Reprojected(band.node, proj)) for band in image.bands], keep=True)


@function("Image.setDefaultProjection")
def _set_default_projection(image: Image, crs: Projection, crsTransform, scale) -> Image:
    proj = wanted_projection(crs, crsTransform, scale, "Image.setDefaultProjection")
    bands = [Band(b.name, OpNode(lambda plane: plane, b.node.type, (b.node,), proj)) for b in image.bands]
    return image.derived(bands, keep=True)


class _Aggregated(Node):
    """The mean (or another value) of the node's own pixels whose centres fall into each pixel of the grid."""

    def __init__(self, node: Node, reducer, most: int) -> None:
        super().__init__(reducer.type(node.type), node.proj, (node,))
        self._reducer, self._most = reducer, most

    def compute(self, look, grid):
        node = self.parents[0]
        ratio = grid.step_in(node.proj.crs) / abs(node.proj.transform[0])
        if ratio <= 1.0 + 1e-6 or node.proj.is_composite:
            return look.plane(node, grid)
        if ratio * ratio > self._most * 1.01:
            raise EarthEngineError(
                f"Image.reduceResolution: Too many input pixels per output pixel (maxPixels={self._most})."
            )
        window, _, _ = _window(node, grid)
        values, valid = full(look.plane(node, window), window)
        x, y = reproject(node.proj.crs, grid.proj.crs, *window.centres)
        sx, _, tx, _, sy, ty = grid.proj.transform
        col, row = np.floor((x - tx) / sx + 1e-9).astype(int), np.floor((y - ty) / sy + 1e-9).astype(int)
        use = valid & (col >= 0) & (row >= 0) & (col < grid.width) & (row < grid.height)
        return self._gathered(values[use], (row * grid.width + col)[use], grid)

    def _gathered(self, values, cell, grid):
        size = grid.width * grid.height
        count = np.bincount(cell, minlength=size).reshape(grid.height, grid.width)
        if self._reducer.name != "mean":
            raise EarthEngineError("The loopback Earth Engine server reduces resolution by the mean only.")
        total = np.bincount(cell, weights=values, minlength=size).reshape(grid.height, grid.width)
        return total / np.maximum(count, 1), count > 0


@function("Image.reduceResolution")
def _reduce_resolution(image: Image, reducer, bestEffort, maxPixels: int) -> Image:
    bands = [Band(band.name, _Aggregated(band.node, reducer, maxPixels)) for band in image.bands]
    return image.derived(bands, keep=True)


class _LonLat(Node):
    def __init__(self, which: int) -> None:
        super().__init__(DOUBLE, Projection("EPSG:4326", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
        self._which = which

    def compute(self, look, grid):
        return reproject(grid.proj.crs, "EPSG:4326", *grid.centres)[self._which], True


@function("Image.pixelLonLat")
def _pixel_lonlat() -> Image:
    return Image({}, None, (Band("longitude", _LonLat(0)), Band("latitude", _LonLat(1))))


@function("Image.metadata")
def _metadata(image: Image, property: str, name) -> Image:
    from gee_server.values import constant_image  # noqa: PLC0415

    value = image.properties.get(property)
    if not isinstance(value, int | float):
        raise EarthEngineError(f"Image.metadata: Property '{property}' is missing or not a number.")
    return constant_image({name or property: float(value)})


@function("Image.reduceRegion")
def _reduce_region(world, image: Image, reducer, geometry, scale, crs, crsTransform, bestEffort, maxPixels, tileScale):
    """Pixels whose centres lie in the shape, each counted whole."""
    shape = geometry or image.footprint
    if shape is None or shape is EARTH:
        raise EarthEngineError(
            "Image.reduceRegion: Unable to perform this geometry operation. Please specify a region."
        )
    own = next((band.node.proj for band in image.bands), None)
    proj = wanted_projection(crs or own, crsTransform, scale, "Image.reduceRegion")
    grid = _covering(shape, proj)
    if grid.width * grid.height > maxPixels:
        raise EarthEngineError(
            f"Image.reduceRegion: Too many pixels in the region. Found {grid.width * grid.height}, "
            f"but maxPixels allows only {int(maxPixels)}."
        )
    within, found = inside(shape, grid), {}
    for band, (values, valid) in zip(image.bands, world.planes(image, grid), strict=True):
        numbers = values[within & valid]
        result = reducer.flat(numbers.tolist()) if numbers.size else None
        many = isinstance(result, dict)
        found |= {f"{band.name}_{key}": one for key, one in result.items()} if many else {band.name: result}
    return found


_reduce_region.wants_world = True


def _covering(shape, proj: Projection) -> Grid:
    west, south, east, north = shape.bounds
    x, y = reproject("EPSG:4326", proj.crs, np.array([west, east, west, east]), np.array([south, south, north, north]))
    sx, _, tx, _, sy, ty = proj.transform
    cols, rows = np.sort([(x - tx) / sx]).ravel(), np.sort([(y - ty) / sy]).ravel()
    first_col, first_row = int(np.floor(cols.min())), int(np.floor(rows.min()))
    moved = (sx, 0.0, tx + first_col * sx, 0.0, sy, ty + first_row * sy)
    width, height = int(np.ceil(cols.max())) - first_col, int(np.ceil(rows.max())) - first_row
    return Grid(Projection(proj.crs, moved), max(width, 1), max(height, 1))
