"""Stand-ins for tests: imagery that is a known function of place and time, without a network."""

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
    """A smooth landscape in Sentinel-2 DN, 300 to 3,700, different in every band."""
    phase = sum(map(ord, band))
    values: NDArray[np.float64] = 2000 + 900 * np.sin(700 * lon + phase) + 800 * np.cos(900 * lat - phase)
    return values


def directions(lon: NDArray[np.float64], lat: NDArray[np.float64], band: str) -> NDArray[np.float64]:
    """Unit vectors that rotate with the place: the 64 components A00 to A63 of an AlphaEarth embedding."""
    pair, is_sine = divmod(int(band[1:]), 2)
    angle = 700 * lon + 900 * lat + pair
    values: NDArray[np.float64] = (np.sin(angle) if is_sine else np.cos(angle)) / np.sqrt(32)
    return values


def place_share(windows: NDArray[np.float32]) -> float:
    """Return the share of token variance that depends only on the position in the window: 0 is none, 1 is all of it.

    The share expected by chance from this number of windows is subtracted, so the result may be slightly below 0.

    Args:
        windows: `[window, D, h, w]`: tokens of two or more windows, all with the same positions.
    """
    tokens = windows.reshape(*windows.shape[:2], -1).astype(np.float64)  # [window, D, place]
    count, _, places = tokens.shape
    means = tokens.mean(axis=0)
    ground = ((tokens - means) ** 2).sum() / (count - 1)
    place = ((means - means.mean(axis=1, keepdims=True)) ** 2).sum() - ground / count * (1 - 1 / places)
    return float(place / (place + ground))


class FieldProvider:
    """A provider whose pixels are `field(lon, lat, band)`, so that a wrong grid or band order shows at once.

    Args:
        field: The function that gives the pixel values.
        name: The provider's name in metadata.
        acquired: Acquisition times of the scenes, UTC. `None` gives one at midnight of the first day of each window.
    """

    def __init__(self, field: Field = hills, name: str = "field", acquired: Sequence[datetime] | None = None) -> None:
        self._field, self._acquired = field, acquired
        self.name = name
        self.queries: list[Query] = []
        """Every query answered so far."""

    def identity(self) -> str:
        """Return the name of the provider and of the field's function."""
        return f"{self.name}:{self._field.__module__}.{self._field.__qualname__}"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """Accept every sensor: a `SensorSpec` can only name bands that exist."""

    def native_geobox(self, query: Query) -> GeoBox | None:
        """Raise `SpecError`: the field has no extent of its own, so a place must be given."""
        raise SpecError(f"Expected a place for {query.modality}.", fix="pass spatial=PointBuffer(...)")

    def fetch(self, query: Query) -> Chip:
        """Return the field's values at the pixel centres of the query's grid."""
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
        """Return one time per frame: for the window, or for each sub-window with a scene."""
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
