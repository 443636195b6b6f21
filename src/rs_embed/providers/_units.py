"""Questions about values: which unit they are in, whether they can be, which of them are nodata."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rs_embed.bands import Unit, did_you_mean
from rs_embed.errors import PixelWarning, SpecError, UnitMismatch, warn

Pixels = NDArray[np.float32]

HIGHEST_REFLECTANCE = 2.0
"""Clouds and sun glint reach 1.5 or so."""
LOWEST_DB = -90.0
"""Far under the noise floor of any radar; 10 log10(1e-10) = -100 is a zero that was made positive."""
HIGHEST_POWER = 10.0
"""As a median: only corner reflectors and city centres are above 10 dB."""
HIGHEST_BYTE = 255
HIGHEST_COMPONENT = 1.001
LOWEST_DN = -1500.0
"""Removing the offset of baseline 04.00 from the smallest DN gives -999."""
HIGHEST_DN = 60_000.0
"""Reflectance 6 does not exist: above is 65535, with which ESA marks saturated pixels and others nodata."""
LARGEST_VALUE = 1e9
"""Above what any unit means, and below the fill values of GDAL (-3.4e38) and netCDF (9.97e36)."""
FEWEST_BANDS_TO_JUDGE = 3
"""One or two bands of dry land never go under 900 DN anyway."""
FEWEST_PIXELS_TO_JUDGE = 256
"""In a smaller chip nothing need be dark."""
NODATA_LOOKALIKES = (-9999.0, -32768.0, -32767.0)
UNHARMONISED_DN = 900.0, 2500.0
"""Where the darkest band of an unharmonised chip starts: +1000 and up to 0.15; brighter is cloud, snow or sand."""
OVER_SUBTRACTED_DN = -200.0
"""Reflectance -0.02. Dark water and shadow end a little below 0 once the right offset is removed, by a hundredth at
most; where 1000 is taken that was not in, all that is darker than reflectance 0.08 ends below this."""
MANY_OVER_SUBTRACTED = 0.05
"""Share of a band's pixels so low that is worth a warning."""
BANDS_TO_BE_SURE = 2
"""One band may be spoilt; that the medians of two lie there has no other reason."""
OPTICAL = (Unit.DN, Unit.REFLECTANCE)
_FLOORS = {Unit.DN: LOWEST_DN, Unit.DB: LOWEST_DB}
_CEILINGS = {Unit.DN: HIGHEST_DN}
_RADAR = (Unit.DB, Unit.POWER)
_TAGS = {"decibel": Unit.DB, "linear": Unit.POWER, "k": Unit.KELVIN, "m": Unit.METRE, "meter": Unit.METRE}
_SAMPLE_SIDE_PX = 64
"""Statistics are taken from every n-th row and column of larger chips."""


def declared_unit(value: str) -> Unit:
    """The unit that a user names.

    Raises:
        SpecError: There is no such unit.
    """
    unit = unit_of_tag(value) if isinstance(value, str) else None
    if unit is None:
        known = [unit.value for unit in Unit]
        fix = did_you_mean(value, known) if isinstance(value, str) else 'for example unit="reflectance"'
        raise SpecError(f"Wanted a unit, found {value!r}.", known=", ".join(known), fix=fix)
    return unit


def unit_of_tag(tag: str | None) -> Unit | None:
    """The unit that a file states for a band, or `None` where it states none that we know."""
    word = (tag or "").strip().casefold()
    return Unit(word) if word in set(Unit) else _TAGS.get(word)


def recognise_unit(values: Pixels, stored: np.dtype[np.generic], wanted: Unit, where: str) -> Unit:
    """The unit that undeclared values are in.

    Args:
        values: `[C, H, W]`, NaN where nodata.
        stored: Type in the file: whole numbers are DN, fractions may be reflectance.
        wanted: Unit of the collection; what cannot be told apart from it is taken to be it.
        where: For the message.

    Raises:
        UnitMismatch: The values could be several units, or none.
    """
    seen = _seen(values)
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
        f"Wanted values in {wanted}, found {stored} from {seen.min():g} to {seen.max():g}, median {middle:g}: "
        "they could be several units.",
        where=where,
        fix='declare it, for example LocalRasters(path, unit="reflectance")',
    )


def check_plausible(
    values: Pixels,
    unit: Unit,
    where: str,
    *,
    stored: np.dtype[np.generic] | None = None,
    harmonised: bool = False,
) -> tuple[str, ...]:
    """Refuse values that cannot be in their unit, warn of those that look wrong.

    Args:
        values: `[C, H, W]`, NaN where nodata.
        unit: Declared or assumed.
        where: For the messages.
        stored: Type in the file or array, where that is known.
        harmonised: Whether the Sentinel-2 offset is known to be removed.

    Returns:
        What was warned of, for `Source.notes`.

    Raises:
        UnitMismatch: The values cannot be in that unit.
    """
    refuse_implausible(values, unit, where, stored)
    return warn_of_oddities(values, unit, where, harmonised=harmonised)


def _mostly(found: NDArray[np.bool_]) -> bool:
    """Whether most are true: what a median says, without sorting."""
    return 2 * int(np.count_nonzero(found)) > found.size


@dataclass(frozen=True)
class _Rule:
    unit: Unit
    broken_by: Callable[[Pixels], bool]
    finding: str
    fix: str


_RULES = (
    _Rule(
        Unit.DN,
        lambda seen: _mostly(seen < LOWEST_DN),
        "mostly strongly negative values",
        "check the offset: DN are 0-based, about 0 to 10,000",
    ),
    _Rule(
        Unit.DN,
        lambda seen: bool(seen.max() <= HIGHEST_REFLECTANCE),
        "no value above 2: it looks like reflectance",
        'multiply by 10,000, or for a file declare unit="reflectance"',
    ),
    _Rule(
        Unit.REFLECTANCE,
        lambda seen: _mostly(seen > HIGHEST_REFLECTANCE),
        "a median above 2: it looks like DN",
        'divide by 10,000, or for a file declare unit="dn"',
    ),
    _Rule(
        Unit.DB,
        lambda seen: bool(seen.min() >= 0),
        "no negative value: it looks like linear power or amplitude",
        'give 10 log10(power), or declare unit="power" for a file',
    ),
    _Rule(
        Unit.DB,
        lambda seen: _mostly(seen < LOWEST_DB),
        "a median under -90: it looks like a scaled integer",
        "multiply by the scale of the file, for example 0.01",
    ),
    _Rule(
        Unit.POWER,
        lambda seen: bool(seen.min() < 0),
        "negative values: it looks like dB",
        'give linear power, or declare unit="db" for a file',
    ),
    _Rule(
        Unit.POWER,
        lambda seen: _mostly(seen > HIGHEST_POWER),
        "a median above 10: it looks like uncalibrated DN",
        "calibrate to sigma0 or gamma0 first",
    ),
    _Rule(
        Unit.COMPONENT,
        lambda seen: bool(np.abs(seen).max() > HIGHEST_COMPONENT),
        "values beyond -1 to 1",
        "divide each vector by its length; what is stored in 8 bits must be de-quantised first",
    ),
    _Rule(
        Unit.INDEX,
        lambda seen: bool(np.abs(seen).max() > HIGHEST_COMPONENT),
        "values beyond -1 to 1",
        "divide by the scale of the file, often 10,000",
    ),
    _Rule(
        Unit.BYTE,
        lambda seen: bool(seen.min() < 0 or seen.max() > HIGHEST_BYTE or seen.max() <= 1),
        "values that are not from 0 to 255",
        "give the photograph as it was delivered, in 8 bits",
    ),
)


def refuse_implausible(values: Pixels, unit: Unit, where: str, stored: np.dtype[np.generic] | None = None) -> None:
    """Raise `UnitMismatch` where `values` cannot be in `unit`; see `check_plausible`."""
    if stored is not None and stored.itemsize == 1 and unit is Unit.DN:
        raise UnitMismatch(
            f"Wanted Sentinel-2 DN, found 8-bit values ({stored}): a picture made for the screen.",
            where=where,
            fix="give the reflectances it was made from",
        )
    seen = _seen(values)
    for rule in _RULES:
        if seen.size and rule.unit is unit and rule.broken_by(seen):
            raise UnitMismatch(
                f"Wanted values in {unit}, found {rule.finding}.",
                found=f"{seen.min():g} to {seen.max():g}, median {np.median(seen):g}",
                where=where,
                fix=rule.fix,
            )


def warn_of_oddities(values: Pixels, unit: Unit, where: str, *, harmonised: bool = False) -> tuple[str, ...]:
    """Warn of a constant chip and of an unharmonised one; see `check_plausible`."""
    bands = [seen for seen in map(_seen, values[:, None]) if seen.size > 1]
    notes = []
    if bands and all(np.ptp(seen) == 0 for seen in bands):
        notes.append(f"{where}: every band is constant ({', '.join(f'{seen[0]:g}' for seen in bands[:3])}, ...).")
    darkest, brightest = UNHARMONISED_DN
    enough = len(bands) >= FEWEST_BANDS_TO_JUDGE and all(seen.size >= FEWEST_PIXELS_TO_JUDGE for seen in bands)
    if unit is Unit.DN and enough and not harmonised:
        starts = []
        for seen in bands:  # of most chips, one of the first bands ends the search
            starts.append(float(np.percentile(seen, 1)))
            if starts[-1] < darkest:
                return _warned(notes)
        start = min(starts)
        if start <= brightest:
            notes.append(
                f"{where}: no band goes under {start:.0f} DN, as if the +1000 of processing baseline 04.00 "
                "were still in. If so, subtract 1000 (for a file: offset=-1000)."
            )
    return _warned(notes)


def judge_offset(values: Pixels, where: str, *, fix: str) -> tuple[str, ...]:
    """Refuse or warn of Sentinel-2 DN from which an offset was taken that was not in them.

    It goes by negative pixels, so a chip of bright ground alone passes: nothing in it tells.

    Args:
        values: `[C, H, W]` as 0-based DN, after the offset, NaN where nodata.
        where: For the messages.
        fix: What the user should say instead, for example "LocalRasters(path, offset=0)".

    Returns:
        What was warned of, for `Source.notes`.

    Raises:
        UnitMismatch: It is certain: medians of two bands (or of the only one) lie far below 0.
    """
    bands = [seen for seen in map(_seen, values[:, None]) if seen.size]
    if not any(float(seen.min()) < OVER_SUBTRACTED_DN for seen in bands):
        return ()
    shares = [float(np.mean(seen < OVER_SUBTRACTED_DN)) for seen in bands]
    below = sum(share > 0.5 for share in shares)
    if below >= min(BANDS_TO_BE_SURE, len(bands)):
        raise UnitMismatch(
            f"Expected 0-based Sentinel-2 DN, got medians under {OVER_SUBTRACTED_DN:g} in {below} of {len(bands)} "
            "bands: an offset was subtracted that was not in them.",
            medians=", ".join(f"{np.median(seen):.0f}" for seen in bands),
            where=where,
            fix=fix,
        )
    judged = [share for share, seen in zip(shares, bands, strict=True) if seen.size >= FEWEST_PIXELS_TO_JUDGE]
    if max(judged, default=0.0) <= MANY_OVER_SUBTRACTED:
        return ()
    return _warned(
        [
            f"{where}: {max(judged):.0%} of the DN of a band lie under {OVER_SUBTRACTED_DN:g}, as if an offset were "
            f"subtracted that was not in them. If so: {fix}."
        ]
    )


def mask_nodata(
    values: Pixels, unit: Unit, where: str, *, zero_is_nodata: bool = True
) -> tuple[Pixels, tuple[str, ...]]:
    """NaN for what cannot be a measurement.

    Args:
        values: `[C, H, W]`, in `unit`.
        unit: Of the values.
        where: For the messages.
        zero_is_nodata: Whether optical pixels with exactly 0 in every band are nodata, as ESA defines (and vectors of
            length 0). False once an offset was added.

    Returns:
        The values, and notes on infinities and on values that look like nodata (those are warned of, too).
    """
    notes = []
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)  # both skip NaN
    if np.isinf(low) or np.isinf(high):
        infinite = np.isinf(values)
        notes.append(f"{where}: {infinite.sum()} infinite values are taken as nodata.")
        values = np.where(infinite, np.float32(np.nan), values)
    floor = max(_FLOORS.get(unit, -np.inf), *NODATA_LOOKALIKES)
    odd = low <= floor or high > _CEILINGS.get(
        unit, LARGEST_VALUE
    )  # one look at the range spares most chips the search
    if odd and (lookalike := _lookalikes(values, unit)).any():
        which = ", ".join(f"{value:g}" for value in np.unique(values[lookalike])[:3])
        text = f"{where}: {lookalike.sum()} values ({which}) look like nodata and are taken as such."
        notes.extend(_warned([text]))
        values = np.where(lookalike, np.float32(np.nan), values)
    if zero_is_nodata and unit in (*OPTICAL, Unit.COMPONENT) and low <= 0:
        values = np.where((values == 0).all(axis=0), np.float32(np.nan), values)
    return values, tuple(notes)


def _lookalikes(values: Pixels, unit: Unit) -> NDArray[np.bool_]:
    found = (np.abs(values) > LARGEST_VALUE) | np.isin(values, NODATA_LOOKALIKES)
    beyond = ~found & ((values < _FLOORS.get(unit, -np.inf)) | (values > _CEILINGS.get(unit, np.inf)))
    valid = np.isfinite(values) & ~found
    if 2 * beyond.sum() < valid.sum():  # a majority is no fill value but another unit
        found |= beyond
    return found


def _seen(values: Pixels) -> Pixels:
    """The finite values `[N]`, of every n-th row and column where there are many."""
    step = max(1, min(values.shape[-2:]) // _SAMPLE_SIDE_PX)
    sample = values[..., ::step, ::step]
    found = sample[np.isfinite(sample)]
    return found if found.size or step == 1 else values[np.isfinite(values)]


def _warned(notes: list[str]) -> tuple[str, ...]:
    for note in notes:
        warn(note, PixelWarning)
    return tuple(notes)
