"""A default world: a year of scenes at places where grids go wrong."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from gee_server.catalogue import DEGREE_M
from gee_server.grid import reproject
from gee_server.mgrs import TILE_M, tiles_near, utm_crs, utm_zone, zones_near
from gee_server.scene import WHOLE, Scene
from gee_server.world import World

PLACES: dict[str, tuple[float, float]] = {
    "toulouse": (1.4437, 43.6047),
    "tile_edge": (1.7589, 43.6973),
    "zone_edge": (6.0004, 45.0),
    "equator": (36.8219, 0.0003),
    "far_north": (25.0, 70.0),
    "south": (-61.3, -33.5),
    "antimeridian": (179.9995, -16.8),
    "antimeridian_east": (-179.9995, 65.0),
    "iowa": (-93.5, 42.0),
}
"""Longitude and latitude; tile_edge lies on the western edge of T31TDJ, within T31TCJ; zone_edge and the
antimeridian where tiles of two UTM zones overlap."""
REACH_M = 6000
FIRST_DAY, LAST_DAY = datetime(2022, 1, 3, tzinfo=UTC), datetime(2022, 12, 31, tzinfo=UTC)


def chance(*key) -> float:
    """0 to 1, always the same for the same key."""
    return zlib.crc32(repr(key).encode()) / 2**32


def every(days: int, first: datetime = FIRST_DAY, last: datetime = LAST_DAY) -> Iterator[datetime]:
    """Dates in steps."""
    for i in range((last - first).days // days + 1):
        yield first + timedelta(days=i * days)


def s2_scenes(
    lon: float, lat: float, dates: Sequence[datetime], cloud_pct: float | None = None, reach_m: float = REACH_M
) -> list[Scene]:
    """Sentinel-2 near a place: L2A and L1C, harmonised or not, and Cloud Score+; clouds by chance unless given."""
    found = []
    for tile, crs, left, top in tiles_near(lon, lat, reach_m):
        for when in dates:
            cloud = round(100 * chance(tile, when) ** 2, 4) if cloud_pct is None else cloud_pct
            found += s2_products(tile, crs, left, top, when, cloud)
    return found


def s2_products(tile: str, crs: str, left: float, top: float, when: datetime, cloud: float) -> list[Scene]:
    """One acquisition in every collection that it stands in; every fourth has a swath edge, with nodata beyond it."""
    taken = when.replace(hour=10, minute=50, second=31)
    index = f"{taken:%Y%m%dT%H%M%S}_{taken:%Y%m%dT%H%M%S}_T{tile}"
    properties = {
        "CLOUDY_PIXEL_PERCENTAGE": cloud,
        "PROCESSING_BASELINE": "04.00" if when >= datetime(2022, 1, 25, tzinfo=UTC) else "03.01",
        "MGRS_TILE": tile,
        "SENSING_ORBIT_DIRECTION": "DESCENDING",
        "SPACECRAFT_NAME": "Sentinel-2A",
    }
    if chance("unlabelled", index) < 0.04:
        del properties["CLOUDY_PIXEL_PERCENTAGE"]
    swath = (0.42 + 0.1 * chance("edge", index), 9.0) if chance("swath", index) < 0.25 else WHOLE
    names = ("COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S2_HARMONIZED", "COPERNICUS/S2_SR", "COPERNICUS/S2")
    scenes = [Scene(name, index, taken, crs, left, top, TILE_M, TILE_M, properties, cloud, swath) for name in names]
    plus = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
    return [*scenes, Scene(plus, index, taken, crs, left, top, TILE_M, TILE_M, {"MGRS_TILE": tile}, cloud, swath)]


def s1_scenes(lon: float, lat: float, dates: Sequence[datetime]) -> list[Scene]:
    """Sentinel-1 around a place: both passes, IW with VV and VH, now and then EW or HH and HV."""
    crs = utm_crs(utm_zone(lon), lat)
    x, y = reproject("EPSG:4326", crs, lon, lat)
    left, top = round(x - 125000, -4) + 3.7, round(y + 85000, -4) - 2.1  # not on the grid of Sentinel-2
    found = []
    for i, when in enumerate(dates):
        taken = when.replace(hour=5 if i % 2 else 17, minute=42)
        bands = ("HH", "HV", "angle") if i % 8 == 5 else ("VV", "VH", "angle")
        properties = {
            "instrumentMode": "EW" if i % 8 == 3 else "IW",
            "transmitterReceiverPolarisation": [band for band in bands if band != "angle"],
            "orbitProperties_pass": "DESCENDING" if i % 2 else "ASCENDING",
            "relativeOrbitNumber_start": 30 + i % 2,
            "platform_number": "A",
            "resolution": "H",
            "resolution_meters": 10,
        }
        index = f"S1A_{properties['instrumentMode']}_GRDH_1S{bands[0][0]}_{taken:%Y%m%dT%H%M%S}_{int(x):07d}"
        found += [
            Scene(name, index, taken, crs, left, top, 250000, 170000, properties, bands=bands)
            for name in ("COPERNICUS/S1_GRD", "COPERNICUS/S1_GRD_FLOAT")
        ]
    return found


def dem_scenes(lon: float, lat: float) -> list[Scene]:
    """The elevation tiles around a place; pixel centres lie on whole degrees."""
    half, found = 0.5 / 3600, []
    for east in (-1, 0, 1):
        for north in (-1, 0, 1):
            west, south = (int(lon // 1) + east + 180) % 360 - 180, int(lat // 1) + north
            index = f"Copernicus_DSM_COG_10_{south:+03d}_00_{west:+04d}_00_DEM"
            when = datetime(2011, 1, 1, tzinfo=UTC)
            name = "COPERNICUS/DEM/GLO30"
            found.append(Scene(name, index, when, "EPSG:4326", west - half, south + 1 + half, 1.0, 1.0))
    return found


def landsat_scenes(lon: float, lat: float, dates: Sequence[datetime]) -> list[Scene]:
    """Landsat 8 and 9 in turn; always a northern zone, as the real ones."""
    crs = utm_crs(utm_zone(lon), 1)
    x, y = reproject("EPSG:4326", crs, lon, lat)
    left, top = round((x - 92000) / 30) * 30 - 15, round((y + 92000) / 30) * 30 + 15
    found = []
    for i, when in enumerate(dates):
        name, craft = [("LC08", 8), ("LC09", 9)][i % 2]
        taken, cloud = when.replace(hour=10, minute=12), round(100 * chance("landsat", lon, when) ** 2, 2)
        index = f"{name}_{int(lon) + 180:03d}{int(lat) + 90:03d}_{taken:%Y%m%d}"
        properties = {"CLOUD_COVER": cloud, "SPACECRAFT_ID": f"LANDSAT_{craft}", "WRS_PATH": 198, "WRS_ROW": 30}
        for level in ("T1_L2", "T1", "T1_TOA")[: 2 if craft == 9 else 3]:
            collection = f"LANDSAT/{name}/C02/{level}"
            found.append(Scene(collection, index, taken, crs, left, top, 184980, 184980, properties, cloud))
    return found


def olci_scenes(lon: float, lat: float, dates: Sequence[datetime]) -> list[Scene]:
    """Sentinel-3 OLCI, degrees, far larger than a place."""
    step = 300 / DEGREE_M
    west, north = round((lon - 6) / step) * step, round((lat + 4) / step) * step
    width, height = round(12 / step) * step, round(8 / step) * step
    index = f"{int(lon) + 180:03d}{int(lat) + 90:03d}"
    name = "COPERNICUS/S3/OLCI"
    return [
        Scene(name, f"S3A_{when:%Y%m%dT095500}_{index}", when.replace(hour=9, minute=55), "EPSG:4326", west, north,
              width, height, {"spacecraft": "S3A", "timeliness": "NT"})
        for when in dates
    ]  # fmt: skip


def fixed_scenes(lon: float, lat: float) -> list[Scene]:
    """What comes once or once a year: NAIP, embeddings."""
    found = []
    zone = utm_zone(lon)
    for one in zones_near(lon):
        crs = utm_crs(one, lat)
        x, y = reproject("EPSG:4326", crs, lon, lat)
        left, top = (x // 163840) * 163840, (y // 163840 + 1) * 163840
        letter = "N" if lat >= 0 else "S"
        for year in range(2017, 2025):
            index = f"{zlib.crc32(repr((crs, left, top, year)).encode()):08x}"
            properties = {"UTM_ZONE": f"{one}{letter}", "DATASET_VERSION": "1.0", "MODEL_VERSION": "1.0",
                          "system:time_end": datetime(year + 1, 1, 1, tzinfo=UTC).timestamp() * 1000}  # fmt: skip
            when = datetime(year, 1, 1, tzinfo=UTC)
            name = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
            found.append(Scene(name, index, when, crs, left, top, 163840, 163840, properties))
    if -125 < lon < -66 and 24 < lat < 50:
        crs = utm_crs(zone, lat)
        x, y = (round(one) for one in reproject("EPSG:4326", crs, lon, lat))
        for year in (2019, 2021):
            when = datetime(year, 7, 14, 16, tzinfo=UTC)
            index = f"m_{int(abs(lon))}{int(lat)}_ne_{zone}_1_{when:%Y%m%d}"
            found.append(Scene("USDA/NAIP/DOQQ", index, when, crs, x - 3500, y + 3500, 7000, 7000))
    return found


def worldcover_scenes() -> list[Scene]:
    """The whole Earth at once."""
    return [
        Scene(f"ESA/WorldCover/{version}", f"{year}", datetime(year, 1, 1, tzinfo=UTC), "EPSG:4326", -180, 84, 360, 144)
        for version, year in (("v100", 2020), ("v200", 2021))
    ]


def coarse_scenes() -> list[Scene]:
    """Heights in one image, and what comes once a month for the whole Earth."""
    srtm = Scene("USGS/SRTMGL1_003", "SRTMGL1_003", datetime(2000, 2, 11, tzinfo=UTC), "EPSG:4326", -180, 60, 360, 116)
    names = ("ECMWF/ERA5_LAND/MONTHLY_AGGR", "IDAHO_EPSCOR/TERRACLIMATE", "NOAA/VIIRS/DNB/MONTHLY_V1/VCMCFG")
    months = [datetime(2022, month, 1, tzinfo=UTC) for month in range(1, 13)]
    return [srtm] + [
        Scene(name, f"{when:%Y%m}", when, "EPSG:4326", -180, 90, 360, 180) for name in names for when in months
    ]


def land_cover_scenes(scenes: Sequence[Scene]) -> list[Scene]:
    """Dynamic World: a map of each scene of Sentinel-2 (L1C) with 35 % cloud at most."""
    wanted = (one for one in scenes if one.collection == "COPERNICUS/S2_HARMONIZED" and one.cloud_pct <= 35)
    return [replace(one, collection="GOOGLE/DYNAMICWORLD/V1", properties={}, cloud_pct=0.0) for one in wanted]


@cache
def default_world() -> World:
    """2022 at every place of `PLACES`; the same object every time, as nothing changes it."""
    scenes = worldcover_scenes() + coarse_scenes()
    for lon, lat in PLACES.values():
        scenes += s2_scenes(lon, lat, list(every(5)))
        scenes += s1_scenes(lon, lat, list(every(6)))
        scenes += landsat_scenes(lon, lat, list(every(8)))
        scenes += olci_scenes(lon, lat, list(every(2)))
        scenes += dem_scenes(lon, lat) + fixed_scenes(lon, lat)
    scenes += land_cover_scenes(scenes)
    return World({scene.id: scene for scene in scenes}.values())
