"""Recognise the unit of optical and radar values that do not declare it."""

import numpy as np

from rs_embed.core.units import HIGHEST_POWER, HIGHEST_REFLECTANCE, Unit
from rs_embed.errors import UnitMismatch
from rs_embed.providers.common.plausible import Pixels, seen_values

OPTICAL = (Unit.DN, Unit.REFLECTANCE)
_RADAR = (Unit.DB, Unit.POWER)


def recognise_unit(values: Pixels, stored: np.dtype[np.generic], wanted: Unit, where: str) -> Unit:
    """Return the unit that undeclared values are most likely in.

    Args:
        values: `[C, H, W]`, NaN for nodata.
        stored: Type in the file: whole numbers are DN, fractions may be reflectance.
        wanted: The unit of the collection; taken if the values could be in it.
        where: Origin of the values, for messages.

    Raises:
        UnitMismatch: The values could be in several units, or none.
    """
    if stored == np.uint8 and wanted in OPTICAL:
        return Unit.BYTE
    seen = seen_values(values)
    if seen.size == 0 or wanted not in OPTICAL + _RADAR:
        return wanted
    whole, middle = stored.kind in "iu", float(np.median(seen))
    if wanted in OPTICAL:
        if (whole and seen.max() > HIGHEST_REFLECTANCE) or (not whole and middle > 100 * HIGHEST_REFLECTANCE):
            return Unit.DN
        if not whole and np.percentile(seen, 99) <= HIGHEST_REFLECTANCE:
            return Unit.REFLECTANCE
    elif (seen < 0).mean() > 0.5:
        return Unit.DB
    elif seen.min() >= 0 and middle <= HIGHEST_POWER:
        return Unit.POWER
    raise UnitMismatch(
        f"Expected values in {wanted}, got {stored} from {seen.min():g} to {seen.max():g}, median {middle:g}: "
        "they could be several units.",
        where=where,
        fix='declare it, for example LocalRasters(path, unit="reflectance")',
    )
