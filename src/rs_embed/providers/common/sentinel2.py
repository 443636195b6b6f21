"""Checks for Sentinel-2 DN only: are they a picture or percent, and was an offset subtracted twice?"""

import numpy as np

from rs_embed.core.units import HIGHEST_BYTE
from rs_embed.errors import UnitMismatch
from rs_embed.providers.common.plausible import (
    FEWEST_BANDS_TO_JUDGE,
    FEWEST_PIXELS_TO_JUDGE,
    Pixels,
    seen_values,
    warned,
)

PICTURE_SPREAD = 64.0
"""Spread of a band, 1st to 99th percentile, if nothing is above 255. Pictures spread more (75 to 240 over 32 px in
TerraMesh's S2RGB), dark water less (30 to 60 DN, from Sentinel-2's noise)."""
HIGHEST_PERCENT = 100.0
OVER_SUBTRACTED_DN = -200.0
"""Reflectance -0.02. Dark water and shadow are at most 0.01 below 0 after the right offset is removed. If 1000 is
subtracted from values that did not contain it, everything darker than reflectance 0.08 ends below this."""
MANY_OVER_SUBTRACTED = 0.05
"""Share of a band's pixels below that limit that triggers a warning."""
BANDS_TO_BE_SURE = 2
"""One band may be damaged, but two medians that low have no other cause."""


def doubt_dn(values: Pixels, where: str, *, stated: bool) -> tuple[str, ...]:
    """Refuse, or warn of, Sentinel-2 DN that are most likely the bytes of a picture, or percent.

    Args:
        values: `[C, H, W]`, NaN for nodata.
        where: Origin of the values, for messages.
        stated: Whether the user or file states that these are DN; then this only warns.

    Returns:
        The warnings, for `Source.notes`.

    Raises:
        UnitMismatch: DN are not stated, and three bands or more look like a picture or percent.
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
            fix='declare the unit: unit="byte" for a picture, unit="dn" if there is only dark water; '
            "multiply percent by 100",
        )
    if stated and not (picture and len(bands) >= FEWEST_BANDS_TO_JUDGE):
        return ()
    return warned(
        [f"{where}: {found}; taken as DN, so as dark as deep water. A picture of bytes looks like that, too."]
    )


def judge_offset(values: Pixels, where: str, *, fix: str) -> tuple[str, ...]:
    """Refuse, or warn of, Sentinel-2 DN from which an offset was subtracted that they did not contain.

    The check uses negative pixels, so a chip of bright ground passes: nothing in it shows the error.

    Args:
        values: `[C, H, W]`, 0-based DN after the offset, NaN for nodata.
        where: Origin of the values, for messages.
        fix: What the user should do instead, for example "LocalRasters(path, offset=0)".

    Returns:
        The warnings, for `Source.notes`.

    Raises:
        UnitMismatch: It is certain: the medians of two bands (or of the only one) are far below 0.
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
