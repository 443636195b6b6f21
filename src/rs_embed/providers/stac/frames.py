"""Make frames from scenes: choose which to read, and composite their pixels. `MEMORY_B` bounds the memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import Unit, bands_of, convert
from rs_embed.core.geo import subgrid
from rs_embed.core.specs import Composite, SensorSpec
from rs_embed.core.stopping import Threads
from rs_embed.providers.common.composite import composite
from rs_embed.providers.common.passes import look_at, rank
from rs_embed.providers.common.plausible import Pixels, refuse_implausible
from rs_embed.providers.common.sentinel2 import judge_offset
from rs_embed.providers.stac.catalogs import StacCollection
from rs_embed.providers.stac.items import CatalogItem
from rs_embed.providers.stac.scenes import Findings, SceneReader
from rs_embed.providers.stac.waiting import awaited

MEMORY_B = 512_000_000
"""Memory for the scenes of one frame, bytes. A larger frame is made strip by strip, with the same result."""
FRAMES_AT_ONCE = 4
"""Frames of one chip made at the same time, if their scenes together fit in `MEMORY_B`."""
AT_ONCE = 4
"""Passes compared at a time to find the clearest, which is usually among the first."""

_NO_OFFSET = "say that there is none in: Stac(offset=0) or RS_EMBED_STAC_OFFSET=0; or take another catalogue"
Pass = tuple[CatalogItem, ...]


@dataclass
class StacFrame:
    """One frame of a chip."""

    values: Pixels
    """`[C, H, W]` in the units of the sensor."""
    used: list[CatalogItem]
    """Scenes with at least one valid pixel, in order of time."""
    observations: float
    """Mean number of clear observations per pixel."""


class Frames:
    """Makes the frames of one sensor.

    Args:
        reader: Reads its scenes.
        sensor: Determines the units.
        collection: Determines whether values are composited as power.
        max_scenes: A median or mean stops reading passes once each pixel has this many clear observations on average.
        memory_b: See `MEMORY_B`.
    """

    def __init__(
        self,
        reader: SceneReader,
        sensor: SensorSpec,
        collection: StacCollection,
        max_scenes: int,
        memory_b: int = MEMORY_B,
    ) -> None:
        self._reader, self._collection = reader, collection
        self._max_scenes, self._memory_b = max_scenes, memory_b
        self._bands = bands_of(sensor.collection, sensor.bands)

    def frame(self, passes: Sequence[Pass], how: Composite, geobox: GeoBox) -> StacFrame | None:
        """Make one frame from some passes; `None` if none of them has a valid pixel on the grid.

        A scene with a missing file is left out of the whole frame, and the other scenes are chosen without it.
        """
        findings = self._reader.findings
        unread = findings.unread
        while passes := self._without_missing(passes):
            known, findings.unread = len(findings.missing), unread
            chosen = self._chosen(passes, how, geobox)
            frame = self._made(chosen, how, geobox) if len(findings.missing) == known else None
            if len(findings.missing) == known:
                return frame
        return None

    def _without_missing(self, passes: Sequence[Pass]) -> list[Pass]:
        missing = self._reader.findings.missing
        left = (tuple(item for item in one if item.id not in missing) for one in passes)
        return [one for one in left if one]

    def _made(self, chosen: Sequence[Pass], how: Composite, geobox: GeoBox) -> StacFrame | None:
        strips = _strips(geobox, self._rows(chosen, geobox))
        parts = [self._part(chosen, how, strip) for strip in strips]
        values = np.concatenate([part.values for part in parts], axis=1)
        if not np.isfinite(values).any():
            return None
        used = {item.id: item for part in parts for item in part.used}
        heights = [strip.shape[0] for strip in strips]
        observations = float(np.average([part.observations for part in parts], weights=heights))
        return StacFrame(values, sorted(used.values(), key=lambda item: (item.time, item.id)), observations)

    @property
    def findings(self) -> Findings:
        """What reading the scenes revealed about them."""
        return self._reader.findings

    def held_b(self, passes: Sequence[Pass], geobox: GeoBox) -> int:
        """Most memory that a frame of these passes takes if it is made in one go, bytes."""
        return 4 * sum(len(one) for one in passes) * len(self._bands) * int(geobox.shape[0]) * int(geobox.shape[1])

    def _rows(self, passes: Sequence[Pass], geobox: GeoBox) -> int:
        """Number of rows made at a time."""
        scenes = sum(len(one) for one in passes)
        row_b = 4 * max(1, scenes) * len(self._bands) * int(geobox.shape[1])
        return max(1, min(int(geobox.shape[0]), self._memory_b // row_b))

    def _chosen(self, passes: Sequence[Pass], how: Composite, geobox: GeoBox) -> list[Pass]:
        """The passes to read, the clearest first where the order matters."""
        by_cloud = sorted(passes, key=lambda one: rank(one, 0.0))
        if how == "mosaic":
            shown = dict(zip(by_cloud, self._shown(by_cloud, geobox), strict=True))
            return sorted(by_cloud, key=lambda one: rank(one, shown[one]))
        if how == "first":
            return [self._clearest(by_cloud, geobox)]
        if len(passes) <= self._max_scenes:
            return list(passes)
        enough: list[Pass] = []
        seen = 0.0
        while round(seen, 3) < self._max_scenes and len(enough) < len(by_cloud):
            wave = by_cloud[len(enough) : len(enough) + max(1, round(self._max_scenes - seen))]
            seen += sum(self._shown(wave, geobox))
            enough += wave
        with self._reader.findings.lock:
            self._reader.findings.unread += len(passes) - len(enough)
        return enough

    def _clearest(self, by_cloud: Sequence[Pass], geobox: GeoBox) -> Pass:
        """The clearest pass. The search ends at a pass that shows every pixel: the passes after it have more cloud."""
        if len(by_cloud) == 1:
            return by_cloud[0]
        looked: list[tuple[tuple[float, float, float], Pass]] = []
        for start in range(0, len(by_cloud), AT_ONCE):
            wave = by_cloud[start : start + AT_ONCE]
            looked += [(rank(one, shown), one) for one, shown in zip(wave, self._shown(wave, geobox), strict=True)]
            if any(key[0] <= -1.0 for key, _ in looked):
                break
        return min(looked, key=lambda pair: pair[0])[1]

    def _shown(self, passes: Sequence[Pass], geobox: GeoBox) -> list[float]:
        """Share of the chip that each pass shows unmasked in its first band."""
        look = look_at(geobox)
        waiting = [[self._reader.look(item, look) for item in one] for one in passes]
        return [min(1.0, sum(float(np.isfinite(wait()).mean()) for wait in one)) for one in waiting]

    def _part(self, passes: Sequence[Pass], how: Composite, geobox: GeoBox) -> StacFrame:
        if how in ("first", "mosaic"):
            return self._stacked(passes, geobox, whole=how == "mosaic")
        scenes = [item for one in passes for item in one]
        waiting = [self._reader.start(item, geobox) for item in scenes]
        read = [(item, wait()) for item, wait in zip(scenes, waiting, strict=True)]
        valid = [(item, values) for item, values in read if np.isfinite(values).any()]
        if not valid:
            return self._nothing(geobox)
        clear = sum(float(np.isfinite(values[0]).mean()) for _, values in valid)
        made = composite([values for _, values in valid], how)
        return StacFrame(self._in_units(made), [item for item, _ in valid], clear)

    def _stacked(self, passes: Sequence[Pass], geobox: GeoBox, *, whole: bool) -> StacFrame:
        """Take each pixel from the first pass that has it: all bands together (`whole`), or band by band.

        Stops reading once every pixel has a value.
        """
        made = self._nothing(geobox)
        for one in passes:
            waiting = [(item, self._reader.start(item, geobox)) for item in one]
            for item, wait in reversed(waiting):  # where granules overlap, the last is on top, as on Earth Engine
                values = wait()
                if whole:
                    values[:, np.isnan(values).any(axis=0)] = np.nan
                new = np.isnan(made.values) & np.isfinite(values)
                made.values[new] = values[new]
                made.observations += float(np.isfinite(values[0]).mean())
                made.used += [item] if new.any() else []
            if np.isfinite(made.values).all():
                break
        if not whole:
            made.observations = float(np.isfinite(made.values[0]).mean())
        made.values = self._in_units(made.values)
        return made

    def _nothing(self, geobox: GeoBox) -> StacFrame:
        return StacFrame(np.full((len(self._bands), *geobox.shape), np.nan, np.float32), [], 0.0)

    def _in_units(self, values: Pixels) -> Pixels:
        """Composited values in the units of the sensor."""
        if self._collection.linear:
            refuse_implausible(values, Unit.POWER, self._collection.id)
            values = convert(values, Unit.POWER, Unit.DB)
        for unit in {band.unit for band in self._bands}:
            here = [i for i, band in enumerate(self._bands) if band.unit == unit]
            refuse_implausible(values[here], unit, self._collection.id)
            if self._collection.offset != "none" and unit is Unit.DN:
                self._reader.findings.notes += judge_offset(values[here], self._collection.id, fix=_NO_OFFSET)
        return values


def frames_made(
    frames: Callable[[], Frames], planned: Sequence[tuple[Composite, Sequence[Pass]]], geobox: GeoBox
) -> tuple[list[StacFrame], Findings]:
    """Return the frames of a chip that have a valid pixel, in order, and what reading their scenes revealed.

    Args:
        frames: Makes a frame builder; each frame gets its own, as a scene may be left out of one frame only.
        planned: How to make each frame, and from which passes.
        geobox: The grid.
    """
    makers = [frames() for _ in planned]
    works = [partial(one.frame, passes, how, geobox) for one, (how, passes) in zip(makers, planned, strict=True)]
    held_b = max((one.held_b(passes, geobox) for one, (_, passes) in zip(makers, planned, strict=True)), default=0)
    at_once = min(FRAMES_AT_ONCE, len(works), MEMORY_B // max(1, held_b))
    if at_once <= 1:
        made = [work() for work in works]
    else:
        threads = Threads(at_once, "rs-embed-frame")
        try:
            made = [awaited(one) for one in [threads.submit(work) for work in works]]
        finally:
            threads.close()
    findings = Findings()
    for one in makers:
        findings.add(one.findings)
    return [frame for frame in made if frame is not None], findings


def _strips(geobox: GeoBox, rows: int) -> list[GeoBox]:
    """Split a grid into strips of `rows` rows."""
    height, width = geobox.shape
    if rows >= height:
        return [geobox]
    edges = [*range(0, int(height), rows), int(height)]
    return [subgrid(geobox, (top, 0), 1, (bottom - top, int(width))) for top, bottom in pairwise(edges)]
