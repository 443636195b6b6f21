"""AlphaEarth's public mosaic: one Zarr array of the Earth in degrees, 64 numbers of 8 bits per pixel and year.

Source: aef-download 0.1.0 (address, years) and the readme of the dataset's files (de-quantisation, nodata); the store
itself states its grid, shards and fill value.
"""

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.geo import pixel_centres
from rs_embed.providers.common.grids import bounds_deg, in_degrees
from rs_embed.providers.published.grids import (
    Floats,
    Pixels,
    covering,
    grid_of,
    is_aligned,
    nearest,
    pixels_at,
    position_of_year,
)
from rs_embed.providers.published.layout import ArrayLayout, changed
from rs_embed.providers.published.product import Found, outside
from rs_embed.providers.published.store import Store

CRS = "EPSG:4326"
ARRAY, BANDS, FIRST_YEAR = "embeddings", 64, 2017
"""The first year is that of the first position, should the store not state its years [aef-download]."""
MASKED = -128
RESAMPLED = (
    "The public mosaic (EPSG:4326) was resampled from the original UTM images, by a method that is not documented."
)
NEAREST = "Each pixel is the nearest one of that mosaic."


def decoding_table() -> NDArray[np.float32]:
    """Return the value of each byte: (q / 127.5)^2 with the sign of q, computed in float64; NaN for -128.

    The byte is taken as unsigned: entry 255 is q = -1.
    """
    q = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
    values = np.sign(q) * (q / 127.5) ** 2
    values[q == MASKED] = np.nan
    return values.astype(np.float32)


_TABLE = decoding_table()


class AlphaEarthMosaic:
    """Reads the mosaic. Safe to use from several threads."""

    collection = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"

    def __init__(self, store: Store) -> None:
        """Use a store; nothing is read yet."""
        self.store = store

    def read(self, year: int, geobox: GeoBox) -> Found:
        """See `Product`; pixels are resampled by nearest neighbour."""
        array, grid = self._opened()
        position, undated = position_of_year(self.store, "", array, year, FIRST_YEAR)
        lons, lats = pixel_centres(geobox)
        rows, cols = pixels_at(grid, _from_west(lons, grid), lats)

        def window(rows: slice, cols: slice) -> Pixels:
            years = slice(position, position + 1)
            stored = self.store.window(array, {"time": years, "band": slice(0, BANDS), "y": rows, "x": cols})[0]
            values: Pixels = _TABLE[stored.view(np.uint8)]
            values[:, (stored == MASKED).any(axis=0)] = np.nan
            return values

        inside, found = nearest(grid, rows, cols, BANDS, window)
        if not inside.any():
            raise outside(self.store.who, geobox, in_degrees(grid))
        values = np.full((BANDS, *inside.shape), np.nan, np.float32)
        values[:, inside] = found
        moved = () if is_aligned(rows, cols) else (NEAREST,)
        return Found(values, (f"{ARRAY} {year}",), (RESAMPLED, *moved, *undated))

    def described(self) -> str:
        """See `Product`."""
        array, grid = self._opened()
        return f"{grid.shape[0]:,} x {grid.shape[1]:,} px, {array.shape[array.axis('time')]} years"

    def own_grid(self, geobox: GeoBox) -> GeoBox:
        """See `Product`."""
        _, grid = self._opened()
        west, south, east, north = bounds_deg(geobox)
        first = float(_from_west(np.array(west), grid))
        return covering(grid, (first, south, first + east - west, north))

    def _opened(self) -> tuple[ArrayLayout, GeoBox]:
        """Return the array and its grid."""
        self.store.nodes("", ARRAY, "time")
        where, attributes, array = self.store.url, self.store.attributes(), self.store.array(ARRAY)
        if attributes is None or array is None:
            raise changed(where, f"a Zarr group with an array {ARRAY!r}", "none")
        bands = array.shape[array.axis("band")]
        if array.dtype != np.int8 or bands != BANDS:
            raise changed(f"{where}/{ARRAY}", f"{BANDS} bands of int8", f"{bands} of {array.dtype}")
        return array, grid_of(attributes, array, CRS, where)


def _from_west(lons: Floats, grid: GeoBox) -> Floats:
    """Return longitudes counted from the western edge of a grid, which may begin anywhere."""
    west = grid.affine.c
    return (lons - west) % 360 + west
