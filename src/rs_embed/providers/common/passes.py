"""Satellite passes: group the scenes of a pass, and rank passes by how well they show a place."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from odc.geo.geobox import GeoBox

from rs_embed.core.geo import subgrid

ONE_PASS = timedelta(minutes=15)
"""Granules of one pass are seconds to minutes apart; a place is seen again after 100 minutes at the earliest."""
LOOK_PX = 64
"""Side of the grid, pixels, on which the clear share is measured; larger chips are sampled more coarsely."""


class Taken(Protocol):
    """The attributes of a scene that passes need."""

    @property
    def id(self) -> str:
        """The scene's id in the archive."""
        ...

    @property
    def time(self) -> datetime:
        """Acquisition time, UTC."""
        ...

    @property
    def cloud(self) -> float:
        """Cloud in percent of the whole scene; 0 if unknown."""
        ...


S = TypeVar("S", bound=Taken)


def passes_of(scenes: Sequence[S]) -> list[tuple[S, ...]]:
    """Group the scenes of each satellite pass: granules within minutes, side by side or overlapping."""
    passes: list[list[S]] = []
    for scene in sorted(scenes, key=lambda s: (s.time, s.id)):
        if passes and scene.time - passes[-1][-1].time <= ONE_PASS:
            passes[-1].append(scene)
        else:
            passes.append([scene])
    return [tuple(one) for one in passes]


def rank(one: Sequence[Taken], shown: float) -> tuple[float, float, float]:
    """Return a sort key, lowest for the best pass: share of the chip shown, to 0.1 percent; cloud; latest."""
    return -round(min(1.0, shown), 3), max(scene.cloud for scene in one), -one[0].time.timestamp()


def look_at(geobox: GeoBox) -> GeoBox:
    """Return a grid of the same area, coarse enough to be sampled quickly."""
    height, width = geobox.shape
    step = math.ceil(max(height, width) / LOOK_PX)
    return subgrid(geobox, (0, 0), step, (math.ceil(height / step), math.ceil(width / step)))
