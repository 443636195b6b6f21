"""Short ways to ask a server through the client, and to work out apart from it what it must answer."""

from datetime import UTC, datetime

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from gee_server.mgrs import utm_crs, utm_zone
from gee_server.places import PLACES, s2_products
from gee_server.scene import Scene
from gee_server.world import World

S2, S1, S1_FLOAT = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S1_GRD", "COPERNICUS/S1_GRD_FLOAT"
TOULOUSE = PLACES["toulouse"]


def chip(lon: float, lat: float, side_px: int = 24, step: float = 10.0, crs: str | None = None) -> GeoBox:
    """A square around a place, snapped to 60 m."""
    crs = crs or utm_crs(utm_zone(lon), lat)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    west, north = (round(one / 60) * 60 for one in (x - side_px * step / 2, y + side_px * step / 2))
    return GeoBox((side_px, side_px), Affine(step, 0, west, 0, -step, north), crs)


def grid_of(geobox: GeoBox) -> dict:
    """As `computePixels` wants it."""
    sx, shx, tx, shy, sy, ty = geobox.affine[:6]
    affine = {"scaleX": sx, "shearX": shx, "translateX": tx, "shearY": shy, "scaleY": sy, "translateY": ty}
    size = {"width": geobox.shape[1], "height": geobox.shape[0]}
    return {"dimensions": size, "affineTransform": affine, "crsCode": str(geobox.crs)}


def compute(image, geobox: GeoBox) -> np.ndarray:
    """The pixels of an image."""
    import ee  # noqa: PLC0415

    return ee.data.computePixels({"expression": image, "fileFormat": "NUMPY_NDARRAY", "grid": grid_of(geobox)})


def centres(geobox: GeoBox, crs: str = "EPSG:4326") -> tuple[np.ndarray, np.ndarray]:
    """X and y of every pixel centre in another CRS."""
    rows, cols = np.mgrid[: geobox.shape[0], : geobox.shape[1]] + 0.5
    return Transformer.from_crs(str(geobox.crs), crs, always_xy=True).transform(*(geobox.affine @ (cols, rows)))


def outline(geobox: GeoBox):
    """A rectangle through the outermost pixel centres."""
    import ee  # noqa: PLC0415

    lon, lat = centres(geobox)
    return ee.Geometry.Rectangle([lon.min(), lat.min(), lon.max(), lat.max()])


def seen(world: World, start: str, end: str, collection: str = S2, place=TOULOUSE) -> list[Scene]:
    """Scenes at a place within half-open days, by date."""
    first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (start, end))
    return [scene for scene in world.scenes_near(collection, *place) if first <= scene.when < last]


def world_of(cloud_pct: float, days: int = 1) -> World:
    """One tile around Toulouse, on the first days of June 2022."""
    scenes = []
    for day in range(1, days + 1):
        when = datetime(2022, 6, day, tzinfo=UTC)
        scenes += s2_products("31TCJ", "EPSG:32631", 300000, 4900020, when, cloud_pct)
    return World(scenes)
