"""The synthetic world: scenes, and the archive's answers about them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

import gee_server.functions  # noqa: F401 - offers Earth Engine's functions
from gee_server.archive import Archive
from gee_server.catalogue import CATALOGUE
from gee_server.errors import EarthEngineError
from gee_server.geometry import point
from gee_server.grid import Grid, Lattices, Projection, check_crs, reproject
from gee_server.image import Collection, Image, image_of
from gee_server.interpreter import Interpreter
from gee_server.pixels import Look, cast, full
from gee_server.scene import Scene

MAX_BYTES, MAX_SIDE_PX, MAX_BANDS = 50331648, 32768, 1024


class World:
    """Scenes, and what is computed from them.

    Args:
        scenes: All that there is.
        collections: Which collections exist; those without a scene are empty.
    """

    def __init__(self, scenes: Iterable[Scene], collections: Iterable[str] = tuple(CATALOGUE)) -> None:
        self.scenes = sorted(scenes, key=lambda scene: (scene.collection, scene.time_ms, scene.index))
        self._names = set(collections)
        self._lattices = Lattices()

    @cached_property
    def _archives(self) -> dict[str, Archive]:
        grouped: dict[str, list[Scene]] = {name: [] for name in self._names}
        for scene in self.scenes:
            grouped.setdefault(scene.collection, []).append(scene)
        return {name: Archive(scenes, name) for name, scenes in grouped.items()}

    @cached_property
    def _by_id(self) -> dict[str, Scene]:
        return {scene.id: scene for scene in self.scenes}

    def collection(self, id: str) -> Collection:
        """A collection by its id.

        Raises:
            EarthEngineError: There is none.
        """
        if id not in self._archives:
            raise EarthEngineError(_missing("ImageCollection", id))
        if CATALOGUE[id].asset == "IMAGE":
            raise EarthEngineError(f"ImageCollection.load: Asset '{id}' is not an ImageCollection.")
        return self._archives[id]

    def image(self, id: str) -> Image:
        """A stored image by its id.

        Raises:
            EarthEngineError: There is none.
        """
        if id not in self._by_id:
            raise EarthEngineError(_missing("Image", id))
        return image_of(self._by_id[id])

    @property
    def image_ids(self) -> set[str]:
        """Of stored images."""
        return set(self._by_id)

    @property
    def asset_ids(self) -> set[str]:
        """Of everything stored."""
        return self.image_ids | set(self._archives)

    def scenes_near(self, collection: str, lon: float, lat: float, reach_m: float = 0.0) -> list[Scene]:
        """For tests: the scenes of a collection whose footprint has a place, or comes within `reach_m`, by date."""
        place = point(lon, lat)
        shape = place.buffer(reach_m) if reach_m else place
        return [scene for scene in self._archives[collection].scenes if scene.footprint.intersects(shape)]

    def scene_pixels(self, collection: str, index: str, bands: Iterable[str], geobox) -> np.ndarray:
        """For tests: the native pixels of one scene under the pixel centres of a geobox, `[C, H, W]`, NaN if masked.

        Worked out apart from the graph: nothing of what answers requests is used but the scene itself.
        """
        scene = next(one for one in self._archives[collection].scenes if one.index == index)
        rows, cols = np.mgrid[: geobox.shape[0], : geobox.shape[1]] + 0.5
        x, y = reproject(str(geobox.crs), scene.crs, *(geobox.affine @ (cols, rows)))
        return np.stack([scene.pixels(band, x, y) for band in bands])

    def run(self, expression: dict):
        """The value of an expression."""
        return Interpreter(expression, self).run()

    def planes(self, image: Image, grid: Grid) -> list[tuple[np.ndarray, np.ndarray]]:
        """Values and validity of each band of an image on a grid."""
        nodes = [band.node for band in image.bands]
        look = Look(self._lattices, nodes)
        return [full(look.plane(node, grid), grid) for node in nodes]

    def pixels(self, request: dict) -> np.ndarray:
        """What `computePixels` answers: a structured array, 0 where masked.

        Raises:
            EarthEngineError: The service would refuse.
        """
        image = self.run(request["expression"])
        if not isinstance(image, Image):
            raise EarthEngineError("Image.visualize: The result of the expression is not an image.")
        if request.get("bandIds"):
            image = image.select(request["bandIds"])
        if not image.bands:
            raise EarthEngineError("Image has no bands. Must have at least one band.")
        grid = _grid(request.get("grid") or {}, image)
        _check_size(image, grid)
        dtype = [(band.name, band.node.type.dtype) for band in image.bands]
        answer = np.zeros((grid.height, grid.width), dtype)
        for band, (values, valid) in zip(image.bands, self.planes(image, grid), strict=True):
            kept = np.where(valid, cast(values, band.node.type), 0)
            with np.errstate(invalid="ignore"):
                answer[band.name] = kept
        return answer


def _missing(kind: str, id: str) -> str:
    return f"{kind}.load: {kind} asset '{id}' not found (does not exist or caller does not have access)."


def _grid(asked: dict, image: Image) -> Grid:
    """As asked; what is left out is taken from the image's first band."""
    first = image.bands[0]
    crs = check_crs(asked["crsCode"]) if "crsCode" in asked else first.node.proj.crs
    affine = asked.get("affineTransform")
    transform = first.node.proj.transform if affine is None else _six(affine)
    size = asked.get("dimensions")
    width, height = _native_size(image) if size is None else (size.get("width", 0), size.get("height", 0))
    if min(width, height) < 1:
        raise EarthEngineError("Pixel grid dimensions must be positive.")
    if max(width, height) > MAX_SIDE_PX:
        raise EarthEngineError(f"Pixel grid dimensions ({width}x{height}) must be less than or equal to {MAX_SIDE_PX}.")
    return Grid(Projection(crs, transform), width, height)


def _six(affine: dict) -> tuple:
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    six = tuple(float(affine.get(name, 0.0)) for name in names)
    if six[0] == 0 or six[4] == 0:
        raise EarthEngineError("The affine transform must not have a scale of 0.")
    return six


def _native_size(image: Image) -> tuple[int, int]:
    return image.size(image.bands[0].name) if image.size else (360, 180)


def _check_size(image: Image, grid: Grid) -> None:
    if len(image.bands) > MAX_BANDS:
        raise EarthEngineError(f"Number of bands ({len(image.bands)}) must be less than or equal to {MAX_BANDS}.")
    per_pixel = sum(band.node.type.dtype.itemsize + 1 for band in image.bands)
    size = grid.width * grid.height * per_pixel
    if size > MAX_BYTES:
        raise EarthEngineError(f"Total request size ({size} bytes) must be less than or equal to {MAX_BYTES} bytes.")
