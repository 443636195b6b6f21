"""Pixel grids, and where on the ground their pixels lie."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from pyproj import CRS, Geod, Transformer

from gee_server.errors import EarthEngineError

_KEPT_LATTICES, _KEPT_PX = 256, 1_500_000


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> Transformer:
    """Coordinates of one CRS in another, x before y; safe to use from several threads in turn."""
    return Transformer.from_crs(source, target, always_xy=True)


_TRANSFORM_LOCK = threading.Lock()


def reproject(source: str, target: str, x, y):
    """The same places in another CRS; a pyproj transformer must not be shared by two threads at once."""
    if source == target:
        return x, y
    with _TRANSFORM_LOCK:
        return transformer(source, target).transform(x, y)


@lru_cache(maxsize=256)
def is_geographic(crs: str) -> bool:
    """Whether its unit is the degree."""
    return CRS.from_user_input(crs).is_geographic


@dataclass(frozen=True)
class Projection:
    """A CRS and the six numbers of an affine transform, in Earth Engine's order: sx, shx, tx, shy, sy, ty."""

    crs: str
    transform: tuple[float, float, float, float, float, float]

    @property
    def is_composite(self) -> bool:
        """Whether it is the 1 degree default, which means that a composite has lost its own."""
        return self == COMPOSITE

    @property
    def nominal_scale(self) -> float:
        """Metres per pixel, at the origin of the CRS where it counts degrees."""
        step = (abs(self.transform[0]) + abs(self.transform[4])) / 2
        return step * 111319.49079327358 if is_geographic(self.crs) else step

    def at_scale(self, metres: float) -> "Projection":
        """The CRS with square pixels of that size; north is down, as with the real service."""
        step = metres / 111319.49079327358 if is_geographic(self.crs) else metres
        return Projection(self.crs, (step, 0.0, 0.0, 0.0, step, 0.0))


COMPOSITE = Projection("EPSG:4326", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))


@lru_cache(maxsize=256)
def check_crs(code: str) -> str:
    """The code, if pyproj knows it.

    Raises:
        EarthEngineError: It does not.
    """
    try:
        CRS.from_user_input(code)
    except Exception as error:  # noqa: BLE001 - pyproj's own errors and plain type errors alike
        raise EarthEngineError(f"Projection: The CRS of a map projection could not be parsed: '{code}'.") from error
    return code


@dataclass(frozen=True)
class Grid:
    """What pixels are asked for."""

    proj: Projection
    width: int
    height: int

    @cached_property
    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of every pixel centre in the grid's CRS, each `[height, width]`."""
        sx, shx, tx, shy, sy, ty = self.proj.transform
        col, row = np.arange(self.width) + 0.5, (np.arange(self.height) + 0.5)[:, None]
        return sx * col + shx * row + tx, shy * col + sy * row + ty

    def centres_in(self, crs: str) -> tuple[np.ndarray, np.ndarray]:
        """The pixel centres in another CRS."""
        return reproject(self.proj.crs, crs, *self.centres)

    @cached_property
    def corners_lonlat(self) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of the four outer corners."""
        sx, shx, tx, shy, sy, ty = self.proj.transform
        col, row = np.array([0, self.width, self.width, 0]), np.array([0, 0, self.height, self.height])
        return reproject(self.proj.crs, "EPSG:4326", sx * col + shx * row + tx, shy * col + sy * row + ty)

    def step_in(self, crs: str) -> float:
        """How far apart its pixel centres are in another CRS, measured at the middle of the grid."""
        return _step(self, crs)


@lru_cache(maxsize=1024)
def _step(grid: Grid, crs: str) -> float:
    sx, shx, tx, shy, sy, ty = grid.proj.transform
    col = grid.width / 2 + np.array([0.0, 1.0, 0.0])
    row = grid.height / 2 + np.array([0.0, 0.0, 1.0])
    x, y = reproject(grid.proj.crs, crs, sx * col + shx * row + tx, shy * col + sy * row + ty)
    return float(max(np.hypot(x[1] - x[0], y[1] - y[0]), np.hypot(x[2] - x[0], y[2] - y[0])))


@dataclass(frozen=True)
class Lattice:
    """The native pixels of a kind of scene: a CRS, a pixel size, and where the pixel edges lie."""

    crs: str
    step: float
    phase_x: float
    phase_y: float
    shift_x: float = 0.0
    """From a pixel's centre to the place that is looked at."""
    shift_y: float = 0.0


class Sampled:
    """The native pixel under every pixel of a grid: its index on the lattice, and its centre on the ground."""

    def __init__(self, grid: Grid, lattice: Lattice) -> None:
        self.lattice = lattice
        x, y = grid.centres_in(lattice.crs)
        self.col = np.floor((x - lattice.phase_x) / lattice.step + 1e-6).astype(np.int64)
        self.row = np.floor((y - lattice.phase_y) / lattice.step + 1e-6).astype(np.int64)
        self.x, self.y = self._centre(self.col, self.row)
        self._kept: dict[str, tuple] = {}

    def _centre(self, col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place in each pixel."""
        lattice = self.lattice
        x = lattice.phase_x + (col + 0.5) * lattice.step + lattice.shift_x
        return x, lattice.phase_y + (row + 0.5) * lattice.step + lattice.shift_y

    @cached_property
    def lonlat(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the native pixel centres."""
        if self.lattice.crs == "EPSG:4326":
            return self.x, self.y
        rows, cols = self.row[:, :1], self.col[:1]
        if (self.row == rows).all() and (self.col == cols).all():  # the grid lies along the lattice: few pixels
            (row, back_row), (col, back_col) = (np.unique(one, return_inverse=True) for one in (rows, cols))
            lon, lat = reproject(self.lattice.crs, "EPSG:4326", *self._centre(*np.meshgrid(col, row)))
            back = np.ix_(back_row.ravel(), back_col.ravel())
            return lon[back], lat[back]
        return reproject(self.lattice.crs, "EPSG:4326", self.x, self.y)

    def keep(self, name: str, make):
        """What `make(lon, lat)` gives, made once."""
        if name not in self._kept:
            self._kept[name] = make(*self.lonlat)
        return self._kept[name]


class Lattices:
    """Sampled grids kept from one request to the next, the oldest dropped."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Grid, Lattice], Sampled] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, grid: Grid, lattice: Lattice) -> Sampled:
        """The lattice sampled by the grid."""
        key = (grid, lattice)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        sampled = Sampled(grid, lattice)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = sampled
                self._size += sampled.x.size
            while len(self._kept) > 1 and (len(self._kept) > _KEPT_LATTICES or self._size > _KEPT_PX):
                self._size -= self._kept.popitem(last=False)[1].x.size
        return sampled


WGS84 = Geod(ellps="WGS84")
