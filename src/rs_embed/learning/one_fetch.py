"""Fetch the bands that several models take of the same imagery together, and once."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace

from rs_embed.core.bands import COLLECTIONS
from rs_embed.core.chip import Chip
from rs_embed.core.specs import SensorSpec
from rs_embed.core.stopping import PerProcess, outcome
from rs_embed.errors import SensorNotOffered
from rs_embed.providers.base import Provider, Query, Wrapped, pixels_of

_KEPT_BYTES = 256e6
"""Chips that are kept for the models that have yet to ask for them."""


class OneFetch(Wrapped):
    """A provider that reads every chip once for all models: with the bands of all of them.

    Args:
        provider: The imagery.
        sensors: What the models take, with the name of the modality. Sensors that differ in bands only share chips.
    """

    def __init__(self, provider: Provider, sensors: Iterable[tuple[str, SensorSpec]]) -> None:
        super().__init__(provider)
        self._bands = _together(provider, list(sensors))
        self._chips: OrderedDict[Query, Future[Chip]] = OrderedDict()
        self._lock = PerProcess(threading.Lock)

    def fetch(self, query: Query) -> Chip:
        """See `Provider`."""
        bands = self._bands.get(_apart_from_bands(query.sensor), query.sensor.bands)
        if not set(query.sensor.bands) <= set(bands):
            bands = query.sensor.bands
        wide = replace(query, sensor=replace(query.sensor, bands=bands))
        key = pixels_of(wide)
        with self._lock.here:
            coming = self._chips.get(key)
            first = coming is None
            if coming is None:
                coming = self._chips[key] = Future()
        if first:
            self._bring(wide, coming)
        return outcome(coming).select(query.sensor.bands)

    def _bring(self, wide: Query, coming: "Future[Chip]") -> None:
        try:
            coming.set_result(self._provider.fetch(wide))
        except BaseException as error:
            coming.set_exception(error)
            with self._lock.here:  # the next time it may be there
                self._chips.pop(pixels_of(wide), None)
            if not isinstance(error, Exception):
                raise
            return
        with self._lock.here:
            done = [(key, one.result()) for key, one in self._chips.items() if one.done() and one.exception() is None]
            size = sum(chip.values.nbytes for _, chip in done)
            for key, chip in done[:-1]:
                if size <= _KEPT_BYTES:
                    break
                size -= chip.values.nbytes
                del self._chips[key]


def _together(provider: Provider, sensors: Sequence[tuple[str, SensorSpec]]) -> Mapping[str, tuple[str, ...]]:
    """Return, for sensors that differ in bands only, all of their bands, if the provider has them."""
    found: dict[str, tuple[str, ...]] = {}
    for name, sensor in sensors:
        key = _apart_from_bands(sensor)
        wanted = {*found.get(key, ()), *sensor.bands}
        bands = tuple(band for band in COLLECTIONS[sensor.collection] if band in wanted)
        try:
            provider.require(name, replace(sensor, bands=bands))
        except SensorNotOffered:
            continue
        found[key] = bands
    return found


def _apart_from_bands(sensor: SensorSpec) -> str:
    return repr({**asdict(sensor), "bands": (), "fill_value": 0.0})
