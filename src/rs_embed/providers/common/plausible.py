"""Check that values can be in their unit: refuse those that break its limits, and warn of odd ones."""

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.units import Limit, Unit
from rs_embed.errors import PixelWarning, UnitMismatch, warn

Pixels = NDArray[np.float32]

FEWEST_BANDS_TO_JUDGE = 3
"""One or two bands of dry land may stay above 900 DN anyway."""
FEWEST_PIXELS_TO_JUDGE = 256
"""A smaller chip may have no dark pixel."""
UNHARMONISED_DN = 900.0, 2500.0
"""Where the darkest band of an unharmonised chip starts: +1000 and up to 0.15; brighter is cloud, snow or sand."""
_SAMPLE_SIDE_PX = 64
"""Statistics are taken from every n-th row and column of larger chips."""


def refuse_implausible(values: Pixels, unit: Unit, where: str, stored: np.dtype[np.generic] | None = None) -> None:
    """Raise if values cannot be in their unit.

    Args:
        values: `[C, H, W]`, NaN for nodata.
        unit: The declared or assumed unit.
        where: Origin of the values, for messages.
        stored: Type in the file or array, if known.

    Raises:
        UnitMismatch: The values break a limit of the unit.
    """
    if stored is not None and stored.itemsize == 1 and unit is Unit.DN:
        raise UnitMismatch(
            f"Expected Sentinel-2 DN, got 8-bit values ({stored}): a picture made for the screen.",
            where=where,
            fix='use the reflectances it was made from; unit="byte" for TerraMind\'s RGB, which takes pictures',
        )
    seen = seen_values(values)
    if not seen.size:
        return
    broken = next((limit for limit in unit.limits if limit.broken_by(seen)), None)
    if unit.whole_numbers and (seen != np.rint(seen)).any():
        broken = _FRACTIONS
    if broken is not None:
        finding = broken.finding or f"too many outside of {broken.low:g} to {broken.high:g}"
        raise UnitMismatch(
            f"Expected values in {unit}, got {finding}.",
            found=f"{seen.min():g} to {seen.max():g}, median {np.median(seen):g}",
            where=where,
            fix=broken.fix or "convert them to that unit, or declare the unit they are in",
        )


_FRACTIONS = Limit(finding="fractions between codes of classes", fix="resample the map by nearest neighbour")


def warn_of_oddities(values: Pixels, unit: Unit, where: str, *, harmonised: bool = False) -> tuple[str, ...]:
    """Warn of chips whose bands are all constant, and of Sentinel-2 DN that seem to contain ESA's offset.

    Args:
        values: `[C, H, W]`, NaN for nodata.
        unit: The unit of the values.
        where: Origin of the values, for messages.
        harmonised: Whether the Sentinel-2 offset is known to be removed.

    Returns:
        The warnings, for `Source.notes`.
    """
    bands = [seen for seen in map(seen_values, values[:, None]) if seen.size > 1]
    notes = []
    if bands and all(np.ptp(seen) == 0 for seen in bands):
        notes.append(f"{where}: every band is constant ({', '.join(f'{seen[0]:g}' for seen in bands[:3])}, ...).")
    darkest, brightest = UNHARMONISED_DN
    enough = len(bands) >= FEWEST_BANDS_TO_JUDGE and all(seen.size >= FEWEST_PIXELS_TO_JUDGE for seen in bands)
    if unit is Unit.DN and enough and not harmonised:
        starts = []
        for seen in bands:  # in most chips, one of the first bands ends the search
            starts.append(float(np.percentile(seen, 1)))
            if starts[-1] < darkest:
                return warned(notes)
        start = min(starts)
        if start <= brightest:
            notes.append(
                f"{where}: no band goes under {start:.0f} DN, as if the +1000 of processing baseline 04.00 "
                "were still in. If so, subtract 1000 (for a file: offset=-1000)."
            )
    return warned(notes)


def seen_values(values: Pixels) -> Pixels:
    """Return the finite values `[N]`, from every n-th row and column of large chips."""
    step = max(1, min(values.shape[-2:]) // _SAMPLE_SIDE_PX)
    sample = values[..., ::step, ::step]
    found = sample[np.isfinite(sample)]
    return found if found.size or step == 1 else values[np.isfinite(values)]


def warned(notes: list[str]) -> tuple[str, ...]:
    """Issue each note as a warning, and return the notes."""
    for note in notes:
        warn(note, PixelWarning)
    return tuple(notes)
