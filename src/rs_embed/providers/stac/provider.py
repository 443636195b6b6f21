"""STAC catalogues as a provider: imagery without an account, read window by window from files on the web."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.core.optional import require
from rs_embed.core.specs import Composite, SensorSpec
from rs_embed.core.stopping import PerProcess, Stop, Threads, current
from rs_embed.errors import PixelWarning, warn
from rs_embed.providers.base import Query, Rebuilt
from rs_embed.providers.common.absence import no_days, no_place, only_nodata
from rs_embed.providers.common.limiter import shared_limiter
from rs_embed.providers.common.passes import passes_of
from rs_embed.providers.common.retry import Backoff, Retry, Waits
from rs_embed.providers.common.series import frame_slots, mean_time
from rs_embed.providers.stac.access import Access, OpenAccess, Opened, S3Access
from rs_embed.providers.stac.catalogs import StacCatalog, StacCollection, catalog_of
from rs_embed.providers.stac.files import Files
from rs_embed.providers.stac.frames import Frames, Pass, StacFrame, frames_made
from rs_embed.providers.stac.http import Credentials, Http
from rs_embed.providers.stac.items import CatalogItem
from rs_embed.providers.stac.judges import FileJudge, HttpJudge
from rs_embed.providers.stac.links import is_local
from rs_embed.providers.stac.notes import left_out, notes_of
from rs_embed.providers.stac.opener import Opener
from rs_embed.providers.stac.scenes import Findings, SceneReader
from rs_embed.providers.stac.selection import Finder, Selection
from rs_embed.providers.stac.settings import StacSettings
from rs_embed.providers.stac.sign import PlanetaryComputerAccess

if TYPE_CHECKING:
    from rs_embed.providers.stac.listed import Items

__all__ = ["Access", "OpenAccess", "Opened", "S3Access", "Stac", "StacCatalog", "StacCollection"]


class _Links:
    """The connections to a catalogue and its files."""

    def __init__(self, catalog: StacCatalog, settings: StacSettings, waits: Waits) -> None:
        site, count = urlsplit(catalog.url).netloc or catalog.url, settings.concurrency
        credentials = Credentials(catalog.headers, frozenset({site, *catalog.hosts}))
        access = catalog.access
        if isinstance(access, PlanetaryComputerAccess):
            access = access.within(settings.timeout_s)
        self.http = Http(settings.timeout_s, credentials, count)
        judge = HttpJudge(f"the STAC catalogue {catalog.title}")
        self.searching = Retry(judge, shared_limiter(f"stac {site}", count, None), waits)
        opener = Opener(access, self.http, credentials, local=is_local(catalog.url))
        reading = Retry(FileJudge(access), shared_limiter(f"files {site}", count, None), waits)
        self.files = Files(opener, reading, settings.timeout_s, settings.cache_mb)


class Stac(Rebuilt):
    """Imagery from a STAC catalogue. Safe to call from several threads.

    Creating one sends no request. Limits, searches and open files are shared within the process.

    Example:
        >>> Stac()                                                       # doctest: +SKIP
        >>> Stac("planetary-computer", max_scenes=6)                     # doctest: +SKIP
        >>> Stac(StacCatalog("https://stac.example/v1", mapping={...}))  # doctest: +SKIP
        >>> Stac("earth-search", items="found.json")                     # doctest: +SKIP
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
        on_missing: Literal["skip", "raise"] | None = None,
        items: "Items | None" = None,
        waits: Waits = Waits(Backoff(first_s=0.5, longest_s=30.0)),
    ) -> None:
        """Configure the backend; anything left out is read from `RS_EMBED_STAC_*`, or else has its default.

        Args:
            catalog: "earth-search" (default), "earth-search-c1", "planetary-computer", "copernicus-dataspace" (with
                S3 keys), or a `StacCatalog`.
            max_scenes: A median or mean reads passes, least cloudy first, until the chip was seen clear this often.
            offset: Added to stored Sentinel-2 DN to make them 0-based, whatever the catalogue states.
            concurrency: Number of files read at the same time.
            timeout_s: Time limit of one request, seconds.
            total_s: Time after which a request is not tried again, seconds.
            max_items: Largest number of items in one window; more are refused.
            cache_mb: Memory for file contents, MB, shared by the whole process; the first read fixes it.
            on_missing: What to do about a scene with a file that is not listed, missing or broken. "skip" (default)
                leaves it out of a composite of several scenes, with a note and a warning; "raise" raises an error. It
                is an error in any case if no scene is left, or if a service does not answer.
            items: Items that you found yourself, instead of a search: a list of them (pystac or dictionaries), an item
                collection, or the path of one (JSON, stac-geoparquet).
            waits: Back-off, clock and sleep of the retries.

        Raises:
            MissingDependency: The extra `stac` is not installed.
            KnobError: A setting is invalid.
            NotConfigured: There is no such catalogue.
            SpecError: `items` are not STAC items.
            ReadError: The file of items does not exist.
        """
        require("pystac_client", extra="stac")
        from rs_embed.providers.stac.listed import Listed, digest_of, given
        from rs_embed.providers.stac.opening import Opening

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
                "on_missing": on_missing,
            }
        )
        self._catalog = catalog = catalog if isinstance(catalog, StacCatalog) else catalog_of(settings.catalog)
        waits = replace(waits, backoff=replace(waits.backoff, total_s=settings.total_s))
        own_items = None if items is None else given(items)
        self._items_given = "" if own_items is None else f" items={digest_of(own_items)}"
        self._links = _Links(catalog, settings, waits)
        self._opening = Opening(catalog, self._links.http, self._links.searching, settings.max_items)
        self._listed = None if own_items is None else Listed.of(own_items)
        self._threads = Threads(settings.concurrency, "rs-embed-stac")
        self._warned: set[str] = set()
        self._lock = PerProcess(threading.Lock)

    def identity(self) -> str:
        """Return what determines the pixels besides the query."""
        settings = self._settings
        catalog = self._catalog.name or f"{self._catalog.url} {dict(self._catalog.mapping)}"
        strict = " on_missing=raise" if settings.on_missing == "raise" else ""
        return f"stac:1 {catalog} max_scenes={settings.max_scenes} offset={settings.offset}{strict}{self._items_given}"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; sends no request.

        Raises:
            SensorNotOffered: The catalogue does not have the collection, or a band of it.
        """
        self._catalog.collection_for(sensor)

    def native_geobox(self, query: Query) -> GeoBox:
        """Raise `SpecError`: catalogues cover the Earth, so a place must be given.

        Raises:
            SpecError: Always.
        """
        raise no_place("the catalogue")

    def described(self) -> str:
        """Describe the catalogue, without sending a request."""
        given = "" if self._listed is None else ", items of your own"
        return f"{self._catalog.name or 'a catalogue of yours'}, {self._catalog.url}{given}"

    def check(self) -> str:
        """Request or read the catalogue's landing page, and return the catalogue's title.

        Raises:
            ProviderError: It did not answer; the error says why.
        """
        return self._finder().title()

    def fetch(self, query: Query) -> Chip:
        """Return the chip; see `Provider`. Searches once per area and window, then reads parts of the files.

        Raises:
            SensorNotOffered: The catalogue does not have the collection, or a band of it.
            SpecError: The place is missing, or the window, for a dated collection.
            NoImagery: No scene in the window meets the conditions of the sensor.
            OutsideCoverage: The collection has nothing at this place.
            NoValidPixels: Every pixel of the scenes is nodata on the grid.
            ReadError: A file is missing or broken, and no other scene is left, or `on_missing` is "raise".
            ProviderError: The catalogue could not, or would not, answer; one class per reason.
            Stopped: The job of this thread was stopped.
        """
        stop = Stop(current())
        try:
            with stop.here():
                return self._fetched(query)
        finally:
            stop.set()  # stop reading the files of a chip that failed

    def _fetched(self, query: Query) -> Chip:
        collection, sensor = self._catalog.collection_for(query.sensor), query.sensor
        if query.geobox is None:
            raise no_place("the catalogue")
        if collection.dated and query.window is None:
            raise no_days("the catalogue", sensor.collection)
        skip = self._settings.on_missing == "skip"
        selected = Selection(self._catalog, self._finder(), skip).selected(query, query.geobox, collection)

        def frames() -> Frames:
            reader = SceneReader(self._links.files, self._threads, sensor, collection, self._settings.offset, skip=skip)
            return Frames(reader, sensor, collection, self._settings.max_scenes)

        made, findings = frames_made(frames, _planned(query, collection, selected.items), query.geobox)
        if not made:
            raise _nothing_valid(query, query.geobox, len(selected.items), findings)
        self._warn(findings)
        times = tuple(mean_time([item.time for item in frame.used]) if collection.dated else None for frame in made)
        source = self._source(query, collection, made, findings, selected.notes)
        values = np.stack([frame.values for frame in made])
        return Chip(values, bands_of(sensor.collection, sensor.bands), query.geobox, times, source)

    def _finder(self) -> Finder:
        return self._listed or self._opening.opened()

    def _warn(self, findings: Findings) -> None:
        """Warn once per scene if its pixels contradict its metadata, or if it was left out."""
        missing = {scene: left_out(scene, why) for scene, why in findings.missing.items()}
        for scene, text in [*findings.doubts.items(), *missing.items()]:
            with self._lock.here:
                new = scene not in self._warned
                self._warned.add(scene)
            if new:
                warn(text, PixelWarning)

    def _source(
        self,
        query: Query,
        collection: StacCollection,
        frames: Sequence[StacFrame],
        findings: Findings,
        left: Sequence[str],
    ) -> Source:
        used = [item for frame in frames for item in frame.used]
        offsets = {findings.offsets[item.id].dn for item in used if item.id in findings.offsets}
        return Source(
            provider=self.name,
            collection=query.sensor.collection,
            scene_ids=tuple(item.id for item in used),
            scene_times=tuple(item.time for item in used) if collection.dated else (),
            scenes_per_frame=tuple(len(frame.used) for frame in frames),
            offset_applied=offsets.pop() if len(offsets) == 1 else None,
            notes=(*notes_of(query, self._catalog, collection, used, findings), *left),
            clear_observations=float(np.mean([frame.observations for frame in frames])),
        )


def _nothing_valid(query: Query, geobox: GeoBox, scenes: int, findings: Findings) -> Exception:
    """The error for a chip without frames: a file is missing, or all pixels are nodata."""
    if len(findings.missing) == scenes:
        return next(iter(findings.missing.values()))
    left = [left_out(scene, why) for scene, why in findings.missing.items()]
    return only_nodata(query.sensor, geobox, scenes, left_out="\n".join(left) if left else None)


def _planned(
    query: Query, collection: StacCollection, items: Sequence[CatalogItem]
) -> list[tuple[Composite, list[Pass]]]:
    """How each frame is composited, and from which passes, in order of time."""
    if not collection.dated:
        return [("mosaic", [(item,) for item in items])]
    passes = passes_of(items)
    if query.series is None:
        return [(query.sensor.composite, passes)]
    slots = frame_slots([one[0].time for one in passes], query.window, query.series)
    how: Composite = "first" if query.series.sampling == "scenes" else query.sensor.composite
    return [(how, [passes[i] for i in slot]) for slot in slots]
