"""Scenes: one acquisition each, as the archive of the synthetic world holds it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

import numpy as np
from shapely.geometry import Polygon, box

from gee_server.catalogue import CATALOGUE, HARMONISED, OFFSET_DN, BandSpec, CollectionSpec
from gee_server.fields import (
    clear_score,
    cloud_position,
    day_number,
    ground,
    scene_class,
    stored,
    terms,
    unit_vectors,
)
from gee_server.geometry import Geometry, unwrap
from gee_server.grid import Lattice, Projection, Sampled, reproject

WHOLE = (-9.0, 9.0)
"""A swath without an edge."""
SLANT = 0.2
"""How far the edge of a swath moves east from the top of a tile to its foot, in tile widths."""


@dataclass(frozen=True)
class Scene:
    """One acquisition: where, when, how cloudy, and what the catalogue says of it."""

    collection: str
    index: str
    """`system:index`."""
    when: datetime
    """Aware, or taken as UTC."""
    crs: str
    left: float
    """Outer north-west corner, in the unit of `crs`."""
    top: float
    width: float
    """In the unit of `crs`."""
    height: float
    properties: dict = field(default_factory=dict, hash=False)
    cloud_pct: float = 0.0
    """Share of the ground under clouds."""
    swath: tuple[float, float] = WHOLE
    """Part of the tile with data, in tile widths from its top west corner, edges slanting by `SLANT`; else nodata."""
    bands: tuple[str, ...] | None = None
    """Only these bands; `None`: all of the collection."""

    @property
    def about(self) -> CollectionSpec:
        """What all scenes of its collection share."""
        return CATALOGUE[self.collection]

    @property
    def id(self) -> str:
        """Asset id."""
        return self.collection if self.about.asset == "IMAGE" else f"{self.collection}/{self.index}"

    @property
    def time_ms(self) -> int:
        """Milliseconds since 1970."""
        when = self.when if self.when.tzinfo else self.when.replace(tzinfo=UTC)
        return round(when.timestamp() * 1000)

    @property
    def day(self) -> int:
        """What the ground and the clouds depend on."""
        return day_number(self.when)

    @property
    def offset(self) -> int:
        """ESA's, in DN: 1,000 in the collections that still have it, from baseline 04.00."""
        baseline = str(self.properties.get("PROCESSING_BASELINE", ""))
        return OFFSET_DN if self.collection in HARMONISED and baseline >= "04.00" else 0

    @property
    def specs(self) -> tuple[BandSpec, ...]:
        """Its bands, in the order of the catalogue."""
        return tuple(spec for spec in self.about.bands if self.bands is None or spec.name in self.bands)

    def projection(self, spec: BandSpec) -> Projection:
        """Of one band."""
        return Projection(self.crs, (spec.step, 0.0, self.left, 0.0, -spec.step, self.top))

    def lattice(self, spec: BandSpec, factor: int = 1) -> Lattice:
        """The pixels of one band, without the edges of the scene; scenes of one place share it.

        Args:
            factor: Pixels of the pyramid that are so many times as wide.
        """
        step = spec.step * factor
        return Lattice(self.crs, step, _phase(self.left, step), _phase(self.top, step))

    def has_data(self, x, y) -> np.ndarray:
        """Whether places in the scene's CRS lie in its swath."""
        x, y = np.asarray(x), np.asarray(y)
        inside = (x >= self.left) & (x <= self.left + self.width) & (y <= self.top) & (y >= self.top - self.height)
        if self.swath == WHOLE:
            return inside
        along = (x - self.left) / self.width - SLANT * (self.top - y) / self.height
        return inside & (along >= self.swath[0]) & (along < self.swath[1])

    @property
    def footprint(self) -> Geometry:
        """The part with data, on the Earth."""
        return _footprint(self.crs, self.left, self.top, self.width, self.height, self.swath)

    def values(self, spec: BandSpec, sampled: Sampled) -> tuple[np.ndarray, np.ndarray]:
        """One band at native pixels: what is stored, and whether there is anything."""
        if spec.kind == "masked":
            nothing = np.zeros(sampled.x.shape)
            return nothing, nothing > 0
        edges = (self.left, self.top, self.width, self.swath)
        valid = sampled.keep(("edges", *edges), lambda *_: self.has_data(sampled.x, sampled.y))
        return self._stored(spec, sampled.keep("waves", terms), sampled), valid

    def _stored(self, spec: BandSpec, waves, sampled: Sampled) -> np.ndarray:
        if spec.kind == "unit_vector":
            all_bands = sampled.keep(f"unit{self.day}", lambda *_: unit_vectors(self.collection, waves, self.day))
            return all_bands[spec.name]
        fraction = self.cloud_pct / 100
        if spec.kind == "smooth" and not (spec.cloud and fraction):
            return stored(self.collection, spec, ground(self.collection, spec, waves, self.day)) + self.offset_of(spec)
        position = sampled.keep(f"cloud{self.day}", lambda lon, lat: cloud_position(lon, lat, self.day))
        if spec.kind == "cloud_class":
            return scene_class(position, fraction)
        if spec.kind == "qa":
            return np.where(position < fraction, 22280, 21824)  # clear: bit 6; cloud: bit 3
        if spec.kind == "cloud_score":
            score = clear_score(position, fraction, spec.name)
            return np.rint(100 * (1 - score)) if spec.type[0] == "int" else score
        value = stored(self.collection, spec, ground(self.collection, spec, waves, self.day))
        if spec.cloud:
            value = value + spec.cloud * (position < fraction)
        return value + self.offset_of(spec)

    def offset_of(self, spec: BandSpec) -> int:
        """ESA's, of reflectance bands only."""
        return self.offset if spec.cloud and self.offset else 0

    def pixels(self, band: str, x, y) -> np.ndarray:
        """For tests: what the band stores at places in the scene's CRS, NaN where there is nothing."""
        spec = self.about.band(band)
        col = np.floor((np.asarray(x, float) - self.left) / spec.step + 1e-6)
        row = np.floor((self.top - np.asarray(y, float)) / spec.step + 1e-6)
        x, y = self.left + (col + 0.5) * spec.step, self.top - (row + 0.5) * spec.step
        lon, lat = reproject(self.crs, "EPSG:4326", x, y)
        values = self._stored(spec, terms(lon, lat), _Points(lon, lat))
        return np.where(self.has_data(x, y) & (spec.kind != "masked"), values, np.nan)


@cache
def _footprint(crs: str, left: float, top: float, width: float, height: float, swath: tuple) -> Geometry:
    first, last = swath
    band = Polygon([(first, 0), (last, 0), (last + SLANT, 1), (first + SLANT, 1)])
    across, down = np.array(box(0, 0, 1, 1).intersection(band).segmentize(0.25).exterior.coords).T
    x, y = left + across * width, top - down * height
    lon, lat = reproject(crs, "EPSG:4326", x, y)
    return Geometry(Polygon(np.column_stack([x if crs == "EPSG:4326" else unwrap(lon), lat])))


class _Points:
    """Places that are already native pixel centres."""

    def __init__(self, lon, lat) -> None:
        self._lonlat = lon, lat

    def keep(self, name: str, make):
        return make(*self._lonlat)


def _phase(origin: float, step: float) -> float:
    """Where pixel edges lie within one step; rounded, so that neighbouring tiles agree."""
    phase = round(origin % step, 12)
    return 0.0 if abs(phase - step) < 1e-9 else phase
