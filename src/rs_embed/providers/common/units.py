"""Questions about values: which unit they are in, and whether they can be."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.bands import HIGHEST_BYTE, Unit, did_you_mean
from rs_embed.errors import PixelWarning, SpecError, UnitMismatch, warn

Pixels = NDArray[np.float32]

HIGHEST_REFLECTANCE = 2.0
"""Clouds and sun glint reach 1.5 or so."""
LOWEST_DB = -90.0
"""Far under the noise floor of any radar; 10 log10(1e-10) = -100 is a zero that was made positive."""
HIGHEST_POWER = 10.0
"""As a median: only corner reflectors and city centres are above 10 dB."""
COLDEST_K, HOTTEST_K = 100.0, 400.0
"""The coldest cloud top is 160 K, lava and fire saturate the sensors before 400 K."""
HIGHEST_M = 9_500.0
"""Above Mount Everest, and above the deepest trench."""
HIGHEST_COMPONENT = 1.001
LOWEST_DN = -1500.0
"""Removing the offset of baseline 04.00 from the smallest DN gives -999."""
PICTURE_SPREAD = 64.0
"""From the 1st to the 99th percentile of a band, where nothing is above 255. Pictures spread more (of 32 px: 75 to 240
in TerraMesh's S2RGB), dark water less: the noise of Sentinel-2 over it makes 30 to 60 DN."""
HIGHEST_PERCENT = 100.0
FEWEST_BANDS_TO_JUDGE = 3
"""One or two bands of dry land never go under 900 DN anyway."""
FEWEST_PIXELS_TO_JUDGE = 256
"""In a smaller chip nothing need be dark."""
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
        raise SpecError(f"Expected a unit, got {value!r}.", known=", ".join(known), fix=fix)
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
        "a median above 2: it looks like DN, or percent",
        'apply scale and offset of the product (Sentinel-2: divide by 10,000, or declare unit="dn")',
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
        Unit.KELVIN,
        lambda seen: _mostly((seen < COLDEST_K) | (seen > HOTTEST_K)),
        "a median that is no brightness temperature: it looks like degrees Celsius, or a scaled integer",
        "add 273.15, or apply scale and offset of the product",
    ),
    _Rule(
        Unit.METRE,
        lambda seen: _mostly(np.abs(seen) > HIGHEST_M),
        "a median beyond any height in metres: it looks like centimetres, or a scaled integer",
        "give metres",
    ),
    _Rule(
        Unit.CLASS,
        lambda seen: bool((seen != np.rint(seen)).any()),
        "fractions between codes of classes",
        "bring the map to another grid by nearest neighbour",
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
            f"Expected Sentinel-2 DN, got 8-bit values ({stored}): a picture made for the screen.",
            where=where,
            fix='give the reflectances it was made from; unit="byte" for TerraMind\'s RGB, which takes pictures',
        )
    seen = seen_values(values)
    for rule in _RULES:
        if seen.size and rule.unit is unit and rule.broken_by(seen):
            raise UnitMismatch(
                f"Expected values in {unit}, got {rule.finding}.",
                found=f"{seen.min():g} to {seen.max():g}, median {np.median(seen):g}",
                where=where,
                fix=rule.fix,
            )


def warn_of_oddities(values: Pixels, unit: Unit, where: str, *, harmonised: bool = False) -> tuple[str, ...]:
    """Warn of a constant chip and of an unharmonised one; see `check_plausible`."""
    bands = [seen for seen in map(seen_values, values[:, None]) if seen.size > 1]
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
                return warned(notes)
        start = min(starts)
        if start <= brightest:
            notes.append(
                f"{where}: no band goes under {start:.0f} DN, as if the +1000 of processing baseline 04.00 "
                "were still in. If so, subtract 1000 (for a file: offset=-1000)."
            )
    return warned(notes)


def doubt_dn(values: Pixels, where: str, *, stated: bool) -> tuple[str, ...]:
    """Refuse or warn of Sentinel-2 DN that are most likely bytes of a picture, or percent.

    Args:
        values: `[C, H, W]`, NaN where nodata.
        where: For the messages.
        stated: Whether somebody says that these are DN; then they are believed, with a warning.

    Returns:
        What was warned of, for `Source.notes`.

    Raises:
        UnitMismatch: Nobody says so, and three bands or more look like a picture or percent.
    """
    seen = seen_values(values)
    if seen.size == 0 or seen.max() > HIGHEST_BYTE or np.fmax.reduce(values, axis=None) > HIGHEST_BYTE:
        return ()
    bands = [band for band in map(seen_values, values[:, None]) if band.size]
    spread = max(float(np.ptp(np.percentile(band, (1, 99)))) for band in bands)
    in_steps = 2 * np.count_nonzero(2 * seen == np.rint(2 * seen)) > seen.size  # DN, or medians of them
    picture = spread > PICTURE_SPREAD or (seen.max() <= HIGHEST_PERCENT and not in_steps)
    found = f"no value above {seen.max():g}, and bands that spread over {spread:.0f}"
    if picture and len(bands) >= FEWEST_BANDS_TO_JUDGE and not stated:
        raise UnitMismatch(
            f"Expected Sentinel-2 DN (reflectance x 10,000), got {found}: bytes of a picture, or percent.",
            where=where,
            fix='say what they are: unit="byte" for a picture, unit="dn" if it is nothing but dark water; '
            "multiply percent by 100",
        )
    if stated and not (picture and len(bands) >= FEWEST_BANDS_TO_JUDGE):
        return ()
    return warned(
        [f"{where}: {found}; taken as DN, so as dark as deep water. A picture of bytes looks like that, too."]
    )


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
    bands = [seen for seen in map(seen_values, values[:, None]) if seen.size]
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
    return warned(
        [
            f"{where}: {max(judged):.0%} of the DN of a band lie under {OVER_SUBTRACTED_DN:g}, as if an offset were "
            f"subtracted that was not in them. If so: {fix}."
        ]
    )


def seen_values(values: Pixels) -> Pixels:
    """The finite values `[N]`, of every n-th row and column where there are many."""
    step = max(1, min(values.shape[-2:]) // _SAMPLE_SIDE_PX)
    sample = values[..., ::step, ::step]
    found = sample[np.isfinite(sample)]
    return found if found.size or step == 1 else values[np.isfinite(values)]


def warned(notes: list[str]) -> tuple[str, ...]:
    """The notes, each given as a warning."""
    for note in notes:
        warn(note, PixelWarning)
    return tuple(notes)
