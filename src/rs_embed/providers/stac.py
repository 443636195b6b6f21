"""STAC catalogues as a provider: imagery without an account, read window by window from files on the web."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed._optional import require
from rs_embed.bands import bands_of
from rs_embed.chip import Chip, Source
from rs_embed.errors import NoImagery, NoValidPixels, OutsideCoverage, PixelWarning, SpecError, warn
from rs_embed.providers._grids import in_degrees
from rs_embed.providers._limiter import shared_limiter
from rs_embed.providers._passes import passes_of
from rs_embed.providers._retry import Backoff, Retry, Waits
from rs_embed.providers._series import frame_slots, mean_time
from rs_embed.providers._stac_catalogs import StacCatalog, StacCollection, catalog_of, conditions_of
from rs_embed.providers._stac_files import FileJudge, Files
from rs_embed.providers._stac_frames import Frame, Frames, Pass
from rs_embed.providers._stac_items import Item
from rs_embed.providers._stac_notes import notes_of
from rs_embed.providers._stac_scenes import Findings, SceneReader
from rs_embed.providers.base import Query, Rebuilt
from rs_embed.settings import StacSettings
from rs_embed.specs import Composite, SensorSpec

__all__ = ["Stac", "StacCatalog", "StacCollection"]


class Stac(Rebuilt):
    """Imagery from a STAC catalogue. Safe to call from several threads.

    Building one asks nothing of anybody. Limits, searches and open files are shared by all of the process.

    Example:
        >>> Stac()                                                       # doctest: +SKIP
        >>> Stac("planetary-computer", max_scenes=6)                     # doctest: +SKIP
        >>> Stac(StacCatalog("https://stac.example/v1", mapping={...}))  # doctest: +SKIP
    """

    name = "stac"

    def __init__(
        self,
        catalog: str | StacCatalog | None = None,
        *,
        max_scenes: int | None = None,
        offset: float | None = None,
        concurrency: int | None = None,
        timeout_s: float | None = None,
        total_s: float | None = None,
        max_items: int | None = None,
        cache_mb: int | None = None,
        waits: Waits = Waits(Backoff(first_s=0.5, longest_s=30.0)),
    ) -> None:
        """Take the settings; what is left out is read from `RS_EMBED_STAC_*`, and then has its default.

        Args:
            catalog: "earth-search" (default), "earth-search-c1", "planetary-computer", or a `StacCatalog`.
            max_scenes: A median or mean takes no more passes, least cloud first, once the chip was seen clear so
                often.
            offset: Added to stored Sentinel-2 DN to make them 0-based, whatever the catalogue says of it.
            concurrency: Files read at the same time.
            timeout_s: Seconds that one request may take.
            total_s: Seconds after which a request is not tried again.
            max_items: More items than this in one window are refused.
            cache_mb: Memory for what was read, in the whole process; the first to read decides.
            waits: Back-off, clock and sleep of the retries.

        Raises:
            MissingDependency: The extra `stac` is not installed.
            KnobError: A setting has a bad value.
            NotConfigured: There is no such catalogue.
        """
        require("pystac_client", extra="stac")
        from rs_embed.providers._stac_search import Search, SearchJudge

        self._settings = settings = StacSettings.read(
            {
                "catalog": None if isinstance(catalog, StacCatalog) else catalog,
                "max_scenes": max_scenes,
                "offset": offset,
                "concurrency": concurrency,
                "timeout_s": timeout_s,
                "total_s": total_s,
                "max_items": max_items,
                "cache_mb": cache_mb,
            }
        )
        self._catalog = catalog if isinstance(catalog, StacCatalog) else catalog_of(settings.catalog)
        waits = replace(waits, backoff=replace(waits.backoff, total_s=settings.total_s))
        site = urlsplit(self._catalog.url).netloc
        searching = Retry(SearchJudge(), shared_limiter(f"stac {site}", settings.concurrency, None), waits)
        reading = Retry(
            FileJudge(self._catalog.signer), shared_limiter(f"files {site}", settings.concurrency, None), waits
        )
        self._search: Search = Search(self._catalog.url, searching, settings.timeout_s, settings.max_items)
        self._files = Files(self._catalog.signer, reading, settings.timeout_s, settings.cache_mb)
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="rs-embed-stac")
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def identity(self) -> str:
        """What decides the pixels, beside the query."""
        settings = self._settings
        catalog = self._catalog.name or f"{self._catalog.url} {dict(self._catalog.mapping)}"
        return f"stac:1 {catalog} max_scenes={settings.max_scenes} offset={settings.offset}"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; asks nothing.

        Raises:
            SensorNotOffered: The catalogue does not have that collection, or a band of it.
        """
        self._catalog.held(sensor)

    def native_geobox(self, query: Query) -> GeoBox:
        """There is none: catalogues cover the Earth.

        Raises:
            SpecError: Always.
        """
        raise _no_place()

    def described(self) -> str:
        """What it would ask, in words; asks nothing."""
        return f"{self._catalog.name or 'a catalogue of yours'}, {self._catalog.url}"

    def check(self) -> str:
        """Ask the catalogue for its landing page; what it calls itself.

        Raises:
            ProviderError: It did not answer, and why.
        """
        return self._search.title()

    def fetch(self, query: Query) -> Chip:
        """The chip; see `Provider`. One search per area and window, then the windows of the files.

        Raises:
            SensorNotOffered: The catalogue does not have that collection, or a band of it.
            SpecError: No place, or no days for a collection that has some.
            NoImagery: No scene in the window meets the conditions of the sensor.
            OutsideCoverage: The collection has nothing there.
            NoValidPixels: There are scenes, with only nodata on the grid.
            ProviderError: The catalogue could not, or would not, answer; one class per reason.
        """
        held, sensor = self._catalog.held(query.sensor), query.sensor
        if query.geobox is None:
            raise _no_place()
        if held.dated and query.window is None:
            raise SpecError(
                f"Wanted days for {sensor.collection}, found none: the catalogue holds years of it.",
                fix='for example temporal=TemporalSpec.range("2022-06-01", "2022-09-01")',
            )
        items = self._items(query, query.geobox, held)
        reader = SceneReader(self._files, self._threads, sensor, held, self._settings.offset)
        frames = Frames(reader, sensor, held, self._settings.max_scenes)
        made = [
            frame
            for how, passes in _planned(query, held, items)
            if (frame := frames.frame(passes, how, query.geobox)) is not None
        ]
        if not made:
            raise NoValidPixels(
                f"Wanted at least one valid pixel of {sensor.collection}, found only nodata.",
                where=in_degrees(query.geobox),
                scenes=len(items),
                fix=_WIDEN + ("" if sensor.cloud_mask == "none" else ', or use cloud_mask="none"'),
            )
        self._warn(reader.findings)
        times = tuple(mean_time([item.time for item in frame.used]) if held.dated else None for frame in made)
        source = self._source(query, held, made, reader.findings)
        values = np.stack([frame.values for frame in made])
        return Chip(values, bands_of(sensor.collection, sensor.bands), query.geobox, times, source)

    def _items(self, query: Query, geobox: GeoBox, held: StacCollection) -> list[Item]:
        """The items that touch the grid and meet the conditions of the sensor, in order of time; one or more."""
        listed = self._search.items(held, geobox, query.window)
        left = [item for item in listed if item.touches(geobox)]
        if not left and not held.dated:
            raise OutsideCoverage(
                f"Wanted {query.sensor.collection} at {in_degrees(geobox)}, found that it has nothing there.",
                fix="ask for another place or another collection",
            )
        counted = [f"{len(left)} in the window"]
        for condition in conditions_of(query.sensor, held):
            left = [item for item in left if condition.met_by(item.told)]
            counted.append(f"{len(left)} {condition.name}")
        assets = {held.assets[band].partition(":")[0] for band in query.sensor.bands}
        assets |= {held.mask} if query.sensor.cloud_mask == "scl" and held.mask else set()
        left = [item for item in left if assets <= set(item.assets)]
        counted.append(f"{len(left)} with all files")
        if not left:
            window = query.window
            days = "of any day" if window is None else f"from {window.start} up to {window.end}"
            raise NoImagery(
                f"Wanted {query.sensor.collection} {days}, found no scene to make pixels of.",
                where=in_degrees(geobox),
                scenes=", of these ".join(counted),
                fix=_WIDEN,
            )
        return left

    def _warn(self, findings: Findings) -> None:
        """Say once per scene what speaks against its metadata."""
        for scene, doubt in findings.doubts.items():
            with self._lock:
                new = scene not in self._warned
                self._warned.add(scene)
            if new:
                warn(doubt, PixelWarning)

    def _source(self, query: Query, held: StacCollection, frames: Sequence[Frame], findings: Findings) -> Source:
        used = [item for frame in frames for item in frame.used]
        offsets = {findings.offsets[item.id].dn for item in used if item.id in findings.offsets}
        return Source(
            provider=self.name,
            collection=query.sensor.collection,
            scene_ids=tuple(item.id for item in used),
            scene_times=tuple(item.time for item in used) if held.dated else (),
            scenes_per_frame=tuple(len(frame.used) for frame in frames),
            offset_applied=offsets.pop() if len(offsets) == 1 else None,
            notes=notes_of(query, self._catalog, held, used, findings),
            clear_observations=float(np.mean([frame.observations for frame in frames])),
        )


_WIDEN = "widen the window or raise cloudy_pct"


def _no_place() -> SpecError:
    return SpecError(
        "Wanted a place, found none: the catalogue covers the Earth.",
        fix="for example spatial=PointBuffer(lon=12.94, lat=47.77, buffer_m=1000)",
    )


def _planned(query: Query, held: StacCollection, items: Sequence[Item]) -> list[tuple[Composite, list[Pass]]]:
    """What each frame is made of, in order of time."""
    if not held.dated:
        return [("mosaic", [(item,) for item in items])]
    passes = passes_of(items)
    if query.series is None:
        return [(query.sensor.composite, passes)]
    slots = frame_slots([one[0].time for one in passes], query.window, query.series)
    how: Composite = "first" if query.series.sampling == "scenes" else query.sensor.composite
    return [(how, [passes[i] for i in slot]) for slot in slots]
