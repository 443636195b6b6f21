"""Find values that are not measurements."""

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.units import Unit
from rs_embed.providers.common.plausible import Pixels, warned

LARGEST_VALUE = 1e9
"""Larger than any value of a unit, and smaller than the fill values of GDAL (-3.4e38) and netCDF (9.97e36)."""
NODATA_LOOKALIKES = (-9999.0, -32768.0, -32767.0)


def mask_nodata(
    values: Pixels, unit: Unit, where: str, *, zero_is_nodata: bool = True
) -> tuple[Pixels, tuple[str, ...]]:
    """Replace values that cannot be measurements by NaN.

    Args:
        values: `[C, H, W]`, in `unit`.
        unit: The unit of the values.
        where: Origin of the values, for messages.
        zero_is_nodata: Whether optical pixels with exactly 0 in every band are nodata, as ESA defines (and vectors of
            length 0). False once an offset was added.

    Returns:
        The values, and notes on infinities and on values that look like nodata (which also trigger a warning).
    """
    notes = []
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)  # both skip NaN
    if np.isinf(low) or np.isinf(high):
        infinite = np.isinf(values)
        notes.append(f"{where}: {infinite.sum()} infinite values are taken as nodata.")
        values = np.where(infinite, np.float32(np.nan), values)
    floor, ceiling = max(unit.measured[0], *NODATA_LOOKALIKES), min(unit.measured[1], LARGEST_VALUE)
    odd = low <= floor or high > ceiling  # the range alone clears most chips
    if odd and (lookalike := _lookalikes(values, unit)).any():
        which = ", ".join(f"{value:g}" for value in np.unique(values[lookalike])[:3])
        text = f"{where}: {lookalike.sum()} values ({which}) look like nodata and are taken as such."
        notes.extend(warned([text]))
        values = np.where(lookalike, np.float32(np.nan), values)
    if zero_is_nodata and unit.zero_is_nodata and low <= 0:
        values = np.where((values == 0).all(axis=0), np.float32(np.nan), values)
    return values, tuple(notes)


def _lookalikes(values: Pixels, unit: Unit) -> NDArray[np.bool_]:
    found = (np.abs(values) > LARGEST_VALUE) | np.isin(values, NODATA_LOOKALIKES)
    beyond = ~found & ((values < unit.measured[0]) | (values > unit.measured[1]))
    valid = np.isfinite(values) & ~found
    if 2 * beyond.sum() < valid.sum():  # if most values are beyond, they are in another unit
        found |= beyond
    return found
