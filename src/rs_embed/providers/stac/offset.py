"""Decide whether the DN of a Sentinel-2 item contain ESA's offset of 1000. Each catalogue needs its own rule.

ESA adds 1000 to every DN from processing baseline 04.00 on (January 2022), also to older dates that it reprocesses.
Some catalogues remove the offset, and some of those have metadata that contradict this.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rs_embed.core.bands import DN_PER_REFLECTANCE
from rs_embed.errors import ReadError
from rs_embed.providers.common.plausible import FEWEST_BANDS_TO_JUDGE, FEWEST_PIXELS_TO_JUDGE, UNHARMONISED_DN, Pixels
from rs_embed.providers.stac.catalogs import OffsetRule

ESA_OFFSET = -1000.0
FIRST_BASELINE = 4.0
FLAG = "earthsearch:boa_offset_applied"
BASELINE = "s2:processing_baseline"
MANY_TOO_LOW = 0.05
"""Share of DN under 1000 above which the offset is missing: with it, only negative reflectance is so low."""

ENOUGH_TO_BE_DARK_PX = 4096
"""A smaller chip may have no dark pixel (640 m at 10 m)."""


@dataclass(frozen=True)
class Offset:
    """What to add to the stored DN of a band to make them 0-based, and why."""

    dn: float
    reason: str
    doubtful: bool = False
    """Whether it depends on a flag or metadata that have been wrong before."""


def decide(rule: OffsetRule, properties: Mapping[str, object], scale: tuple[float, float] | None, scene: str) -> Offset:
    """Return the offset of one band of one item.

    Args:
        rule: The collection's rule; not "none".
        properties: Properties of the item.
        scale: Factor and offset to reflectance from the asset's `raster:bands`, if present.
        scene: For the message.

    Raises:
        ReadError: The item lacks a property that its rule needs.
    """
    if rule == "always":
        return Offset(ESA_OFFSET, "Collection 1: the offset is always in")
    if rule in ("earth-search", "baseline") and properties.get(FLAG) is True:
        return Offset(0.0, f"{FLAG}: the offset was taken out", doubtful=True)
    baseline = _baseline(properties, scene)
    if baseline < FIRST_BASELINE:
        return Offset(0.0, "processed before baseline 04.00: no offset")
    if rule == "baseline":
        return Offset(ESA_OFFSET, "baseline 04.00 or later: the offset is in")
    if scale is None:
        return Offset(ESA_OFFSET, "baseline 04.00 or later, nothing in raster:bands: the offset is in", doubtful=True)
    return Offset(float(round(scale[1] * DN_PER_REFLECTANCE)), "raster:bands", doubtful=True)


def _baseline(properties: Mapping[str, object], scene: str) -> float:
    try:
        return float(str(properties[BASELINE]))
    except (KeyError, ValueError):
        raise ReadError(
            f"Expected {BASELINE} to decide on the offset of {scene}, got {properties.get(BASELINE)!r}.",
            fix="set what to add to its DN: Stac(offset=-1000) or Stac(offset=0)",
        ) from None


def doubts(stored: Pixels, offset: Offset, properties: Mapping[str, object], scene: str) -> str | None:
    """Return what in the pixels contradicts an offset, if anything does.

    Args:
        stored: `[C, H, W]`, DN before the offset, NaN where nodata.
        offset: As decided.
        properties: Properties of the item.
        scene: For the message.
    """
    bands = [plane[np.isfinite(plane)] for plane in stored]
    bands = [plane for plane in bands if plane.size >= FEWEST_PIXELS_TO_JUDGE]
    if offset.dn <= ESA_OFFSET and bands:
        low = max(float((plane < -ESA_OFFSET).mean()) for plane in bands)
        if low > MANY_TOO_LOW:
            return (
                f"{scene}: {100 * low:.0f} % of the stored DN of a band are under 1000, as if ESA's offset were not in "
                f"them, though metadata say so ({offset.reason}). If so, use Stac(offset=0)."
            )
    if offset.dn == 0 and offset.doubtful and len(bands) >= FEWEST_BANDS_TO_JUDGE and _newer(properties):
        bands = [plane for plane in bands if plane.size >= ENOUGH_TO_BE_DARK_PX] or [np.zeros(1, np.float32)]
        darkest, brightest = UNHARMONISED_DN
        start = min(float(np.percentile(plane, 1)) for plane in bands)
        if darkest <= start <= brightest:
            return (
                f"{scene}: no band goes under {start:.0f} DN, as if ESA's offset were still in them, though metadata "
                f"say it is not ({offset.reason}). If so, use Stac(offset=-1000)."
            )
    return None


def _newer(properties: Mapping[str, object]) -> bool:
    try:
        return float(str(properties.get(BASELINE))) >= FIRST_BASELINE
    except ValueError:
        return True
