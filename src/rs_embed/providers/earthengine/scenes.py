"""The scenes of a query: their metadata, which of them are used, and which frame each is part of."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from threading import Lock

from rs_embed.core.specs import Composite, TemporalSpec
from rs_embed.core.stopping import PerProcess
from rs_embed.errors import ReadError
from rs_embed.providers.base import Query
from rs_embed.providers.common.passes import passes_of, rank
from rs_embed.providers.common.series import frame_slots
from rs_embed.providers.earthengine.archives import Archive

KEPT = 256
"""Lists of scenes kept in memory, about 50 kB each for a year of Sentinel-2."""


@dataclass(frozen=True)
class ArchivedScene:
    """One image of a collection."""

    id: str
    """Its `system:index`."""
    time: datetime
    properties: Mapping[str, object]
    """The properties that were requested."""
    cloud: float = 0.0
    """Percentage of cloud in the whole scene; 0 if not stated."""
    clear: float = 0.0
    """Share of the chip that it shows unmasked; 0 if not requested."""


def read_scenes(answer: object, archive: Archive) -> list[ArchivedScene]:
    """Parse the scenes in an answer to the metadata request.

    Raises:
        ReadError: It is not a list of scenes.
    """
    if not isinstance(answer, Mapping):
        raise ReadError(f"Expected a list of scenes, got {type(answer).__name__}.", fix="try again")
    try:
        features = answer["features"]
        return [_scene(feature["properties"], archive) for feature in features]
    except (KeyError, TypeError, ValueError) as error:
        raise ReadError(f"Expected a list of scenes, got an answer without: {error!r}", fix="try again") from error


def _scene(properties: Mapping[str, object], archive: Archive) -> ArchivedScene:
    def number(name: str | None) -> float:
        value = properties.get(name) if name else None
        return float(value) if isinstance(value, int | float) else 0.0

    time = datetime.fromtimestamp(number("system:time_start") / 1000, UTC)
    return ArchivedScene(str(properties["scene"]), time, properties, number(archive.cloud_property), number("clear"))


def in_days(scenes: Sequence[ArchivedScene], archive: Archive, window: TemporalSpec | None) -> Sequence[ArchivedScene]:
    """Return the scenes in the window; a monthly image that began earlier gets the first day of the window."""
    if not archive.monthly or window is None:
        return scenes
    first = datetime.combine(window.start, time(), UTC)
    return [replace(scene, time=max(scene.time, first)) for scene in scenes]


@dataclass(frozen=True)
class FramePlan:
    """The scenes that one frame is made from."""

    how: Composite
    window: TemporalSpec | None
    ids: tuple[str, ...] | None
    """Scene ids, the top one last; `None` means all scenes in the window that pass the sensor's filters."""
    scenes: tuple[ArchivedScene, ...]
    """The same scenes, as far as they are known."""


def clearest_first(passes: Iterable[tuple[ArchivedScene, ...]]) -> list[tuple[ArchivedScene, ...]]:
    """Order passes by the share of the chip that they show (to 0.1 %), then by cloud, then the latest first."""
    return sorted(passes, key=lambda one: rank(one, math.fsum(scene.clear for scene in one)))


def plan_frames(query: Query, archive: Archive, scenes: Sequence[ArchivedScene]) -> list[FramePlan]:
    """Return the frames of a query, in order of time, from the scenes that pass the filters (at least one)."""
    if not archive.dated or archive.annual:
        return [FramePlan("mosaic", query.window if archive.dated else None, None, tuple(scenes))]
    if query.series is None:
        return [_frame(query.sensor.composite, query.window, passes_of(scenes))]
    passes = passes_of(scenes)
    slots = frame_slots([one[0].time for one in passes], query.window, query.series)
    if query.series.sampling == "scenes":
        return [_frame("first", query.window, [passes[i] for i in slot]) for slot in slots]
    windows = query.series.windows(query.window) if query.window else ()
    return [
        _frame(query.sensor.composite, part, [passes[i] for i in slot])
        for slot in slots
        for part in windows
        if part.start <= passes[slot[0]][0].time.date() < part.end
    ]


def _frame(how: Composite, window: TemporalSpec | None, passes: Sequence[tuple[ArchivedScene, ...]]) -> FramePlan:
    """One frame from these passes."""
    if how not in ("first", "mosaic"):
        return FramePlan(how, window, None, tuple(scene for one in passes for scene in one))
    ordered = clearest_first(passes)[: 1 if how == "first" else None]
    on_top_last = [scene for one in reversed(ordered) for scene in one]
    return FramePlan(how, window, tuple(scene.id for scene in on_top_last), tuple(on_top_last))


class SceneCache:
    """Lists of scenes by query; drops the least recently used. Safe to use from several threads, and after a fork."""

    def __init__(self, size: int = KEPT) -> None:
        self._size = size
        self._kept: OrderedDict[str, tuple[ArchivedScene, ...]] = OrderedDict()
        self._lock = PerProcess(Lock)

    def get(self, key: str) -> tuple[ArchivedScene, ...] | None:
        """Return the list of scenes, if it is still kept."""
        with self._lock.here:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, scenes: Sequence[ArchivedScene]) -> None:
        """Keep a list of scenes."""
        with self._lock.here:
            self._kept[key] = tuple(scenes)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
