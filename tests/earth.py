"""What Earth Engine must answer, worked out scene by scene without it; and short ways to ask."""

from collections.abc import Sequence
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
from gee_server import PLACES, EarthEngineServer, Scene, World
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.geo import geobox_for, project
from rs_embed.core.specs import PointBuffer, SensorSpec, Series, TemporalSpec
from rs_embed.providers.base import Query
from rs_embed.providers.common.composite import composite
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.earthengine.provider import EarthEngine

S2, L1C, S1, S1_FLOAT = (
    f"COPERNICUS/{name}" for name in ("S2_SR_HARMONIZED", "S2_HARMONIZED", "S1_GRD", "S1_GRD_FLOAT")
)
CLOUD_SCORE = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
SUMMER = TemporalSpec.range("2022-06-01", "2022-07-01")
QUICK = Waits(Backoff(first_s=0.02, longest_s=0.1))


def earth_engine(server: EarthEngineServer, **settings: object) -> EarthEngine:
    """The provider, asking a loopback server, and impatient."""
    settings = {"project": "test-project", "credentials": "none", "waits": QUICK, **settings}
    return EarthEngine(host=server.url, **settings)


def ask(
    place: str = "toulouse",
    bands: Sequence[str] = ("B2", "B11", "B1"),
    window: TemporalSpec | None = SUMMER,
    *,
    collection: str = S2,
    side_m: float = 640,
    scale_m: float = 10,
    series: Series | None = None,
    **sensor: object,
) -> Query:
    """A query around one of the places of the default world."""
    lon, lat = PLACES[place]
    geobox = geobox_for(PointBuffer(lon, lat, side_m / 2), scale_m)
    return Query("M", SensorSpec(collection, tuple(bands), scale_m, **sensor), geobox, window, series)


def day_of(when: date) -> TemporalSpec:
    """That day alone."""
    return TemporalSpec(when, when + timedelta(days=1))


def scenes_of(world: World, query: Query) -> list[Scene]:
    """The scenes that count, in order of time: in the window, on the grid, not too cloudy, of the right kind."""
    return [scene for scene in world.scenes if _counts(scene, query) and _touches(scene, query.geobox)]


def _counts(scene: Scene, query: Query) -> bool:
    sensor, told = query.sensor, scene.properties
    if scene.collection != sensor.collection or not query.window.start <= scene.when.date() < query.window.end:
        return False
    if sensor.collection.startswith("COPERNICUS/S2"):
        return told.get("CLOUDY_PIXEL_PERCENTAGE", 101) <= sensor.cloudy_pct
    if sensor.collection.startswith("COPERNICUS/S1"):
        right_pass = sensor.orbit_pass in (None, told["orbitProperties_pass"])
        return told["instrumentMode"] == sensor.instrument_mode and set(sensor.bands) <= set(scene.bands) and right_pass
    if sensor.collection.startswith("LANDSAT"):
        return told["CLOUD_COVER"] <= sensor.cloudy_pct
    return True


def _touches(scene: Scene, geobox: GeoBox) -> bool:
    x, y = centres(geobox, scene.crs)
    return bool(scene.has_data(x, y).any())


@lru_cache(maxsize=64)
def centres(geobox: GeoBox, crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X and y of the middle of every pixel, `[H, W]`, in another CRS."""
    height, width = geobox.shape
    a, _, c, _, e, f = tuple(geobox.affine)[:6]
    x, y = np.meshgrid(c + a * (np.arange(width) + 0.5), f + e * (np.arange(height) + 0.5))
    return project(x, y, str(geobox.crs), crs)


def pixels_of(scene: Scene, bands: Sequence[str], geobox: GeoBox) -> NDArray[np.float32]:
    """The nearest native pixels of a scene, `[C, H, W]` as stored, NaN where it has nothing."""
    x, y = centres(geobox, scene.crs)
    return np.stack([scene.pixels(band, x, y) for band in bands]).astype(np.float32)


def clear_of(world: World, scene: Scene, query: Query) -> NDArray[np.bool_]:
    """Which pixels of a scene the cloud mask of the query leaves, `[H, W]`."""
    mask = query.sensor.cloud_mask
    if mask == "none":
        return np.ones(query.geobox.shape, bool)
    if mask == "scl":
        return np.isin(pixels_of(scene, ["SCL"], query.geobox)[0], (2, 4, 5, 6, 7, 11))
    twin = next(one for one in world.scenes if one.collection == CLOUD_SCORE and one.index == scene.index)
    return pixels_of(twin, ["cs_cdf"], query.geobox)[0] >= 0.6


def frames_of(world: World, query: Query, scenes: Sequence[Scene] | None = None) -> list[NDArray[np.float32]]:
    """The masked pixels of each scene that counts."""
    scenes = scenes_of(world, query) if scenes is None else scenes
    frames = [pixels_of(scene, query.sensor.bands, query.geobox) for scene in scenes]
    clear = [clear_of(world, scene, query) for scene in scenes]
    return [np.where(mask, frame, np.float32(np.nan)) for mask, frame in zip(clear, frames, strict=True)]


def expected(world: World, query: Query) -> NDArray[np.float32]:
    """The median or mean of the scenes that count, as `_composite.py` makes it, `[C, H, W]`."""
    return composite(frames_of(world, query), query.sensor.composite)


def routes(server: EarthEngineServer) -> list[str]:
    """What was asked: "value" is a list of scenes, "pixels" are pixels."""
    return [request.route for request in server.data_requests]
