"""Check every chip that a provider returns, and let a stop by hand end a fetch."""

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import bands_of, is_picture
from rs_embed.core.chip import Chip
from rs_embed.core.specs import SensorSpec
from rs_embed.core.stopping import apart, current
from rs_embed.errors import BandMismatch, InputError, UnitMismatch
from rs_embed.providers.base import Query, Wrapped
from rs_embed.providers.common.series import with_empty_frames

ALIGNED_PX = 1e-6
"""Largest distance of corners, pixels, at which two grids are equal: 100 times the rounding error of float64."""


class Checked(Wrapped):
    """A wrapper that checks each chip once, before anything else sees it.

    Where a signal could not end a fetch otherwise, the provider runs in a thread of its own.
    """

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`."""
        apart(lambda: self._provider.require(modality, sensor))

    def native_geobox(self, query: Query) -> GeoBox | None:
        """See `Provider`."""
        return apart(lambda: self._provider.native_geobox(query))

    def fetch(self, query: Query) -> Chip:
        """Return the provider's chip, checked against the query, with the empty frames that the series keeps.

        Raises:
            InputError: The chip does not match the query; the message says how.
            Stopped: The job of this thread was stopped, perhaps during the fetch.
        """
        current().check()
        chip = apart(lambda: self._provider.fetch(query))
        current().check()
        require_asked(chip, query, self.name)
        return with_empty_frames(chip, query)


def require_asked(chip: object, query: Query, provider: str) -> None:
    """Check that an object is a chip that matches a query.

    Args:
        chip: What the provider returned.
        query: The query.
        provider: The provider's name, for messages.

    Raises:
        BandMismatch: The bands differ, or are in another order.
        UnitMismatch: A band is not in the unit of its collection, and the chip is not a picture.
        InputError: It is not a chip, is on another grid, has another number of frames, or has infinite values.
    """
    if not isinstance(chip, Chip):
        raise InputError(
            f"Expected a Chip from the provider {provider!r}, got {type(chip).__name__}.",
            asked_for=_asked(query),
            fix="make its `fetch` return a Chip, or raise an error of rs_embed.errors",
        )
    _require_bands(chip, query, provider)
    _require_grid(chip, query, provider)
    _require_frames(chip, query, provider)
    if chip.is_whole:
        return
    infinite = np.isinf(chip.values)
    if infinite.any():
        count = infinite.sum(axis=(0, 2, 3))
        where = ", ".join(f"{name} {n}" for name, n in zip(chip.band_names, count, strict=True) if n)
        raise InputError(
            f"Expected finite values, or NaN for nodata, from the provider {provider!r}, got infinite ones.",
            infinite_pixels=where,
            chip=chip.describe(),
            fix="make them NaN where they mean nodata (the decibel of 0 is infinite): "
            "values[~numpy.isfinite(values)] = numpy.nan",
        )


def _require_bands(chip: Chip, query: Query, provider: str) -> None:
    wanted = bands_of(query.sensor.collection, query.sensor.bands)
    if chip.band_names != query.sensor.bands:
        raise BandMismatch(
            f"Expected bands {', '.join(query.sensor.bands)} from the provider {provider!r}, "
            f"got {', '.join(chip.band_names)}.",
            chip=chip.describe(),
            fix="return the bands in the order of `query.sensor.bands`: chip.select(query.sensor.bands)",
        )
    if is_picture(chip.bands, wanted):  # the model decides whether it accepts pictures
        return
    for band, other in zip(wanted, chip.bands, strict=True):
        if band.unit != other.unit:
            raise UnitMismatch(
                f"Expected {band.name} in {band.unit} from the provider {provider!r}, got {other.unit}.",
                chip=chip.describe(),
                fix="convert the values with rs_embed.core.units.convert",
            )


def _require_grid(chip: Chip, query: Query, provider: str) -> None:
    if query.geobox is None or (chip.geobox is not None and _same(chip.geobox, query.geobox)):
        return
    raise InputError(
        f"Expected a chip on the requested grid from the provider {provider!r}, got one on another grid.",
        asked_for=_grid(query.geobox),
        got=_grid(chip.geobox),
        fix="make `fetch` resample to exactly `query.geobox`: its CRS, transform and shape",
    )


def _same(one: GeoBox, other: GeoBox) -> bool:
    if one == other:
        return True
    if one.shape != other.shape or one.crs != other.crs:
        return False
    height, width = one.shape
    across = ~one.affine @ other.affine
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    return all(abs(a - b) <= ALIGNED_PX for corner in corners for a, b in zip(across @ corner, corner, strict=True))


def _require_frames(chip: Chip, query: Query, provider: str) -> None:
    frames, most = len(chip.times), 1 if query.series is None else query.series.frames
    if not 1 <= frames <= most:
        raise InputError(
            f"Expected {'one frame' if most == 1 else f'1 to {most} frames'} from the provider {provider!r}, "
            f"got {frames}.",
            chip=chip.describe(),
            fix="composite scenes as `query.sensor.composite` says, or select `query.series.frames` of them",
        )


def _asked(query: Query) -> str:
    return f"{', '.join(query.sensor.bands)} of {query.sensor.collection} on {_grid(query.geobox)}"


def _grid(geobox: GeoBox | None) -> str:
    if geobox is None:
        return "no grid"
    numbers = ", ".join(f"{number:.10g}" for number in tuple(geobox.affine)[:6])
    return f"{geobox.shape[0]} x {geobox.shape[1]} px of {geobox.crs}, transform ({numbers})"
