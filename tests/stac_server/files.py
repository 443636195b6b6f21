"""GeoTIFFs of the synthetic world: real headers of whole tiles, pixels only around its places."""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import rasterio
from affine import Affine
from gee_server import PLACES, Scene, default_world
from gee_server.grid import reproject
from rasterio.io import MemoryFile
from rasterio.windows import Window

from stac_server.flavours import HELD, S2, Quirks, baseline_of, scenes, stored_offset

REACH_M = 800
BLOCK_PX = 512
OVERVIEW_VALUE = 60_000
_LOCKS: dict[tuple, threading.Lock] = {}
_GUARD = threading.Lock()


@cache
def _by_index(flavour: str, collection: str) -> dict[str, Scene]:
    return {scene.index: scene for scene in scenes(Quirks(flavour), collection)}


def file_of(quirks: Quirks, collection: str, index: str, band: str) -> bytes | None:
    """The file of one band, or `None` where there is none."""
    scene = _by_index(quirks.flavour, collection).get(index)
    if scene is None or band not in HELD[quirks.flavour][collection][1]:
        return None
    offset = 0
    if scene.collection == S2 and band != "SCL":
        offset = stored_offset(quirks, collection, baseline_of(quirks, scene))
    key = (scene.id, band, offset, quirks.overviews)
    with _GUARD:
        lock = _LOCKS.setdefault(key, threading.Lock())
    with lock:
        return _made(*key)


@cache
def _made(scene_id: str, band: str, offset: int, overviews: bool) -> bytes:
    scene = next(one for one in default_world().scenes if one.id == scene_id)
    names = list("RGBN") if band == "RGBN" else [band]
    spec = scene.about.band(names[0])
    whole = spec.type[0] == "int"
    dtype = ("uint8" if spec.type[2] == 255 else "uint16") if whole else "float32"
    nodata = _nodata(scene, dtype)
    profile = {
        "driver": "GTiff", "dtype": dtype, "count": len(names), "crs": scene.crs, "nodata": nodata,
        "width": round(scene.width / spec.step), "height": round(scene.height / spec.step),
        "transform": Affine(spec.step, 0, scene.left, 0, -spec.step, scene.top),
        "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "sparse_ok": True,
    }  # fmt: skip
    if profile["width"] > 40_000:  # WorldCover: one image of the Earth
        profile["bigtiff"] = True
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            for window in _windows(scene, spec.step, profile["width"], profile["height"]):
                dataset.write(_pixels(scene, names, window, offset, dtype, nodata), window=window)
        if overviews:
            _poison(memory, dtype)
        return bytes(memory.getbuffer())


def _nodata(scene: Scene, dtype: str) -> float | None:
    if scene.collection.startswith("COPERNICUS/S1"):
        return -32768.0
    return None if dtype == "float32" or scene.collection.startswith("USDA") else 0


def _windows(scene: Scene, step: float, width: int, height: int) -> list[Window]:
    """Around each place on the scene."""
    found = []
    for lon, lat in PLACES.values():
        x, y = reproject("EPSG:4326", scene.crs, lon, lat)
        if not np.isfinite([x, y]).all():
            continue
        metres = 111_000.0 if scene.crs == "EPSG:4326" else 1.0
        across = min(400, max(2, int(REACH_M / metres / step) + 1))
        wider = int(across / max(0.1, np.cos(np.radians(lat)))) if metres > 1 else across
        col, row = int((x - scene.left) // step), int((scene.top - y) // step)
        first_col, last_col = max(0, col - wider), min(width, col + wider)
        first_row, last_row = max(0, row - across), min(height, row + across)
        if first_col < last_col and first_row < last_row:
            found.append(Window(first_col, first_row, last_col - first_col, last_row - first_row))
    return found


def _pixels(scene: Scene, names: list[str], window: Window, offset: int, dtype: str, nodata: float | None):
    spec = scene.about.band(names[0])
    cols, rows = np.meshgrid(np.arange(window.width) + window.col_off, np.arange(window.height) + window.row_off)
    x, y = scene.left + (cols + 0.5) * spec.step, scene.top - (rows + 0.5) * spec.step
    values = np.stack([scene.pixels(name, x, y) for name in names])
    stored = values + offset if offset >= 0 else np.maximum(values + offset, 1)  # 0 is nodata
    values = np.where(np.isfinite(values), stored, 0 if nodata is None else nodata)
    return values.astype(dtype)


def _poison(memory: MemoryFile, dtype: str) -> None:
    """Overviews that hold another value than the pixels."""
    with rasterio.open(memory.name, "r+") as dataset:
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    for level in (0, 1):
        with rasterio.open(memory.name, "r+", overview_level=level) as dataset:
            window = Window(0, 0, min(dataset.width, 6000), min(dataset.height, 6000))
            shape = (dataset.count, int(window.height), int(window.width))
            dataset.write(np.full(shape, OVERVIEW_VALUE, dtype), window=window)
