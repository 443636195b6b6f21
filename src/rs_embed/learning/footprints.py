"""Where places lie: distances between them, and which of their footprints overlap."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.geo import outline, project
from rs_embed.core.optional import require
from rs_embed.core.specs import PointBuffer
from rs_embed.places import Places

EARTH_M = 6_371_008.8
"""Mean radius, metres (IUGG)."""
_DEGREE_M = EARTH_M * np.pi / 180
_SHRUNK = 0.01
"""Share of a footprint's side that may overlap: tiles that only touch, up to rounding, do not."""
_AT_ONCE = 256
"""Footprints looked up at once: each may overlap thousands of others."""


def on_sphere(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `[N, 3]`, metres: locations on a sphere, between which straight lines are nearly the distances."""
    east, north = np.radians(lon), np.radians(lat)
    return EARTH_M * np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)


class Footprints:
    """The squares around points, and the boxes around polygons: the ground that a chip shows.

    Args:
        places: The places.
    """

    def __init__(self, places: Places) -> None:
        require("shapely", "export")
        import shapely

        self.lon, self.lat = places.centres()
        east_m, north_m = _half_sides(places)
        self.side_m: NDArray[np.float64] = 2 * np.maximum(east_m, north_m)
        """Longer side of each, metres."""
        wide = (1 - _SHRUNK) * east_m / (_DEGREE_M * np.cos(np.radians(self.lat)))
        high = (1 - _SHRUNK) * north_m / _DEGREE_M
        self._boxes = shapely.box(self.lon - wide, self.lat - high, self.lon + wide, self.lat + high)
        self._tree = shapely.STRtree(self._boxes)

    def __len__(self) -> int:
        return len(self.lon)

    def pairs(self) -> Iterator[NDArray[np.int64]]:
        """Yield `[2, n]`: pairs of places that overlap, in both orders, some at a time."""
        for start in range(0, len(self), _AT_ONCE):
            one, other = self._tree.query(self._boxes[start : start + _AT_ONCE])
            one = one + start
            yield np.stack([one, other])[:, one != other]

    def clusters(self) -> NDArray[np.int64]:
        """Return a number for each place; places that overlap, directly or through others, have the same."""
        cluster = np.arange(len(self))
        for one, other in self.pairs():
            cluster = connected(cluster[one], cluster[other], len(self))[cluster]
        return np.unique(cluster, return_inverse=True)[1].astype(np.int64)

    def beside(self, fold: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
        """Return `[count, N]`: whether a place overlaps one of a fold; -1 is no fold."""
        found = np.zeros((count, len(self)), bool)
        for one, other in self.pairs():
            inside = fold[one] >= 0
            found[fold[one[inside]], other[inside]] = True
        return found

    def duplicates(self) -> int:
        """Count the places whose centre is also that of an earlier place."""
        centres = np.round(np.stack([self.lon, self.lat], axis=1), 7)  # degrees: 1 cm
        return len(self) - len(np.unique(centres, axis=0))


def connected(one: NDArray[np.int64], other: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `[count]`: a number for each node; nodes that links `one[i]`-`other[i]` connect have the same."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    found: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def _half_sides(places: Places) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return half the width and half the height of each footprint, metres."""
    east, north = places.buffer_m.copy(), places.buffer_m.copy()
    for index in np.flatnonzero(np.isnan(east)).tolist():
        spatial = places[index].spatial
        if isinstance(spatial, PointBuffer):
            continue
        lons, lats = project(*outline(spatial), spatial.crs, "EPSG:4326")
        north[index] = float(lats.max() - lats.min()) / 2 * _DEGREE_M
        east[index] = float(lons.max() - lons.min()) / 2 * _DEGREE_M * np.cos(np.radians(float(lats.mean())))
    return east, north
