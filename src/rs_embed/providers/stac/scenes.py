"""Read single scenes on a grid: several files at a time, made 0-based, with clouds masked."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import bands_of
from rs_embed.core.specs import SensorSpec
from rs_embed.core.stopping import Threads
from rs_embed.errors import ProviderError, ReadError, SensorNotOffered
from rs_embed.providers.common.conditions import CLEAR_SCL
from rs_embed.providers.common.plausible import Pixels
from rs_embed.providers.rasters.raster import Take
from rs_embed.providers.stac.catalogs import StacCollection
from rs_embed.providers.stac.files import Files, Resampler, bilinear, nearest, sampled
from rs_embed.providers.stac.items import CatalogItem
from rs_embed.providers.stac.offset import Offset, decide, doubts
from rs_embed.providers.stac.waiting import awaited

Waiting = Callable[[], Pixels]
"""Waits for pixels and returns them, `[C, H, W]`, NaN where nodata or masked."""


@dataclass
class Findings:
    """What reading scenes reveals about them."""

    offsets: dict[str, Offset] = field(default_factory=dict)
    """Item id -> the offset of its bands."""
    doubts: dict[str, str] = field(default_factory=dict)
    """Item id -> how the pixels contradict its metadata."""
    missing: dict[str, ProviderError] = field(default_factory=dict)
    """Item id -> why it was left out: a file is missing or broken."""
    notes: list[str] = field(default_factory=list)
    """What looks wrong in a frame."""
    unread: int = 0
    """Number of passes not read, because enough others were clear."""
    lock: Lock = field(default_factory=Lock)

    def add(self, later: "Findings") -> None:
        """Add the findings of a later frame."""
        self.offsets |= later.offsets
        self.doubts |= {scene: text for scene, text in later.doubts.items() if scene not in self.doubts}
        self.missing |= {scene: why for scene, why in later.missing.items() if scene not in self.missing}
        self.notes += later.notes
        self.unread += later.unread


@dataclass(frozen=True)
class _Reading:
    """A file that is being read."""

    asset: str
    places: list[int]
    """Positions of its bands among the requested ones."""
    coming: "Future[Pixels | None]"


class SceneReader:
    """Reads the items of one collection for one sensor.

    Args:
        files: Reads windows of files.
        threads: Number of files read at the same time.
        sensor: Determines bands and mask.
        collection: Determines the assets of the bands.
        offset: Added to stored Sentinel-2 DN, whatever the metadata state; `None` means that the metadata decide.
        skip: Whether a scene with a missing or broken file counts as having no valid pixel, or is an error.
    """

    def __init__(
        self,
        files: Files,
        threads: Threads,
        sensor: SensorSpec,
        collection: StacCollection,
        offset: float | None,
        *,
        skip: bool = False,
    ) -> None:
        self._files, self._threads = files, threads
        self._sensor, self._collection, self._offset, self._skip = sensor, collection, offset, skip
        self._bands = bands_of(sensor.collection, sensor.bands)
        self.findings: Findings = Findings()

    def start(self, item: CatalogItem, geobox: GeoBox) -> Waiting:
        """Start to read all bands of an item."""
        whole = any(band.unit.kept_whole for band in self._bands)
        resampling = sampled if whole else bilinear if self._collection.smooth else nearest
        return self._start(item, geobox, len(self._bands), resampling, check=True)

    def look(self, item: CatalogItem, geobox: GeoBox) -> Waiting:
        """Start to read only the first band, to find clear pixels."""
        return self._start(item, geobox, 1, sampled, check=False)

    def _start(self, item: CatalogItem, geobox: GeoBox, count: int, resampling: Resampler, *, check: bool) -> Waiting:
        by_asset: dict[str, list[tuple[int, int]]] = {}
        for place, band in enumerate(self._bands[:count]):
            asset, _, index = self._collection.assets[band.name].partition(":")
            by_asset.setdefault(asset, []).append((place, int(index or 1)))
        zero = self._collection.nodata == 0
        reading: list[_Reading] = []
        for asset, wanted in by_asset.items():
            indexes = tuple(index for _, index in wanted)
            take = Take(indexes, self._collection.nodata, "nodata" if zero else "value", resampling)
            reading.append(self._submit(item, asset, geobox, take, [place for place, _ in wanted]))
        mask = None
        if self._sensor.cloud_mask == "scl" and self._collection.mask is not None:
            mask = self._submit(item, self._collection.mask, geobox, Take((1,), resampling=sampled), [])

        def waiting() -> Pixels:
            values = np.full((count, *geobox.shape), np.nan, np.float32)
            for one in reading:
                found = self._brought(item, one)
                if found is not None:
                    values[one.places] = found
            classes = None if mask is None else self._brought(item, mask)
            if item.id in self.findings.missing:
                return np.full_like(values, np.nan)  # the whole scene: bands must not come from different scenes
            self._calibrate(values, item, check=check)
            if mask is not None:
                clear = np.zeros(geobox.shape, bool) if classes is None else np.isin(classes[0], CLEAR_SCL)
                values[:, ~clear] = np.nan
            return values

        return waiting

    def _submit(self, item: CatalogItem, asset: str, geobox: GeoBox, take: Take, places: list[int]) -> "_Reading":
        return _Reading(asset, places, self._threads.submit(self._files.read, item.assets[asset], geobox, take))

    def _brought(self, item: CatalogItem, one: "_Reading") -> Pixels | None:
        """The pixels of a file; `None` if reading failed permanently and such scenes are left out."""
        try:
            return awaited(one.coming)
        except (ReadError, SensorNotOffered) as error:  # missing or broken; any other failure may be temporary
            error.facts = {"scene": item.id, "asset": one.asset, **error.facts}
            if not self._skip:
                raise
            with self.findings.lock:
                self.findings.missing.setdefault(item.id, error)
            return None

    def _calibrate(self, values: Pixels, item: CatalogItem, *, check: bool) -> None:
        """Convert stored numbers to those that are composited, in place."""
        if self._collection.offset != "none":
            offset = self._decided(item)
            doubt = doubts(values, offset, item.properties, item.id) if check else None
            with self.findings.lock:
                self.findings.offsets[item.id] = offset
                if doubt is not None:
                    self.findings.doubts.setdefault(item.id, doubt)
            values += np.float32(offset.dn)
        for plane, band in zip(values, self._bands, strict=False):
            factor, constant = self._collection.scale.get(band.name, (band.scale, band.offset))
            if (factor, constant) != (1, 0):
                np.multiply(plane, np.float32(factor), out=plane)
                np.add(plane, np.float32(constant), out=plane)

    def _decided(self, item: CatalogItem) -> Offset:
        """The offset of an item; ESA's is the same for all bands."""
        if self._offset is not None:
            return Offset(self._offset, "as said by Stac(offset=...)")
        asset = item.assets[self._collection.assets[self._bands[0].name].partition(":")[0]]
        return decide(self._collection.offset, item.properties, asset.scale, item.id)
