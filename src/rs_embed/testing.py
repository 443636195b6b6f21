"""Stand-ins to test with: imagery that is a known function of place and time, without a network."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.core.geo import pixel_centres
from rs_embed.core.specs import SensorSpec
from rs_embed.errors import NoImagery, SpecError
from rs_embed.providers.base import Query
from rs_embed.providers.common.series import mean_time

Field = Callable[[NDArray[np.float64], NDArray[np.float64], str], NDArray[np.float64]]
"""(longitude, latitude, band name) -> pixel values in the collection's unit."""


def hills(lon: NDArray[np.float64], lat: NDArray[np.float64], band: str) -> NDArray[np.float64]:
    """A smooth landscape in Sentinel-2 DN, 300 to 3,700, other in every band."""
    phase = sum(map(ord, band))
    values: NDArray[np.float64] = 2000 + 900 * np.sin(700 * lon + phase) + 800 * np.cos(900 * lat - phase)
    return values


def directions(lon: NDArray[np.float64], lat: NDArray[np.float64], band: str) -> NDArray[np.float64]:
    """Unit vectors that turn with the place: the 64 numbers A00 to A63 of an embedding of AlphaEarth."""
    pair, is_sine = divmod(int(band[1:]), 2)
    angle = 700 * lon + 900 * lat + pair
    values: NDArray[np.float64] = (np.sin(angle) if is_sine else np.cos(angle)) / np.sqrt(32)
    return values


def place_share(windows: NDArray[np.float32]) -> float:
    """The share of the variance of tokens that is only their place in the window: 0 none, 1 all of it.

    What as many windows show by chance is not counted, so it may come out a little below 0.

    Args:
        windows: `[window, D, h, w]`: tokens of two or more windows, each of the same places.
    """
    tokens = windows.reshape(*windows.shape[:2], -1).astype(np.float64)  # [window, D, place]
    count, _, places = tokens.shape
    means = tokens.mean(axis=0)
    ground = ((tokens - means) ** 2).sum() / (count - 1)
    place = ((means - means.mean(axis=1, keepdims=True)) ** 2).sum() - ground / count * (1 - 1 / places)
    return float(place / (place + ground))


class FieldProvider:
    """A provider whose pixels are `field(lon, lat, band)`; wrong grids and orders show at once.

    Args:
        field: What the pixels are.
        name: What metadata call it.
        acquired: When there were scenes, UTC; `None`: at midnight of the first day of whatever is asked for.
    """

    def __init__(self, field: Field = hills, name: str = "field", acquired: Sequence[datetime] | None = None) -> None:
        self._field, self._acquired = field, acquired
        self.name = name
        self.queries: list[Query] = []
        """Every query it has answered."""

    def identity(self) -> str:
        """The field's name: two fields are told apart by their functions' names."""
        return f"{self.name}:{self._field.__module__}.{self._field.__qualname__}"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """It has every band that there is; specs know no other."""

    def native_geobox(self, query: Query) -> GeoBox | None:
        """There is a value everywhere, so a place must be given."""
        raise SpecError(f"Expected a place for {query.modality}.", fix="pass spatial=PointBuffer(...)")

    def fetch(self, query: Query) -> Chip:
        """The field at the pixel centres of the query's grid."""
        self.queries.append(query)
        if query.geobox is None:
            raise SpecError("Expected a grid.", fix="pass spatial=PointBuffer(...)")
        lon, lat = pixel_centres(query.geobox)
        bands = bands_of(query.sensor.collection, query.sensor.bands)
        values = np.stack([self._field(lon, lat, band.name) for band in bands]).astype(np.float32)
        times = self._times(query)
        known = tuple(when for when in times if when is not None)
        source = Source(self.name, query.sensor.collection, ("field",) * len(times), known, (1,) * len(times), 0.0)
        return Chip(np.stack([values] * len(times)), bands, query.geobox, times, source)

    def _times(self, query: Query) -> tuple[datetime | None, ...]:
        """One a frame: of the window, or of each of its sub-windows that have a scene."""
        if query.window is None:
            return (None,)
        windows = query.series.windows(query.window) if query.series else (query.window,)
        if self._acquired is None:
            return tuple(datetime.combine(window.start, time(), UTC) for window in windows)
        found = [mean_time([when for when in self._acquired if when in window]) for window in windows]
        times = tuple(when for when in found if when is not None)
        if not times:
            raise NoImagery(f"Expected imagery of {query.window}, got none.", fix="ask for other days")
        return times
