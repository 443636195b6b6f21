"""What is compared in `quality.py`: each kind of features is one line.

A trained model whose weights are not to be had is left out, with a word.
"""

import sys
from collections.abc import Callable

import numpy as np
from quality_data import BANDS, CELL_PX, Scene, cells
from quality_scores import Numbers

from rs_embed import OutputSpec, get_embedding
from rs_embed.errors import WeightsError

Features = Callable[[Scene], Numbers | None]
"""Of each cell of a scene, `[cell, feature]`, row by row; `None` where they cannot be had."""


def embedded(model: str, pixels: Callable[[Scene], dict[str, object]], **options: object) -> Features:
    """The tokens of a model, brought to cells."""

    def of(scene: Scene) -> Numbers | None:
        try:
            grid = get_embedding(model, output=OutputSpec.grid(), device="cpu", **pixels(scene), **options)
        except WeightsError as error:
            print(f"left out: {model}: {error.headline}", file=sys.stderr)
            return None
        return cells(grid.data, CELL_PX * grid.data.shape[1] // scene.s2.shape[1])

    return of


def band_statistics(scene: Scene) -> Numbers:
    """Mean and standard deviation of each band, and the means of three indices."""
    reflectance = scene.s2 / 1e4
    mean = cells(reflectance)
    spread = np.sqrt((cells(reflectance**2) - mean**2).clip(0))
    by_name = dict(zip(BANDS, reflectance, strict=True))
    pairs = (("B8", "B4"), ("B3", "B8"), ("B11", "B8"))  # NDVI, NDWI, NDBI
    indices = np.stack([(by_name[a] - by_name[b]) / np.maximum(by_name[a] + by_name[b], 1e-3) for a, b in pairs])
    return np.hstack([mean, spread, cells(indices.clip(-1, 1))])


def band_means(scene: Scene) -> Numbers:
    """The mean of each band."""
    return cells(scene.s2 / 1e4)


def degrees(scene: Scene) -> Numbers | None:
    """Longitude and latitude of each cell; `None` where the place is not known."""
    if scene.lon_lat is None:
        return None
    rows, cols = (side // CELL_PX for side in scene.s2.shape[1:])
    row, col = np.divmod(np.arange(rows * cols), cols)
    lon, lat = scene.lon_lat
    north = (rows / 2 - 0.5 - row) * CELL_PX * 10 / 111_320
    east = (col - cols / 2 + 0.5) * CELL_PX * 10 / 111_320 / np.cos(np.radians(lat))
    return np.stack([lon + east, lat + north], axis=1)


def coordinates(scene: Scene) -> Numbers | None:
    """Polynomials of the second degree of longitude and latitude, about the scene's centre, and the place itself."""
    found = degrees(scene)
    if found is None:
        return None
    x, y = ((found - np.array(scene.lon_lat)) * 100).T
    return np.stack([*found.T, x * x, x * y, y * y], axis=1)


def optical(scene: Scene) -> dict[str, object]:
    """All twelve bands."""
    return {"input_chw": scene.s2, "unit": "dn"}  # said, as a patch of dark water looks like a picture


FEATURES: dict[str, Features] = {
    "coordinates alone": coordinates,
    "band means": band_means,
    "band statistics and indices": band_statistics,
    "MOSAIKS": embedded("mosaiks_rcf", optical),
}
PAIRS: tuple[tuple[str, str], ...] = (("MOSAIKS", "band statistics and indices"),)
"""Of which the difference is told."""
