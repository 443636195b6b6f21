"""The specs of a request: place, time, sensor and output. All are frozen, and valid once constructed."""

import math
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Literal, Self, get_args

from rs_embed.core.bands import Collection, bands_of, cloud_masks_of, register_collection, registered
from rs_embed.core.checks import require_choice, require_crs, require_lon_lat, require_number, require_whole, short
from rs_embed.core.polygon import Rings, polygons_of
from rs_embed.errors import SpecError

Composite = Literal["median", "mean", "mosaic", "first"]
InputPrep = Literal["auto", "resize", "crop", "tile"]
Precision = Literal["fp32", "bf16", "auto"]
WorkingPrecision = Literal["fp32", "bf16"]
Pooling = Literal["mean", "max"]
InstrumentMode = Literal["IW", "EW"]
OrbitPass = Literal["ASCENDING", "DESCENDING"]
Sampling = Literal["composite", "scenes", "month"]
GridDetail = Literal["patch", "dense"]
Debias = Literal["none", "position"]
ModelOrder = Literal["catalogue", "id", "params", "dim", "licence", "size"]
"""Orders of a list of models."""
CloudMask = Literal["none", "scl", "cs+"]

MAX_BUFFER_M = 500_000.0
"""Half of the widest square for which one UTM zone keeps distances within half a percent."""
MAX_ANTIMERIDIAN_BOX_DEG = 20.0
"""A box whose `minlon` exceeds its `maxlon` crosses the antimeridian if it is narrower than this."""


@dataclass(frozen=True, slots=True)
class PointBuffer:
    """A square on the ground around a point."""

    lon: float
    """Degrees east, WGS 84, -180 to 180."""
    lat: float
    """Degrees north, WGS 84, -90 to 90."""
    buffer_m: float
    """Half the side of the square, metres on the ground."""

    def __post_init__(self) -> None:
        lon, lat = require_lon_lat(self.lon, self.lat)
        buffer_m = require_number("buffer_m", self.buffer_m, -math.inf, math.inf)
        if not 0 < buffer_m <= MAX_BUFFER_M:
            raise SpecError(
                f"Expected buffer_m above 0 and up to {MAX_BUFFER_M:g} metres, got {buffer_m:g}.",
                fix="give buffer_m in metres on the ground: it is half the side of the square; "
                "split larger areas into several requests",
            )
        _set(self, lon=lon, lat=lat, buffer_m=buffer_m)


@dataclass(frozen=True, slots=True)
class BBox:
    """A box between two corners. Across the antimeridian, `minlon` is larger than `maxlon`."""

    minlon: float
    minlat: float
    maxlon: float
    maxlat: float
    crs: str = "EPSG:4326"
    """CRS of the four numbers, any that pyproj knows: `minlon` and `maxlon` are its x, `minlat` and `maxlat` its y."""

    def __post_init__(self) -> None:
        require_crs(self.crs)
        if self.is_geographic:
            require_lon_lat(self.minlon, self.minlat)
            require_lon_lat(self.maxlon, self.maxlat)
        limit = 1e8  # metres: more than twice around the Earth
        corners = {
            name: require_number(name, value, -limit, limit)
            for name, value in zip(("minlon", "minlat", "maxlon", "maxlat"), self._corners, strict=True)
        }
        _set(self, **corners)
        if self.minlat == self.maxlat or self.minlon == self.maxlon:
            fix = "give corners that differ, or a PointBuffer around a point"
            raise SpecError(f"Expected a box with an area, got {self!r}.", fix=fix)
        if self.minlat > self.maxlat:
            raise SpecError(f"Expected minlat below maxlat, got {self!r}.", fix=self._ordered())
        crossing_deg = self.maxlon + 360 - self.minlon
        if self.minlon > self.maxlon and not (self.is_geographic and crossing_deg <= MAX_ANTIMERIDIAN_BOX_DEG):
            raise SpecError(
                f"Expected minlon below maxlon, got {self.minlon:g} and {self.maxlon:g}.",
                fix=f"{self._ordered()} (minlon above maxlon means that the box crosses the antimeridian; it may be "
                f"at most {MAX_ANTIMERIDIAN_BOX_DEG:g} degrees wide)",
            )

    @property
    def is_geographic(self) -> bool:
        """Whether the numbers are longitudes and latitudes."""
        return self.crs.upper() == "EPSG:4326"

    @property
    def _corners(self) -> tuple[float, float, float, float]:
        return self.minlon, self.minlat, self.maxlon, self.maxlat

    def _ordered(self) -> str:
        xs, ys = sorted((self.minlon, self.maxlon)), sorted((self.minlat, self.maxlat))
        return f"the order is minlon, minlat, maxlon, maxlat: BBox({xs[0]:g}, {ys[0]:g}, {xs[1]:g}, {ys[1]:g})"


@dataclass(frozen=True, slots=True, repr=False)
class Region:
    """A polygon, or several that form one place. The chip is their bounding box; tokens outside are left out."""

    polygon: Rings
    """Exterior ring, then holes. Built from a GeoJSON Polygon, MultiPolygon or Feature, from a shapely polygon of one
    or several parts, or from a list of corners."""
    crs: str = "EPSG:4326"
    """CRS of the coordinates."""
    others: tuple[Rings, ...] = ()
    """The other parts of a place with several polygons."""

    def __post_init__(self) -> None:
        require_crs(self.crs)
        first, *more = polygons_of(self.polygon, self.crs)
        if not isinstance(self.others, list | tuple):
            raise SpecError(f"Expected a list of polygons, got {short(self.others)}.", fix="others=[polygon, ...]")
        given = [polygons_of(one, self.crs) for one in self.others]
        _set(self, polygon=first, others=(*more, *(part for parts in given for part in parts)))

    @property
    def parts(self) -> tuple[Rings, ...]:
        """All polygons of the place, each with its rings."""
        return (self.polygon, *self.others)

    def __repr__(self) -> str:
        others = f", others={self.others!r}" if self.others else ""
        return f"Region(polygon={self.polygon!r}, crs={self.crs!r}{others})"


@dataclass(frozen=True, slots=True)
class GridBlock:
    """A rectangle whose edges are the edges of the result, in any projected CRS: a block of a larger map.

    `BBox` is widened to whole pixels and laid in a UTM zone; a block is taken as it is, or refused.
    """

    west: float
    """Edges, metres of the CRS."""
    south: float
    east: float
    north: float
    crs: str
    """A projected CRS in metres, such as "EPSG:3035"."""
    before_m: float = 0.0
    """Imagery to the west and the north that the model sees and the result leaves out, metres."""
    after_m: float = 0.0
    """The same to the east and the south."""

    def __post_init__(self) -> None:
        require_crs(self.crs)
        limit = 1e8  # metres: more than twice around the Earth
        given = {"west": self.west, "south": self.south, "east": self.east, "north": self.north}
        edges = {name: require_number(name, edge, -limit, limit) for name, edge in given.items()}
        if not (edges["west"] < edges["east"] and edges["south"] < edges["north"]):
            raise SpecError(
                f"Expected west below east and south below north, got {self!r}.",
                fix="the order is west, south, east, north",
            )
        _set(
            self,
            **edges,
            before_m=require_number("before_m", self.before_m, 0, limit),
            after_m=require_number("after_m", self.after_m, 0, limit),
        )


SpatialSpec = PointBuffer | BBox | Region | GridBlock


@dataclass(frozen=True, slots=True, repr=False)
class TemporalSpec:
    """A half-open window of whole days: `end` is the first day after it."""

    start: date
    end: date

    def __post_init__(self) -> None:
        first, last = _day("start", self.start), _day("end", self.end)
        if first >= last:
            fix = f'TemporalSpec.range("{last}", "{first}")' if first > last else "add a day: end is exclusive"
            raise SpecError(f"Expected start before end, got {first} and {last}.", fix=fix)
        _set(self, start=first, end=last)

    @classmethod
    def range(cls, start: str | date, end: str | date) -> Self:
        """Make a window from `start` up to but not including `end` (ISO dates).

        Raises:
            SpecError: A date is malformed, or the window is empty or reversed.
        """
        return cls(_day("start", start), _day("end", end))

    @classmethod
    def year(cls, year: int) -> Self:
        """Make the window of a calendar year."""
        whole = require_number("year", year, 1900, 2200)
        if whole != int(whole):
            raise SpecError(f"Expected a whole year, got {year!r}.", fix="for example TemporalSpec.year(2022)")
        return cls(date(int(whole), 1, 1), date(int(whole) + 1, 1, 1))

    def split(self, parts: int) -> tuple[Self, ...]:
        """Split the window into `parts` consecutive windows of almost equal length, whole days; at most one per day."""
        days = (self.end - self.start).days
        parts = min(parts, days)
        edges = [self.start + timedelta(days=days * i // parts) for i in range(parts + 1)]
        return tuple(type(self)(first, last) for first, last in pairwise(edges))

    def months(self) -> tuple[Self, ...]:
        """Split the window into calendar months; the first and last are cut at its ends."""
        count = 12 * (self.end.year - self.start.year) + self.end.month - self.start.month
        later = [divmod(self.start.month + i, 12) for i in range(count + 1)]
        firsts = [date(self.start.year + years, month + 1, 1) for years, month in later]
        edges = [self.start, *(first for first in firsts if first < self.end), self.end]
        return tuple(type(self)(first, last) for first, last in pairwise(edges))

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment.date() < self.end

    @property
    def middle(self) -> datetime:
        """The moment halfway between start and end, UTC."""
        first = datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)
        return first + (self.end - self.start) / 2

    def __repr__(self) -> str:
        return f'TemporalSpec.range("{self.start}", "{self.end}")'


@dataclass(frozen=True, slots=True)
class Series:
    """Several frames of one place instead of a single composite."""

    frames: int
    """The largest number of frames."""
    sampling: Sampling
    """"composite": one per sub-window of the window. "scenes": every scene or, if there are more than `frames`, the
    clearest one of each sub-window. "month": one composite per calendar month."""
    keep_empty: bool = False
    """Whether a sub-window without a valid pixel still gives a frame: all NaN, dated at its middle. Then frame `i`
    belongs to sub-window `i` for every modality ("scenes" always takes one of each). Otherwise it is left out."""

    def __post_init__(self) -> None:
        require_whole("frames", self.frames, 1, 100_000)
        require_choice("sampling", self.sampling, get_args(Sampling))

    def most(self, window: TemporalSpec | None) -> int:
        """Return the largest number of frames that a window can give."""
        return self.frames if window is None or self.sampling != "month" else min(self.frames, len(window.months()))

    def windows(self, window: TemporalSpec) -> tuple[TemporalSpec, ...]:
        """Return the sub-windows that frames are made from, in order.

        Raises:
            SpecError: The window has more months than `frames`.
        """
        if self.sampling != "month":
            return window.split(self.frames)
        months = window.months()
        if len(months) > self.frames:
            raise SpecError(
                f"Expected at most {self.frames} calendar months, got {len(months)} in {window}.",
                fix=f"use frames={len(months)}, or a shorter window",
            )
        return months


def _day(name: str, value: object) -> date:
    if isinstance(value, datetime):
        if (value.hour, value.minute, value.second, value.microsecond) != (0, 0, 0, 0):
            raise SpecError(f"Expected a whole day for {name}, got {value}.", fix=f'"{value.date()}"')
        return value.date()
    if isinstance(value, date):
        return value
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise SpecError(
                f"Expected an ISO date for {name}, got {value!r} ({error}).", fix='for example "2022-06-01"'
            ) from error
    raise SpecError(f"Expected a date for {name}, got {value!r}.", fix='for example "2022-06-01"')


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The form of the result: one vector, or a georeferenced grid of tokens."""

    kind: Literal["pooled", "grid"] = "pooled"
    pooling: Pooling = "mean"
    detail: GridDetail = "patch"
    """Grid only: one token per patch, or per part of a patch if the model has such tokens."""
    debias: Debias = "none"
    """Grid only: "position" removes the part of tokens that depends only on their position in the network's window."""

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, ("pooled", "grid"))
        require_choice("how", self.pooling, get_args(Pooling))
        require_choice("kind", self.detail, get_args(GridDetail))
        require_choice("debias", self.debias, get_args(Debias))
        if self.kind == "pooled" and self.debias != "none":
            raise SpecError(
                f"Expected debias only for a grid, got debias={self.debias!r} for a vector.",
                fix="leave it out: the pooled vector averages over all positions",
            )

    def facts(self) -> dict[str, object]:
        """Return all fields for a fingerprint; without debias, the same as before the field existed."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("debias", "none")}

    @classmethod
    def pooled(cls, how: Pooling = "mean") -> Self:
        """Request one vector `[D]` from the patch tokens.

        Args:
            how: "mean" or "max" over the tokens.
        """
        return cls("pooled", how)

    @classmethod
    def grid(cls, kind: GridDetail = "patch", *, debias: Debias = "none") -> Self:
        """Request the token grid `[D, H, W]`, north-up, with its geobox.

        Args:
            kind: "patch" for one token per patch; "dense" for finer tokens, about one per pixel, if the model has them
                (AnySat).
            debias: "position" removes the part of tokens that depends only on their position in the network's window,
                so that the seams between windows do not show in a map. It subtracts the mean token of each position
                over many windows, less the mean of all: the windows of the region if there are at least 32, else
                those of the sample scene.
        """
        return cls("grid", detail=kind, debias=debias)


@dataclass(frozen=True, slots=True)
class SensorSpec:
    """The imagery to use, and how its scenes become one frame."""

    collection: str
    """Shared sensor name: an Earth Engine id such as `COPERNICUS/S2_SR_HARMONIZED` (see `rs_embed.core.bands`)."""
    bands: tuple[str, ...]
    """Band names of the collection, in channel order."""
    scale_m: float = 10.0
    """Pixel size on the ground, metres."""
    cloudy_pct: float = 30.0
    """Largest percentage of cloud in a scene; cloudier scenes are left out."""
    composite: Composite = "median"
    """How the scenes of a window become one frame."""
    fill_value: float | Literal["mean", "nan"] = 0.0
    """What replaces nodata before the model: a value in the collection's unit, "mean" (0 after standardising), or "nan"
    to keep it, where the model accepts that."""
    instrument_mode: InstrumentMode = "IW"
    """Sentinel-1 only: the acquisition mode."""
    orbit_pass: OrbitPass | None = None
    """Sentinel-1 only: the orbit direction; `None` takes both."""
    cloud_mask: CloudMask = "none"
    """Sentinel-2 only: which pixels are masked as cloud or shadow: "none", those that the scene classification marks
    (L2A), or those that Cloud Score+ finds unclear."""

    def __post_init__(self) -> None:
        names = self.bands if isinstance(self.bands, list | tuple) else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise SpecError(f"Expected a list of bands, got {short(self.bands)}.", fix='for example ("B2", "B3", "B4")')
        bands = tuple(names)
        if len(set(bands)) != len(bands):
            raise SpecError(f"Expected each band once, got {bands}.", fix="remove the repeated band")
        bands_of(self.collection, bands)
        require_choice("composite", self.composite, get_args(Composite))
        require_choice("instrument_mode", self.instrument_mode, get_args(InstrumentMode))
        if self.orbit_pass is not None:
            require_choice("orbit_pass", self.orbit_pass, get_args(OrbitPass))
        require_choice("cloud_mask", self.cloud_mask, cloud_masks_of(self.collection))
        fill_value = self.fill_value
        if isinstance(fill_value, str):
            require_choice("fill_value", fill_value, ("mean", "nan"))
        else:
            fill_value = require_number("fill_value", fill_value, -1e6, 1e6)
        _set(
            self,
            bands=bands,
            scale_m=require_number("scale_m", self.scale_m, 0.01, 100_000),
            cloudy_pct=require_number("cloudy_pct", self.cloudy_pct, 0, 100),
            fill_value=fill_value,
        )

    def facts(self) -> dict[str, object]:
        """Return all fields for a fingerprint, with the definition of a collection that the user registered."""
        own = registered(self.collection)
        return asdict(self) | ({} if own is None else {"registered": repr(own)})

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle the spec together with a collection that the user registered."""
        return _sent, (registered(self.collection), astuple(self))


def _sent(own: Collection | None, values: tuple[object, ...]) -> SensorSpec:
    if own is not None:
        register_collection(own, replace=True)
    return SensorSpec(*values)  # type: ignore[arg-type]  # the values that pickle restores


def _set(spec: object, **values: object) -> None:
    """Set normalised values in a frozen dataclass (only from its own `__post_init__`)."""
    for name, value in values.items():
        object.__setattr__(spec, name, value)
