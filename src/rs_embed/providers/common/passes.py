"""Passes of a satellite: scenes taken together, and which of them shows a place best. Knows no service."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from odc.geo.geobox import GeoBox

from rs_embed.core.geo import subgrid

ONE_PASS = timedelta(minutes=15)
"""Granules of one pass are seconds to minutes apart, the same place is seen again after 100 minutes at the earliest."""
LOOK_PX = 64
"""Side of the grid on which the clear share of a scene is measured: larger chips are looked at more coarsely."""


class Taken(Protocol):
    """What a pass needs to know of a scene."""

    @property
    def id(self) -> str:
        """As the archive calls it."""
        ...

    @property
    def time(self) -> datetime:
        """Of the acquisition, UTC."""
        ...

    @property
    def cloud(self) -> float:
        """Percent of the whole scene; 0 where that is not told."""
        ...


S = TypeVar("S", bound=Taken)


def passes_of(scenes: Sequence[S]) -> list[tuple[S, ...]]:
    """Scenes of one pass of the satellite together: granules of the same minutes, side by side or overlapping."""
    passes: list[list[S]] = []
    for scene in sorted(scenes, key=lambda s: (s.time, s.id)):
        if passes and scene.time - passes[-1][-1].time <= ONE_PASS:
            passes[-1].append(scene)
        else:
            passes.append([scene])
    return [tuple(one) for one in passes]


def rank(one: Sequence[Taken], shown: float) -> tuple[float, float, float]:
    """The clearest pass has the lowest: by the share of the chip shown, to a tenth of a percent; cloud; the latest."""
    return -round(min(1.0, shown), 3), max(scene.cloud for scene in one), -one[0].time.timestamp()


def look_at(geobox: GeoBox) -> GeoBox:
    """The same ground in pixels coarse enough to be looked at quickly."""
    height, width = geobox.shape
    step = math.ceil(max(height, width) / LOOK_PX)
    return subgrid(geobox, (0, 0), step, (math.ceil(height / step), math.ceil(width / step)))
