"""Google Earth Engine as a provider: the exact grid, one request of pixels per chip."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
from google.auth.credentials import Credentials
from odc.geo.geobox import GeoBox

from rs_embed.bands import bands_of
from rs_embed.chip import Chip, Source
from rs_embed.errors import NoImagery, NoValidPixels, OutsideCoverage, ReadError, SpecError
from rs_embed.providers._ee_archives import Place, archive_of, conditions_of
from rs_embed.providers._ee_notes import notes_of
from rs_embed.providers._ee_pixels import in_units
from rs_embed.providers._ee_scenes import FramePlan, Scene, SceneCache, plan_frames
from rs_embed.providers._ee_session import Account, completed, url_of
from rs_embed.providers._grids import in_degrees
from rs_embed.providers._limiter import shared_limiter
from rs_embed.providers._retry import Waits
from rs_embed.providers._series import mean_time
from rs_embed.providers.base import Query, Rebuilt
from rs_embed.settings import EarthEngineSettings
from rs_embed.specs import SensorSpec, TemporalSpec

if TYPE_CHECKING:
    from rs_embed.providers._ee_service import Service

__all__ = ["EarthEngine"]


class EarthEngine(Rebuilt):
    """Imagery from Google Earth Engine. Safe to call from several threads.

    Building one asks nothing of anybody. Limits, retries and the client itself are shared by all of the process.

    Example:
        >>> EarthEngine()                                                # doctest: +SKIP
        >>> EarthEngine(project="my-project", host="standard")           # doctest: +SKIP
        >>> EarthEngine(service_account="key.json", concurrency=10)      # doctest: +SKIP
    """

    name = "gee"

    def __init__(
        self,
        project: str | None = None,
        *,
        host: str | None = None,
        credentials: Credentials | Literal["auto", "none"] = "auto",
        service_account: str | Path | None = None,
        concurrency: int | None = None,
        qps: float | None = None,
        timeout_s: float | None = None,
        total_s: float | None = None,
        provenance: bool | None = None,
        cloud_score: float | None = None,
        resampling: Literal["auto", "nearest", "bilinear"] | None = None,
        waits: Waits = Waits(),
    ) -> None:
        """Take the settings; what is left out is read from `RS_EMBED_GEE_*`, and then has its default.

        Args:
            project: Cloud project that requests are counted on; by default what the credentials name.
            host: "highvolume" (default; made for many small requests), "standard", or a URL.
            credentials: A google-auth object, "auto" (the token of `earthengine authenticate`, then application
                default credentials), or "none" for an endpoint without.
            service_account: Key file of a service account, instead.
            concurrency: Requests at the same time, at most, in this process (a project has 40, shared by all).
            qps: Requests started per second, at most.
            timeout_s: Seconds that one request may take.
            total_s: Seconds after which a request is not tried again.
            provenance: False saves one request per chip where pixels need no list of scenes (median and mean of
                one window): scene ids, dates and counts are then not known.
            cloud_score: For `cloud_mask="cs+"`: a pixel is clear from this score on.
            resampling: Of bands coarser than the grid; "auto": bilinear for heights and Sentinel-3, else nearest.
            waits: Back-off, clock and sleep of the retries.

        Raises:
            KnobError: A setting has a bad value.
            NotConfigured: There is no such host.
        """
        self._settings = EarthEngineSettings.read(
            {
                "project": project,
                "host": host,
                "service_account": service_account,
                "concurrency": concurrency,
                "qps": qps,
                "timeout_s": timeout_s,
                "total_s": total_s,
                "provenance": provenance,
                "cloud_score": cloud_score,
                "resampling": resampling,
            }
        )
        settings = self._settings
        self._account = Account(
            url_of(settings.host),
            settings.project,
            credentials,
            settings.service_account,
            settings.timeout_s,
        )
        self._waits = replace(waits, backoff=replace(waits.backoff, total_s=settings.total_s))
        self._kept = SceneCache()
        self._lock = Lock()
        self._made: Service | None = None

    def identity(self) -> str:
        """What decides the pixels, beside the query. Not the account: all see the same archive."""
        return f"gee:1 resampling={self._settings.resampling} cloud_score={self._settings.cloud_score:g}"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; also that there are credentials and a project.

        Raises:
            SensorNotOffered: Earth Engine does not have that collection.
            NotConfigured: There are no credentials, or no project.
        """
        archive_of(sensor)
        completed(self._account)

    def native_geobox(self, query: Query) -> GeoBox:
        """There is none: Earth Engine covers the Earth.

        Raises:
            SpecError: Always.
        """
        raise _no_place()

    def account(self) -> str:
        """Whom and what it would ask, in words; asks nothing.

        Raises:
            NotConfigured: There are no credentials, or no project.
        """
        return completed(self._account).described

    def check(self) -> str:
        """Have one pixel computed; who did it, in words.

        Raises:
            ProviderError: It could not be done, and why.
        """
        self._service().ping()
        return self.account()

    def fetch(self, query: Query) -> Chip:
        """The chip; see `Provider`. Two requests: the list of scenes (kept), and the pixels.

        Raises:
            SensorNotOffered: Earth Engine does not have that collection.
            SpecError: No place, or no days for a collection that has some.
            NoImagery: No scene in the window passes the filters.
            OutsideCoverage: The collection has nothing there at all.
            NoValidPixels: There are scenes, with only nodata on the grid.
            ProviderError: Earth Engine could not, or would not, answer; one class per reason.
        """
        place, service = self._place(query), self._service()
        scenes = self._scenes(service, place, query) if self._wants_scenes(query, place) else []
        frames = plan_frames(query, place.archive, scenes)
        try:
            stored = service.pixels(place, frames)
        except (NoImagery, ReadError):  # perhaps of nothing to compute with, where no list was asked for
            nothing = None if scenes else self._nothing(service, place, query.window)
            if nothing is None:
                raise
            raise nothing from None
        values = np.stack([in_units(one[:-1], query.sensor, place.archive) for one in stored])
        valid = [i for i, one in enumerate(values) if np.isfinite(one).any()]
        if not valid:
            raise NoValidPixels(
                f"Wanted at least one valid pixel of {query.sensor.collection}, found only nodata.",
                where=in_degrees(place.geobox),
                scenes=len(scenes) or None,
                fix=_elsewhen(place) + ("" if query.sensor.cloud_mask == "none" else ', or use cloud_mask="none"'),
            )
        frames = [frames[i] for i in valid]
        source = _source(query, place, frames, float(stored[valid, -1].mean()))
        times = tuple(mean_time([scene.time for scene in frame.scenes]) for frame in frames)
        return Chip(values[valid], bands_of(query.sensor.collection, query.sensor.bands), place.geobox, times, source)

    def _place(self, query: Query) -> Place:
        if query.geobox is None:
            raise _no_place()
        place = Place(query.sensor, query.geobox)
        if place.archive.dated and query.window is None:
            raise SpecError(
                f"Wanted days for {query.sensor.collection}, found none: Earth Engine holds years of it.",
                fix=f"for example temporal=TemporalSpec.{_DAYS[place.archive.annual]}",
            )
        return place

    def _service(self) -> "Service":
        """Made once, when it is first needed: the client is slow to import."""
        with self._lock:
            if self._made is None:
                account, settings = completed(self._account), self._settings
                from rs_embed.providers._ee_expressions import Options
                from rs_embed.providers._ee_service import Service

                limiter = shared_limiter(account.name, settings.concurrency, settings.qps)
                resampling = None if settings.resampling == "auto" else settings.resampling
                self._made = Service(account, limiter, self._waits, Options(settings.cloud_score, resampling))
            return self._made

    def _wants_scenes(self, query: Query, place: Place) -> bool:
        """Whether the list of scenes is asked for: always, where the pixels depend on it."""
        archive = place.archive
        return archive.dated and (
            self._settings.provenance or query.series is not None or archive.radiance or _picks_scenes(query)
        )

    def _scenes(self, service: "Service", place: Place, query: Query) -> list[Scene]:
        """The scenes that meet the conditions of the sensor, in order of time; one or more."""
        picks = _picks_scenes(query)
        key = f"{place.archive.asset} {query.window} {place.geobox} {query.sensor if picks else ''}"
        told = self._kept.get(key)
        if told is None:
            told = tuple(service.scenes(place, query.window, measured=picks))
            self._kept.put(key, told)
        conditions = conditions_of(query.sensor)
        scenes = [scene for scene in told if all(condition.met_by(scene.told) for condition in conditions)]
        if not scenes:
            nothing = self._nothing(service, place, query.window, None if picks else told)
            if nothing is not None:
                raise nothing
        return scenes

    def _nothing(
        self,
        service: "Service",
        place: Place,
        window: TemporalSpec | None,
        told: Sequence[Scene] | None = None,
    ) -> NoImagery | OutsideCoverage | None:
        """Why there is no imagery, if there is none; asks what is not known yet (`told`: all scenes in the window)."""
        told = service.scenes(place, window, measured=False) if told is None else told
        if not told and not (place.archive.dated and service.any_scene(place)):
            return OutsideCoverage(
                f"Wanted {place.sensor.collection} at {in_degrees(place.geobox)}, found that it has nothing there.",
                fix="ask for another place or another collection",
            )
        left, scenes = list(told), [f"{len(told)} in the window"]
        for condition in conditions_of(place.sensor):
            left = [scene for scene in left if condition.met_by(scene.told)]
            scenes.append(f"{len(left)} {condition.name}")
        if left:
            return None
        return NoImagery(
            f"Wanted {place.sensor.collection} {_days(window)}, found no scene to make pixels of.",
            where=in_degrees(place.geobox),
            scenes=", of these ".join(scenes),
            fix=_elsewhen(place),
        )


def _elsewhen(place: Place) -> str:
    return "ask for another year or place" if place.archive.annual else "widen the window or raise cloudy_pct"


_DAYS = {False: 'range("2022-06-01", "2022-09-01")', True: "year(2022)"}


def _no_place() -> SpecError:
    return SpecError(
        "Wanted a place, found none: Earth Engine covers the Earth.",
        fix="for example spatial=PointBuffer(lon=12.94, lat=47.77, buffer_m=1000)",
    )


def _days(window: TemporalSpec | None) -> str:
    return "of any day" if window is None else f"from {window.start} up to {window.end}"


def _picks_scenes(query: Query) -> bool:
    """Whether single scenes are chosen, for which they must be measured."""
    if archive_of(query.sensor).annual:
        return False
    by_scene = query.series is not None and query.series.sampling == "scenes"
    return by_scene or query.sensor.composite in ("first", "mosaic")


def _source(query: Query, place: Place, frames: Sequence[FramePlan], clear_observations: float) -> Source:
    scenes = [scene for frame in frames for scene in frame.scenes]
    return Source(
        provider=EarthEngine.name,
        collection=query.sensor.collection,
        scene_ids=tuple(scene.id for scene in scenes),
        scene_times=tuple(scene.time for scene in scenes),
        scenes_per_frame=tuple(len(frame.scenes) for frame in frames) if scenes else (),
        offset_applied=0.0 if query.sensor.collection.startswith("COPERNICUS/S2") else None,
        notes=notes_of(query, place.archive, scenes),
        clear_observations=clear_observations,
    )
