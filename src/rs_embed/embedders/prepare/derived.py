"""Channels computed from bands, for the cards. This module does not import torch, because listing cards must not."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.bands import Unit
from rs_embed.embedders.card import DerivedBand, Pixels

_EPSILON, _LIMIT = 1e-10, 1e4
SRTM_M = 30
"""Pixel size of SRTM, metres: Earth Engine computed the slope that models were trained with over this distance."""


def _ratio(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:
    """Compute VV / VH of the stored values (dB), as AnySat's loaders do."""
    with np.errstate(divide="ignore", over="ignore"):
        ratio: Pixels = np.clip(bands["VV"] / (bands["VH"] + np.float32(_EPSILON)), -_LIMIT, _LIMIT)
    return ratio


def _slope(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:  # of one band, whatever it is called
    """Compute the slope in degrees from the heights one SRTM pixel to either side, or as far as there are any.

    Heights resampled to a finer grid form steps or ramps. On steps, the slope between neighbouring pixels is 0 or too
    steep. Over the width of an original pixel it equals that of the original grid on steps, and nearly so on ramps.
    """
    (heights,) = (band.astype(np.float64) for band in bands.values())
    reach = max(1, round(SRTM_M / pixel_m))
    rises = [_rise(heights, axis, reach, pixel_m) for axis in (1, 2)]
    slope: Pixels = np.degrees(np.arctan(np.hypot(*rises))).astype(np.float32)
    return slope


def _rise(heights: NDArray[np.float64], axis: int, reach: int, pixel_m: float) -> NDArray[np.float64]:
    """Return the gradient along an axis, metres per metre; NaN if the axis is one pixel long."""
    here = np.arange(heights.shape[axis])
    ahead, behind = np.minimum(here + reach, here[-1]), np.maximum(here - reach, 0)
    distance_m = ((ahead - behind) * pixel_m).reshape([-1 if i == axis else 1 for i in range(heights.ndim)])
    rise = heights.take(ahead, axis) - heights.take(behind, axis)
    slope: NDArray[np.float64] = np.divide(rise, distance_m, out=np.full_like(rise, np.nan), where=distance_m > 0)
    return slope


def slope_of(heights: str) -> DerivedBand:
    """Return the derived band of the slope, in degrees, of a band of heights with pixels of about 30 m."""
    return DerivedBand("slope", Unit.DEGREE, (heights,), _slope)


def _ndvi(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:
    """Compute (B8 - B4) / (B8 + B4), 0 where the sum is not positive, as Galileo and Presto do."""
    total = bands["B8"] + bands["B4"]
    unknown = np.where(np.isnan(total), total, 0)
    index: Pixels = np.divide(bands["B8"] - bands["B4"], total, out=unknown, where=total > 0)
    return index


NDVI = DerivedBand("NDVI", Unit.INDEX, ("B8", "B4"), _ndvi)
SLOPE = slope_of("elevation")
POLARISATION_RATIO = DerivedBand("VV/VH", Unit.DB, ("VV", "VH"), _ratio)
