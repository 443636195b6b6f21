"""TESSERA's public store: a group per UTM zone, 128 numbers of 8 bits per pixel and year, and a scale for each pixel.

Source: geotessera 0.11.0 (layout, zones, scales, nodata); dClimate/tessera-embeddings 4954173, docs/global-store.md
(this variant). The store itself states its grids, shards and years.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.geo import pixel_centres, project
from rs_embed.core.stopping import Threads
from rs_embed.providers.common.grids import bounds_deg, utm_zone
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
from rs_embed.providers.published.layout import ArrayLayout, Json, changed
from rs_embed.providers.published.product import Found, outside
from rs_embed.providers.published.store import Store
from rs_embed.providers.stac.waiting import awaited

ARRAY, SCALES, BANDS = "embeddings", "scales", 128
SEAM_DEG = 0.05
"""Half of TESSERA's own tiles: this close to the border of a zone, a pixel may be stored in the zone beside it."""
FALSE_NORTHING_M = 10_000_000.0
"""Northing of the equator in southern zones. The store has southern ground at negative northings instead."""
NEAREST = "Pixels from zone {} are the nearest ones of its grid."
COVERED = "the UTM zones that the store has"


@dataclass(frozen=True)
class _Zone:
    """The group of a UTM zone."""

    group: str
    attributes: Json
    embeddings: ArrayLayout
    scales: ArrayLayout
    grid: GeoBox


class TesseraStore:
    """Reads one variant of TESSERA. Safe to use from several threads."""

    collection = "TESSERA/V1_1_DCLIMATE/ANNUAL"

    def __init__(self, store: Store) -> None:
        """Use a store; nothing is read yet."""
        self.store = store
        self._threads = Threads(64, "rs-embed-tessera")

    def read(self, year: int, geobox: GeoBox) -> Found:
        """See `Product`; a chip in UTM gets stored pixels, and what its zone lacks from the zones beside it."""
        values = np.full((BANDS, *geobox.shape), np.nan, np.float32)
        used, notes, covered = list[str](), list[str](), False
        for number, where, points in _tries(geobox, values[0]):
            zone = self._zone(number)
            if zone is None:
                continue
            rows, cols = pixels_at(zone.grid, *points)
            inside, found = self._nearest(zone, year, rows, cols)
            where[where] = inside
            values[:, where] = found
            covered |= bool(inside.any())
            if not np.isfinite(found[:1]).any():
                continue
            used.append(f"{zone.group} {year}")
            if not is_aligned(rows, cols):
                notes.append(NEAREST.format(number))
            if not _is_complete(zone, number, geobox, year):
                notes.append(f"The store does not list {year} among the complete years of zone {number}.")
        if not covered:
            raise outside(self.store.who, geobox, COVERED)
        return Found(values, tuple(dict.fromkeys(used)), tuple(dict.fromkeys(notes)))

    def described(self) -> str:
        """See `Product`."""
        self._root()
        return "UTM zones"

    def own_grid(self, geobox: GeoBox) -> GeoBox:
        """See `Product`."""
        own = _own_zone(geobox)
        zone = None if own is None else self._zone(own[0])
        if own is None or zone is None:
            raise outside(self.store.who, geobox, COVERED)
        west, south, east, north = geobox.boundingbox.bbox
        return covering(zone.grid, (west, south - own[1], east, north - own[1]))

    def _nearest(self, zone: _Zone, year: int, rows: Floats, cols: Floats) -> tuple[NDArray[np.bool_], Pixels]:
        """Return which points a zone's grid has, `[N]`, and their nearest pixels, `[C, N]`."""
        position, _ = position_of_year(self.store, zone.group, zone.embeddings, year)

        def window(rows: slice, cols: slice) -> Pixels:
            part = {"time": slice(position, position + 1), "y": rows, "x": cols}
            coming = self._threads.submit(self.store.window, zone.embeddings, {"band": slice(0, BANDS), **part})
            scale = self.store.window(zone.scales, part)[0]
            scale = np.where(np.isfinite(scale) & (scale > 0), scale, np.nan).astype(np.float32)
            values: Pixels = awaited(coming)[:, 0].astype(np.float32) * scale
            return values

        return nearest(zone.grid, rows, cols, BANDS, window)

    def _zone(self, number: int) -> _Zone | None:
        """Return a zone; `None` if the store does not have it."""
        group = f"utm{number:02d}"
        self.store.nodes(group, *(f"{group}/{name}" for name in (ARRAY, SCALES, "time")))
        where, attributes = f"{self.store.url}/{group}", self.store.attributes(group)
        if attributes is None:
            self._root()
            return None
        embeddings, scales = (self.store.array(f"{group}/{name}") for name in (ARRAY, SCALES))
        if embeddings is None or scales is None:
            raise changed(where, f"the arrays {ARRAY!r} and {SCALES!r}", "none")
        bands = embeddings.shape[embeddings.axis("band")]
        if embeddings.dtype != np.int8 or bands != BANDS or scales.dtype.kind != "f":
            found = f"{bands} of {embeddings.dtype}, and {scales.dtype}"
            raise changed(where, f"{BANDS} bands of int8, and scales of floating point", found)
        return _Zone(group, attributes, embeddings, scales, grid_of(attributes, embeddings, _crs(number), where))

    def _root(self) -> None:
        """Raise `ReadError` if there is no store at the address."""
        if self.store.attributes() is None:
            raise changed(self.store.url, "a Zarr group with a group for each UTM zone", "none")


def _tries(geobox: GeoBox, first_band: Pixels) -> Iterator[tuple[int, NDArray[np.bool_], tuple[Floats, Floats]]]:
    """Yield zones that may have the pixels of a chip: its own, then those by longitude and across a nearby border.

    Args:
        geobox: The grid of the chip.
        first_band: Its pixels, `[H, W]`, filled meanwhile: only those that are still missing are tried again.

    Yields:
        Zone, pixels to fill `[H, W]`, and their x and y in the zone's CRS.
    """
    own, (height, width) = _own_zone(geobox), geobox.shape
    if own is not None:
        rows, cols = np.mgrid[:height, :width].reshape(2, -1) + 0.5
        x, y = geobox.affine @ (cols, rows)
        yield own[0], np.ones(first_band.shape, bool), (x, y - own[1])
    if not np.isnan(first_band).any():
        return
    lons, lats = pixel_centres(geobox)
    at = _zone_at(lons)
    for zones in (at, _zone_at(lons - SEAM_DEG), _zone_at(lons + SEAM_DEG)):
        untried = (zones != at) | (zones is at)
        for number in np.unique(zones):
            where = np.isnan(first_band) & (zones == number) & untried
            if where.any() and (own is None or number != own[0]):
                yield int(number), where, project(lons[where], lats[where], "EPSG:4326", _crs(int(number)))


def _is_complete(zone: _Zone, number: int, geobox: GeoBox, year: int) -> bool:
    """Whether the store lists a year as complete for a zone and hemisphere, or lists none."""
    _, south, _, north = bounds_deg(geobox)
    groups = zone.attributes.get("geotessera:source_groups")
    found = groups.get(f"{number:02d}{'N' if south + north >= 0 else 'S'}") if isinstance(groups, dict) else None
    years = found.get("years_complete") if isinstance(found, dict) else None
    return not isinstance(years, list) or year in years


def _zone_at(lons: Floats) -> NDArray[np.int64]:
    return (np.floor((lons + 180) / 6) % 60 + 1).astype(np.int64)


def _crs(number: int) -> str:
    """The CRS of a zone's group: the northern one, also for southern ground."""
    return f"EPSG:{32600 + number}"


def _own_zone(geobox: GeoBox) -> tuple[int, float] | None:
    """Return the UTM zone of a grid, and what its northings exceed the store's by; `None` for another CRS."""
    name = utm_zone(geobox)
    return None if name is None else (int(name[:-1]), FALSE_NORTHING_M if name.endswith("S") else 0.0)
