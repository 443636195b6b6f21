"""Names and corners of the 100 km squares that Sentinel-2 tiles are cut by."""

import math
from itertools import product

from gee_server.grid import reproject

TILE_M = 109800
_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_BANDS = "CDEFGHJKLMNPQRSTUVWX"


def utm_zone(lon: float) -> int:
    """1 to 60, without the exceptions of Norway and Svalbard."""
    return int((lon + 180) // 6) % 60 + 1


def zones_near(lon: float) -> list[int]:
    """The zone of a place, then the next one if that begins within half a degree."""
    zone, within = utm_zone(lon), (lon + 180) % 6
    if within < 0.5:
        return [zone, (zone - 2) % 60 + 1]
    return [zone, zone % 60 + 1] if within > 5.5 else [zone]


def utm_crs(zone: int, lat: float) -> str:
    """EPSG code of a UTM zone, north or south."""
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def tile_name(zone: int, lat: float, square_x: int, square_y: int) -> str:
    """As in `T31TCJ`, without the T."""
    band = _BANDS[max(0, min(19, int((lat + 80) // 8)))]
    column = _COLUMNS[(zone - 1) % 3][square_x - 1]
    row = _ROWS[(square_y + (0 if zone % 2 else 5)) % 20]
    return f"{zone:02d}{band}{column}{row}"


def tile_corner(square_x: int, square_y: int) -> tuple[int, int]:
    """Outer north-west corner, metres, a multiple of 60: tiles reach 9.8 km into the next ones."""
    return math.floor(square_x * 100000 / 60) * 60, math.ceil((square_y + 1) * 100000 / 60) * 60


def tiles_near(lon: float, lat: float, reach_m: float) -> list[tuple[str, str, int, int]]:
    """Tiles that cover a place or come within `reach_m` of it: name, CRS, and the corner's x and y.

    Within half a degree of a zone's edge both zones have their own; so have both hemispheres at the equator.
    """
    found = []
    for zone in zones_near(lon):
        for half in hemispheres_near(lat):
            crs = utm_crs(zone, half)
            x, y = reproject("EPSG:4326", crs, lon, lat)
            rows = range(int(y // 100000) - 1, int(y // 100000) + 3)
            for sx, sy in product(range(int(x // 100000) - 1, int(x // 100000) + 2), rows):
                left, top = tile_corner(sx, sy)
                inside_x = left - reach_m <= x <= left + TILE_M + reach_m
                inside_y = top - TILE_M - reach_m <= y <= top + reach_m
                exists = 1 <= sx <= 8 and (sy >= 0 if half > 0 else sy < 100)
                if exists and inside_x and inside_y:
                    name = tile_name(zone, max(lat, 0) if half > 0 else min(lat, -1e-6), sx, sy)
                    found.append((name, crs, left, top))
    return found


def hemispheres_near(lat: float) -> list[int]:
    """1 for the north, -1 for the south; both within a tile of the equator, each with its own northings."""
    if abs(lat) < 1.1:
        return [1, -1]
    return [1 if lat >= 0 else -1]
