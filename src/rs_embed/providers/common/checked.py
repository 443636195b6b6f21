"""Where chips enter: whatever brings them, from here on they are what was asked for, and a stop by hand is heard."""

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
"""How far the corners of two grids may be apart to count as the same: a hundred times what float64 loses."""


class Checked(Wrapped):
    """A provider that is not believed: each of its chips is checked once, before anybody else sees it.

    It is asked from a thread of its own where a signal could not end it otherwise.
    """

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`."""
        apart(lambda: self._provider.require(modality, sensor))

    def native_geobox(self, query: Query) -> GeoBox | None:
        """See `Provider`."""
        return apart(lambda: self._provider.native_geobox(query))

    def fetch(self, query: Query) -> Chip:
        """The provider's chip, which is what the query asks for, with the empty frames that it wants kept.

        Raises:
            InputError: It is not; the message says in what.
            Stopped: The job of this thread was stopped, perhaps while the provider was asked.
        """
        current().check()
        chip = apart(lambda: self._provider.fetch(query))
        current().check()
        require_asked(chip, query, self.name)
        return with_empty_frames(chip, query)


def require_asked(chip: object, query: Query, provider: str) -> None:
    """Refuse what is no chip, or not that of the query.

    Args:
        chip: As the provider brought it.
        query: What it was asked.
        provider: Its name, for messages.

    Raises:
        BandMismatch: It has other bands, or in another order.
        UnitMismatch: A band is in another unit than in its collection, and this is no picture.
        InputError: It is no chip, lies on another grid, has frames that nobody asked for, or infinite values.
    """
    if not isinstance(chip, Chip):
        raise InputError(
            f"Expected a Chip from the provider {provider!r}, got {type(chip).__name__}.",
            asked_for=_asked(query),
            fix="its `fetch` must return a Chip, or raise an error of rs_embed.errors",
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
            fix="bands come in the order of `query.sensor.bands`: chip.select(query.sensor.bands)",
        )
    if is_picture(chip.bands, wanted):  # whether the model takes it is for the model to say
        return
    for band, other in zip(wanted, chip.bands, strict=True):
        if band.unit != other.unit:
            raise UnitMismatch(
                f"Expected {band.name} in {band.unit} from the provider {provider!r}, got {other.unit}.",
                chip=chip.describe(),
                fix="rs_embed.core.bands.convert turns one into the other",
            )


def _require_grid(chip: Chip, query: Query, provider: str) -> None:
    if query.geobox is None or (chip.geobox is not None and _same(chip.geobox, query.geobox)):
        return
    raise InputError(
        f"Expected a chip on the grid asked for from the provider {provider!r}, got one on another.",
        asked_for=_grid(query.geobox),
        got=_grid(chip.geobox),
        fix="`fetch` must resample to exactly `query.geobox`: its CRS, transform and shape",
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
            fix="composite scenes as `query.sensor.composite` says, or choose `query.series.frames` of them",
        )


def _asked(query: Query) -> str:
    return f"{', '.join(query.sensor.bands)} of {query.sensor.collection} on {_grid(query.geobox)}"


def _grid(geobox: GeoBox | None) -> str:
    if geobox is None:
        return "no grid"
    numbers = ", ".join(f"{number:.10g}" for number in tuple(geobox.affine)[:6])
    return f"{geobox.shape[0]} x {geobox.shape[1]} px of {geobox.crs}, transform ({numbers})"
