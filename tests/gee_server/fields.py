"""The ground of the synthetic world: what every band shows at a place on a date, as plain functions of arrays.

    expected = pixel("COPERNICUS/S2_SR_HARMONIZED", "B4", lon, lat, date(2022, 6, 1))

`lon` and `lat` are those of the centres of the scene's native pixels, which is where the service samples.
"""

import zlib
from datetime import date, datetime

import numpy as np

from gee_server.catalogue import CATALOGUE, CLASSES, BandSpec

_LON_WAVES = 40107
"""Around the Earth; whole, so that nothing breaks at the antimeridian. 1 km long at the equator."""
_LAT_RATE = 900.0
_CLOUD_LON_WAVES, _CLOUD_LAT_RATE = 7200, 15.0
"""Clouds come in slanting stripes, 5 km or less from one to the next."""

Terms = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def terms(lon, lat) -> Terms:
    """The four waves that every field is a sum of."""
    u, v = np.asarray(lon) * (2 * np.pi * _LON_WAVES / 360), np.asarray(lat) * _LAT_RATE
    return np.sin(u), np.cos(u), np.sin(v), np.cos(v)


def _phase(*key) -> float:
    """0 to 2 pi, other for every key, the same in every process."""
    return zlib.crc32(repr(key).encode()) / 2**32 * 2 * np.pi


def day_number(when: date | datetime) -> int:
    """Days since year 1, UTC."""
    return when.toordinal()


def ground(collection: str, spec: BandSpec, waves: Terms, day: int) -> np.ndarray:
    """0 to 1: the field of a band, before it gets a unit."""
    about = CATALOGUE[collection]
    p, q = _phase(about.family, spec.name, "lon"), _phase(about.family, spec.name, "lat")
    shift = 0.0
    if about.dated:
        q += 0.9 * day
        shift = 0.12 * _phase(about.family, day) / (2 * np.pi)
    sin_u, cos_u, sin_v, cos_v = waves
    value = (0.24 * np.cos(p)) * sin_u
    value += (0.24 * np.sin(p)) * cos_u
    value += (0.18 * np.cos(q)) * cos_v
    value += (0.18 * np.sin(q)) * sin_v
    value += 0.43 + shift
    return value


def cloud_position(lon, lat, day: int) -> np.ndarray:
    """0 to 1: where in its stripe a place lies on that day; below a scene's cloud fraction it is cloudy."""
    waves = np.asarray(lon) * (_CLOUD_LON_WAVES / 360) + np.asarray(lat) * _CLOUD_LAT_RATE
    waves += _phase("cloud", day) / (2 * np.pi)
    return waves - np.floor(waves)


def scene_class(position: np.ndarray, fraction: float) -> np.ndarray:
    """Sentinel-2 SCL: 9 and 8 and 10 in clouds, 3 in the shadow beside them, then 4, 5 and 6."""
    edges = [fraction * 0.5, fraction * 0.8, fraction]
    shadow = min(1.0, fraction * 1.1)
    rest = [shadow + (1 - shadow) * part for part in (0.4, 0.8)]
    return np.array([9, 8, 10, 3, 4, 5, 6])[np.digitize(position, [*edges, shadow, *rest])]


def clear_score(position: np.ndarray, fraction: float, band: str) -> np.ndarray:
    """Cloud Score+: below 0.45 in clouds, 0.65 and more elsewhere; `cs_cdf` a little higher than `cs`."""
    lift = 0.04 if band == "cs_cdf" else 0.0
    cloudy = 0.05 + 0.35 * position / max(fraction, 1e-9)
    clear = 0.65 + 0.3 * (position - fraction) / max(1 - fraction, 1e-9)
    return np.where(position < fraction, cloudy, clear) + lift


def class_of(value: np.ndarray, spec: BandSpec) -> np.ndarray:
    """WorldCover classes, or small numbers for a flag band."""
    steps = np.clip(((value - 0.01) / 0.98 * len(CLASSES)).astype(int), 0, len(CLASSES) - 1)
    return np.array(CLASSES)[steps] if spec.name == "Map" else steps


def unit_vectors(collection: str, waves: Terms, day: int) -> dict[str, np.ndarray]:
    """Every band of an embedding collection, of length one together."""
    raw = {spec.name: ground(collection, spec, waves, day) * 2 - 1 for spec in CATALOGUE[collection].bands}
    length = np.sqrt(sum(value * value for value in raw.values()))
    return {name: value / length for name, value in raw.items()}


def pixel(collection: str, band: str, lon, lat, when: date | datetime) -> np.ndarray:
    """What the collection stores at a cloud-free place on a date: DN, dB, power, metres or class, as catalogued.

    Args:
        collection: One of `CATALOGUE`, without ESA's offset where that is not removed.
        band: One of its smooth or class bands.
        lon: Of native pixel centres, degrees, any shape.
        lat: Like `lon`.
        when: UTC; ground that does not change ignores it.
    """
    spec = CATALOGUE[collection].band(band)
    if spec.kind == "unit_vector":
        return unit_vectors(collection, terms(lon, lat), day_number(when))[band]
    return stored(collection, spec, ground(collection, spec, terms(lon, lat), day_number(when)))


def stored(collection: str, spec: BandSpec, value: np.ndarray) -> np.ndarray:
    """A field from 0 to 1 in the unit and the resolution of its band."""
    if spec.kind == "class":
        return class_of(value, spec)
    value = spec.low + (spec.high - spec.low) * value
    if collection == "COPERNICUS/S1_GRD_FLOAT" and spec.name != "angle":
        value = 10.0 ** (value / 10)
    if spec.type[0] == "int":
        return np.rint(value)
    return value.astype(np.float32).astype(float) if spec.type[0] == "float" else value
