"""Channels that are computed from bands, for the cards that name them. No torch: cards are listed without it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.bands import Unit
from rs_embed.embedders.card import DerivedBand, Pixels

_EPSILON, _LIMIT = 1e-10, 1e4
SRTM_M = 30
"""Size of its pixels, over which Earth Engine takes the slope that models were trained with."""


def _ratio(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:
    """VV / VH of values as they are stored (dB), as AnySat's loaders compute it."""
    with np.errstate(divide="ignore", over="ignore"):
        ratio: Pixels = np.clip(bands["VV"] / (bands["VH"] + np.float32(_EPSILON)), -_LIMIT, _LIMIT)
    return ratio


def _slope(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:  # of one band, whatever it is called
    """Degrees, from the heights one pixel of SRTM to either side; at an edge, from what there is of them.

    Heights on a grid finer than their own are stairs or ramps: between neighbouring pixels a slope is 0 or too steep
    on stairs. Over the width of their own pixels it is, on stairs, exactly that of the original grid, and nearly so on
    ramps.
    """
    (heights,) = (band.astype(np.float64) for band in bands.values())
    reach = max(1, round(SRTM_M / pixel_m))
    rises = [_rise(heights, axis, reach, pixel_m) for axis in (1, 2)]
    slope: Pixels = np.degrees(np.arctan(np.hypot(*rises))).astype(np.float32)
    return slope


def _rise(heights: NDArray[np.float64], axis: int, reach: int, pixel_m: float) -> NDArray[np.float64]:
    """Metres a metre along an axis; NaN where it is one pixel long."""
    here = np.arange(heights.shape[axis])
    ahead, behind = np.minimum(here + reach, here[-1]), np.maximum(here - reach, 0)
    distance_m = ((ahead - behind) * pixel_m).reshape([-1 if i == axis else 1 for i in range(heights.ndim)])
    rise = heights.take(ahead, axis) - heights.take(behind, axis)
    slope: NDArray[np.float64] = np.divide(rise, distance_m, out=np.full_like(rise, np.nan), where=distance_m > 0)
    return slope


def slope_of(heights: str) -> DerivedBand:
    """The slope of a band of heights, of pixels of about 30 m, in degrees."""
    return DerivedBand("slope", Unit.DEGREE, (heights,), _slope)


def _ndvi(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:
    """(B8 - B4) / (B8 + B4), 0 where the sum is not positive, as Galileo and Presto have it."""
    total = bands["B8"] + bands["B4"]
    unknown = np.where(np.isnan(total), total, 0)
    index: Pixels = np.divide(bands["B8"] - bands["B4"], total, out=unknown, where=total > 0)
    return index


NDVI = DerivedBand("NDVI", Unit.INDEX, ("B8", "B4"), _ndvi)
SLOPE = slope_of("elevation")
POLARISATION_RATIO = DerivedBand("VV/VH", Unit.DB, ("VV", "VH"), _ratio)
