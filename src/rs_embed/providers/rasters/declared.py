"""What a user declares about a raster file."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from rs_embed.core.bands import Unit, bands_of, unit_named
from rs_embed.core.checks import require_number
from rs_embed.errors import SpecError


@dataclass(frozen=True)
class Raster:
    """A raster file and what the user declares about it. Anything left out is read from the file."""

    path: str | Path
    """A GeoTIFF, COG, VRT, Zarr store, or another format that rasterio's GDAL reads."""
    bands: Sequence[str] | None = None
    """Names of all bands, in the order of the file."""
    unit: Unit | str | None = None
    """Unit of the values: "dn", "reflectance", "byte", "db", "power", ..."""
    offset: float | None = None
    """Added to stored DN to make them 0-based (ESA's BOA_ADD_OFFSET, e.g. -1000); 0 if they already are."""
    nodata: float | None = None
    """The stored number that means nodata."""
    time: str | date | datetime | None = None
    """Acquisition time; UTC unless it has a time zone."""
    scene_id: str | None = None
    """The scene's id in the archive; by default, the name of the file."""
    collection: str | None = None
    """The only collection that the file represents; by default, any collection whose bands it has."""
    allow_foreign: bool = field(default=False, repr=False)
    """Whether the file may use more than rasters on this disk, as VRTs can: URLs, or raw bytes of any file."""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | Path):
            raise SpecError(f"Expected a path, got {self.path!r}.", fix='for example Raster("scene.tif")')
        if self.bands is not None:
            object.__setattr__(self, "bands", band_list(self.bands))
        if self.unit is not None:
            object.__setattr__(self, "unit", unit_named(self.unit))
        if self.offset is not None:
            object.__setattr__(self, "offset", require_number("offset", self.offset, -1e6, 1e6))
        if self.nodata is not None and not isinstance(self.nodata, numbers.Real):
            raise SpecError(f"Expected a number for nodata, got {self.nodata!r}.", fix="for example nodata=0")
        if self.time is not None:
            object.__setattr__(self, "time", parse_time(self.time))
        if self.collection is not None:
            bands_of(self.collection, ())

    def completed(self, defaults: "Raster") -> "Raster":
        """Fill in what is not declared from `defaults` (all but path, time and scene id)."""
        return replace(
            self,
            bands=defaults.bands if self.bands is None else self.bands,
            unit=defaults.unit if self.unit is None else self.unit,
            offset=defaults.offset if self.offset is None else self.offset,
            nodata=defaults.nodata if self.nodata is None else self.nodata,
            collection=defaults.collection if self.collection is None else self.collection,
            allow_foreign=self.allow_foreign or defaults.allow_foreign,
        )


def band_list(names: Sequence[str]) -> tuple[str, ...]:
    """Check a list of band names, each once.

    Raises:
        SpecError: It is not a list of names, or a name is repeated.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise SpecError(f"Expected a list of band names, got {names!r}.", fix='for example ["B2", "B3", "B4"]')
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise SpecError(f"Expected each band once, got {', '.join(repeated)} repeated.", fix="name each band once")
    return tuple(names)


def parse_time(value: str | date | datetime | np.datetime64) -> datetime:
    """Parse a moment in UTC; a day without a time means its midnight.

    Raises:
        SpecError: It is not a date.
    """
    if isinstance(value, np.datetime64):  # the type of times in xarray
        value = str(value.astype("datetime64[us]"))
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else value.isoformat())
    except (AttributeError, ValueError) as error:
        raise SpecError(
            f"Expected an ISO date, got {value!r} ({error}).", fix='for example "2022-06-01T10:10:31Z"'
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
