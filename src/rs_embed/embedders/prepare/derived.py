"""Channels that are computed from bands, for the cards that name them. No torch: cards are listed without it."""

from collections.abc import Mapping

import numpy as np

from rs_embed.core.bands import Unit
from rs_embed.embedders.card import DerivedBand, Pixels

_EPSILON, _LIMIT = 1e-10, 1e4


def _ratio(bands: Mapping[str, Pixels], pixel_m: float) -> Pixels:
    """VV / VH of values as they are stored (dB), as AnySat's loaders compute it."""
    with np.errstate(divide="ignore", over="ignore"):
        ratio: Pixels = np.clip(bands["VV"] / (bands["VH"] + np.float32(_EPSILON)), -_LIMIT, _LIMIT)
    return ratio


POLARISATION_RATIO = DerivedBand("VV/VH", Unit.DB, ("VV", "VH"), _ratio)
