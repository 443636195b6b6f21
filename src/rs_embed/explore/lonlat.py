"""Degrees for a page, which has no library of projections: polynomials that are fitted to the CRS."""

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core.geo import project

_DEGREES = (3, 5, 7, 9)
_ENOUGH_M = 0.001
_WORST_M = 1.0
"""Above this, a page shows no degrees rather than wrong ones: a map over a pole, or across a continent."""
_M_PER_DEGREE = 111_320.0
_SIDE = 24
"""Points along each side of the lattice that is fitted; the error is measured between them."""


def lonlat_of(crs: str, edges: tuple[float, float, float, float]) -> JsonValue:
    """Fit longitude and latitude as polynomials of x and y over a box.

    Args:
        crs: CRS of the box.
        edges: Left, bottom, right and top in it.

    Returns:
        The coefficients in the order of `Places.lonLat` in page/places.js, with the largest error in metres; `None`
        if that exceeds one metre.
    """
    left, bottom, right, top = edges
    middle, half = ((left + right) / 2, (bottom + top) / 2), ((right - left) / 2, (top - bottom) / 2)

    def degrees(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side)))
        lon, lat = project(middle[0] + u * half[0], middle[1] + v * half[1], crs, "EPSG:4326")
        return u, v, np.stack([_unwrapped(lon, float(lon[0])), lat], axis=1)

    u, v, fitted = degrees(_SIDE)
    u_check, v_check, truth = degrees(_SIDE + 7)
    if not (np.isfinite(fitted).all() and np.isfinite(truth).all()):
        return None
    for degree in _DEGREES:
        weights = np.linalg.lstsq(_terms(u, v, degree), fitted, rcond=None)[0]
        off = _terms(u_check, v_check, degree) @ weights - truth
        off[:, 0] = _unwrapped(off[:, 0], 0.0) * np.cos(np.radians(truth[:, 1]))
        error_m = float(np.hypot(off[:, 0], off[:, 1]).max() * _M_PER_DEGREE)
        if error_m < _ENOUGH_M:
            break
    if error_m > _WORST_M:
        return None
    return {
        "middle": list(middle),
        "half": list(half),
        "degree": degree,
        "lon": weights[:, 0].tolist(),
        "lat": weights[:, 1].tolist(),
        "error_m": error_m,
    }


def _unwrapped(lon: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    """Longitudes within 180 degrees of one of them, so that a box across the antimeridian has no jump."""
    turned: NDArray[np.float64] = (lon - near + 180) % 360 - 180 + near
    return turned


def _terms(u: NDArray[np.float64], v: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Return u^i v^j for all i + j up to the degree, `[N, K]`."""
    return np.stack([u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=1)
