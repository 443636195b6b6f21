"""Short ways to ask a loopback STAC catalogue, and an impatient provider."""

import numpy as np
from earth import QUICK, S2, SUMMER, ask, expected, frames_of, pixels_of, scenes_of
from numpy.typing import NDArray
from stac_server import Site

from rs_embed.core.chip import Chip
from rs_embed.providers.stac.provider import Stac

__all__ = ["QUICK", "S2", "SUMMER", "ask", "equal", "expected", "frames_of", "pixels_of", "scenes_of", "stac"]


def stac(site: Site, **settings: object) -> Stac:
    """The provider, asking a loopback site, and impatient."""
    return Stac(site.catalog, **{"waits": QUICK, "timeout_s": 5, "max_scenes": 100, **settings})


def equal(chip: Chip, values: NDArray[np.float32], ties: int = 0) -> None:
    """A chip of one frame has exactly these pixels, but for so many that lie on the edge of two native ones."""
    same = (chip.values[0] == values) | (np.isnan(chip.values[0]) & np.isnan(values))
    assert (~same).any(axis=0).sum() <= ties
    assert np.isfinite(values).any()
