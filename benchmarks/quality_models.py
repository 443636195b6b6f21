"""What is compared in `quality.py`: each kind of features is one line.

A trained model whose weights are not to be had is left out, with a word.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from quality_data import BANDS, CACHE, CELL_PX, Scene, cells, unpacked
from quality_scores import Numbers

from rs_embed import OutputSpec, PointBuffer, geobox_for, get_embedding, get_embeddings, plan_embedding
from rs_embed.errors import WeightsError
from rs_embed.providers.arrays import ArrayProvider

SOMEWHERE = 12.9, 47.8
"""Degrees."""
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


GALILEO_BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")


def galileo_s2(scene: Scene) -> dict[str, object]:
    """Ten bands, and the day."""
    ten = scene.s2[[BANDS.index(name) for name in GALILEO_BANDS]]
    return {"input_chw": {"s2": ten}, "dates": [scene.day], "unit": {"s2": "dn"}}


def galileo_s2_s1(scene: Scene) -> dict[str, object]:
    """The radar too."""
    asked = galileo_s2(scene)
    return {**asked, "input_chw": {"s2": asked["input_chw"]["s2"], "s1": scene.s1}}  # type: ignore[index]


def galileo(
    pixels: Callable[[Scene], dict[str, object]] = galileo_s2, *, pretrained: bool = True, **knobs: object
) -> Features:
    """Galileo nano, as published or with random weights."""
    ckpt = weights("galileo_nano/encoder.pt") if pretrained else None
    return embedded("galileo_1_0_nano", pixels, pretrained=pretrained, ckpt=ckpt, **knobs)


def behind(blocks: int) -> Features:
    """Galileo nano of its first blocks only, with the norm that follows the last."""
    features = galileo()

    def of(scene: Scene) -> Numbers | None:
        ckpt = weights("galileo_nano/encoder.pt")
        plan = plan_embedding("galileo_1_0_nano", **galileo_s2(scene), device="cpu", ckpt=ckpt)  # type: ignore[arg-type]
        try:
            module = plan.job.embedder.network.module  # the one that the next call uses
        except WeightsError as error:
            print(f"left out: layers of Galileo: {error.headline}", file=sys.stderr)
            return None
        whole = module.blocks
        module.blocks = whole[:blocks]
        try:
            return features(scene)
        finally:
            module.blocks = whole

    return of


def placed(pixels: Callable[[Scene], dict[str, object]]) -> Callable[[Scene], dict[str, object]]:
    """Every other pixel, on a grid, for a model that encodes pixels alone and must be told where they lie."""

    def of(scene: Scene) -> dict[str, object]:
        s1 = None if scene.s1 is None else scene.s1[:, ::2, ::2]
        scene = replace(scene, s2=scene.s2[:, ::2, ::2], s1=s1)
        asked = pixels(scene)
        arrays, radar = asked["input_chw"], {"s1": "db"}
        units = {"s2": "dn"} | (radar if "s1" in arrays else {})  # type: ignore[operator]
        days = dict.fromkeys(arrays, asked["dates"])  # type: ignore[call-overload]
        provider = ArrayProvider(arrays, _ground(scene), days, units)  # type: ignore[arg-type]
        return {"backend": provider, "modality": "+".join(arrays)}  # type: ignore[arg-type]

    return of


def _ground(scene: Scene) -> GeoBox:
    """The grid of a scene; of a patch whose place nobody tells, one in the middle of Europe, and so of all patches."""
    lon, lat = SOMEWHERE if scene.labels or scene.lon_lat is None else scene.lon_lat
    middle = geobox_for(PointBuffer(lon, lat, 100), 10)
    height, width = scene.s2.shape[1:]
    corner = Affine.translation(-(width // 2) + 10, -(height // 2) + 10)
    return GeoBox((height, width), middle.affine @ corner, middle.crs)


def presto(
    pixels: Callable[[Scene], dict[str, object]] = galileo_s2, *, pretrained: bool = True, **knobs: object
) -> Features:
    """Presto of one month, as published or with random weights; its bands are those of Galileo, in the same order."""
    ckpt = weights("presto/default_model.pt") if pretrained else None
    return embedded("presto_1_0", placed(pixels), pretrained=pretrained, ckpt=ckpt, **knobs)


def weights(file: str) -> Path | None:
    """A published file beside the checkout; `None`: the hub is asked."""
    found = (parent / "shared/weights" / file for parent in Path(__file__).resolve().parents)
    return next((path for path in found if path.exists()), None)


def geoclip(scene: Scene) -> Numbers | None:
    """GeoCLIP of the place of each cell; `None` where that is not known, or the package is not to be had."""
    places = degrees(scene)
    if places is None:
        return None
    try:
        ckpt = unpacked("geoclip==1.3.0", CACHE) / "geoclip/model/weights/location_encoder_weights.pth"
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"left out: geoclip, as it is not to be had: {error}", file=sys.stderr)
        return None
    points = [PointBuffer(lon, lat, CELL_PX * 5) for lon, lat in places]
    found = get_embeddings("geoclip_location", points, ckpt=ckpt, device="cpu", progress=False)
    return np.stack([one.data for one in found]).astype(np.float64)


FEATURES: dict[str, Features] = {
    "coordinates alone": coordinates,
    "GeoCLIP, location alone": geoclip,
    "band means": band_means,
    "band statistics and indices": band_statistics,
    "MOSAIKS": embedded("mosaiks_rcf", optical),
    "Galileo nano, 8 px": galileo(),
    "Galileo nano, 4 px": galileo(patch_size=4),
    "Galileo nano, 8 px, in windows": galileo(window_patches=12),
    "Galileo nano, 4 px, in windows": galileo(patch_size=4, window_patches=12),
    **{f"Galileo nano, 8 px, after block {blocks} of 4": behind(blocks) for blocks in (1, 2, 3)},
    "Galileo nano, 8 px, with radar": galileo(galileo_s2_s1),
    "Presto, one month": presto(),
    "Presto, one month, with radar": presto(galileo_s2_s1),
    "Galileo nano, 8 px, random": galileo(pretrained=False),
    "Galileo nano, 4 px, random": galileo(patch_size=4, pretrained=False),
    "Presto, one month, random": presto(pretrained=False),
}
SEE_RADAR = {"Galileo nano, 8 px, with radar", "Presto, one month, with radar"}
"""They are not asked to predict it."""
PAIRS = (
    ("MOSAIKS", "band statistics and indices"),
    ("Galileo nano, 8 px", "Galileo nano, 8 px, random"),
    ("Galileo nano, 4 px", "Galileo nano, 4 px, random"),
    ("Galileo nano, 4 px", "Galileo nano, 8 px"),
    ("Galileo nano, 4 px", "Galileo nano, 4 px, in windows"),
    ("Galileo nano, 4 px", "band statistics and indices"),
    ("Galileo nano, 4 px", "MOSAIKS"),
    ("Galileo nano, 8 px", "Galileo nano, 8 px, after block 2 of 4"),
    ("Galileo nano, 8 px", "Presto, one month, random"),
    ("Galileo nano, 8 px, in windows", "MOSAIKS"),
    ("Presto, one month", "Presto, one month, random"),
    ("Presto, one month", "band statistics and indices"),
)
"""Of which the difference is told."""
