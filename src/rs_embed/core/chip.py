"""A chip: the raster cut for one request, with its grid, units, times and origin."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import Band
from rs_embed.core.geo import with_coordinates
from rs_embed.errors import BandMismatch, InputError
from rs_embed.redact import redacted_all

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Source:
    """Where the pixels of a chip come from."""

    provider: str
    """The backend's name."""
    collection: str
    """Shared sensor name (see `rs_embed.core.bands`)."""
    scene_ids: tuple[str, ...] = ()
    """Ids of the scenes that were read, in the archive's own spelling."""
    scene_times: tuple[datetime, ...] = ()
    """Acquisition times of those scenes, UTC."""
    scenes_per_frame: tuple[int, ...] = ()
    """Number of scenes in each frame, in order; empty if unknown."""
    offset_applied: float | None = None
    """Sentinel-2: the value added to the stored DN to make them 0-based; `None` if unknown."""
    notes: tuple[str, ...] = ()
    """Remarks for the reader of the result, such as assumptions about unit, nodata or offset."""
    clear_observations: float | None = None
    """Mean number of valid, unmasked observations per pixel and frame; `None` if unknown."""

    def __post_init__(self) -> None:
        for name in ("scene_ids", "notes"):  # they come from catalogues, and end up in files and tables
            object.__setattr__(self, name, redacted_all(vars(self)[name]))


@dataclass(frozen=True, eq=False)
class Chip:
    """Pixels of one sensor on one grid."""

    values: NDArray[np.float32]
    """`[T, C, H, W]`, always four axes; NaN is nodata."""
    bands: tuple[Band, ...]
    """One per channel: name and unit."""
    geobox: GeoBox | None
    """The grid; `None` for an array without a place."""
    times: tuple[datetime | None, ...]
    """Mean time of the acquisitions of each frame, UTC; `None` if unknown."""
    source: Source

    def __post_init__(self) -> None:
        if not isinstance(self.values, np.ndarray) or self.values.ndim != 4 or self.values.dtype != np.float32:
            raise InputError(
                f"Expected a numpy array of float32 with the axes [T, C, H, W], got {_kind(self.values)}.",
                fix="use numpy.asarray(values, numpy.float32), with a first axis of length 1 for a single frame",
            )
        frames, channels, height, width = self.values.shape
        if len(self.bands) != channels or len(self.times) != frames:
            raise InputError(
                f"Expected {len(self.bands)} bands and {len(self.times)} frames, got an array {self.values.shape}.",
                fix="make values [T, C, H, W]: one time per frame, one band per channel",
            )
        if self.geobox is not None and self.geobox.shape != (height, width):
            raise InputError(
                f"Expected {self.geobox.shape[0]} x {self.geobox.shape[1]} pixels, got {height} x {width}.",
                fix="give the array the shape of its geobox",
            )

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(band.name for band in self.bands)

    @property
    def shape_px(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.values.shape[2], self.values.shape[3]

    @cached_property
    def is_whole(self) -> bool:
        """Whether every value is finite, so that nothing is nodata."""
        with np.errstate(all="ignore"):
            total = self.values.sum()  # finite only if all its terms are: one pass, without an array of booleans
        return bool(np.isfinite(total)) or bool(np.isfinite(self.values).all())

    @cached_property
    def valid_fraction(self) -> float:
        """Share of pixels, over all frames, in which every band has a value."""
        return 1.0 if self.is_whole else float(np.isfinite(self.values).all(axis=1).mean())

    def select(self, names: Sequence[str]) -> "Chip":
        """Return the same chip with these bands, in this order.

        Args:
            names: Names of bands of this chip.

        Raises:
            BandMismatch: The chip lacks a band.
        """
        missing = [name for name in names if name not in self.band_names]
        if missing:
            raise BandMismatch(
                f"Expected bands {', '.join(names)}; this chip lacks {', '.join(missing)}.",
                chip=self.describe(),
                fix=f"choose among {', '.join(self.band_names)}",
            )
        index = [self.band_names.index(name) for name in names]
        if index == list(range(len(self.bands))):
            return self
        return replace(self, values=self.values[:, index], bands=tuple(self.bands[i] for i in index))

    def describe(self) -> str:
        """Describe the chip in one line: collection, provider, size, grid and dates."""
        height, width = self.shape_px
        grid = "no place" if self.geobox is None else f"{self.geobox.crs} at {self.geobox.resolution.x:g} m"
        when = ", ".join(f"{time:%Y-%m-%d}" for time in self.times if time is not None)
        return (
            f"{self.source.collection} via {self.source.provider}, {len(self.bands)} bands, "
            f"{height} x {width} px, {grid}{', ' + when if when else ''}"
        )

    def to_xarray(self) -> "xr.DataArray":
        """Return a labelled array `[time, band, y, x]`, with CRS and pixel-centre coordinates if the grid is known."""
        import xarray as xr  # slow to import, and rarely needed

        times = [
            np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if time else "NaT", "ns") for time in self.times
        ]
        coords = {"time": times, "band": list(self.band_names)}
        array = xr.DataArray(self.values, dims=("time", "band", "y", "x"), coords=coords)
        return array if self.geobox is None else with_coordinates(array, self.geobox)


def _kind(values: object) -> str:
    """Describe what was passed as pixels."""
    return f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
