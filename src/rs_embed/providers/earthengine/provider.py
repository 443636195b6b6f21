"""Google Earth Engine as a provider: the exact grid, one request of pixels per chip."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from google.auth.credentials import Credentials
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip
from rs_embed.core.specs import SensorSpec
from rs_embed.core.stopping import apart
from rs_embed.errors import (
    ComputationTimedOut,
    NoImagery,
    QuotaExceeded,
    ReadError,
    RequestTooLarge,
    ServiceUnavailable,
)
from rs_embed.providers.base import Query, Rebuilt
from rs_embed.providers.common.absence import no_days, no_place, only_nodata
from rs_embed.providers.common.limiter import shared_limiter
from rs_embed.providers.common.retry import Waits
from rs_embed.providers.common.series import mean_time
from rs_embed.providers.earthengine.absence import elsewhen, why_no_imagery
from rs_embed.providers.earthengine.archives import Target, archive_of, conditions_of
from rs_embed.providers.earthengine.notes import source_of
from rs_embed.providers.earthengine.pixels import in_units
from rs_embed.providers.earthengine.scenes import ArchivedScene, SceneCache, in_days, plan_frames
from rs_embed.providers.earthengine.session import Account, completed, url_of
from rs_embed.providers.earthengine.settings import EarthEngineSettings
from rs_embed.redact import logger

if TYPE_CHECKING:
    from rs_embed.providers.earthengine.service import Service

__all__ = ["EarthEngine"]
LOG = logger("rs_embed.providers")


class EarthEngine(Rebuilt):
    """Imagery from Google Earth Engine. Safe to call from several threads.

    Creating one sends no request. Limits and connections are shared by all providers of the same account in this
    process. An Earth Engine client (`ee`) that you use yourself is not affected.

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
        """Configure the backend; anything left out is read from `RS_EMBED_GEE_*`, or else has its default.

        Args:
            project: Cloud project that requests are billed to; by default, the one that the credentials name.
            host: "highvolume" (default; for many small requests), "standard", or a URL.
            credentials: A google-auth object, "auto" (the token of `earthengine authenticate`, then application
                default credentials), or "none" for an endpoint that needs none.
            service_account: Path of a service account's key file, instead of `credentials`.
            concurrency: Largest number of requests at the same time in this process (a project has 40, shared by all).
            qps: Largest number of requests started per second.
            timeout_s: Time limit of one request, seconds.
            total_s: Time after which a request is not tried again, seconds.
            provenance: False saves one request per chip if pixels do not need the list of scenes (median and mean of
                one window). Scene ids, dates and counts are then unknown, as they are when that request fails.
            cloud_score: For `cloud_mask="cs+"`: the lowest score of a clear pixel.
            resampling: Resampling of bands coarser than the grid; "auto" means bilinear for heights and Sentinel-3,
                else nearest.
            waits: Back-off, clock and sleep of the retries.

        Raises:
            KnobError: A setting is invalid.
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
        self._made: Service | None = None

    def identity(self) -> str:
        """Return what determines the pixels besides the query. All accounts see the same archive."""
        return f"gee:1 resampling={self._settings.resampling} cloud_score={self._settings.cloud_score:g}"

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; also checks for credentials and a project.

        Raises:
            SensorNotOffered: Earth Engine does not have that collection.
            NotConfigured: There are no credentials, or no project.
        """
        archive_of(sensor)
        completed(self._account)

    def native_geobox(self, query: Query) -> GeoBox:
        """Raise `SpecError`: Earth Engine covers the Earth, so a place must be given.

        Raises:
            SpecError: Always.
        """
        raise no_place("Earth Engine")

    def account(self) -> str:
        """Describe the host, project and credentials, without sending a request.

        Raises:
            NotConfigured: There are no credentials, or no project.
        """
        return completed(self._account).described

    def check(self) -> str:
        """Compute one pixel to test the connection, and describe the account that did it.

        Raises:
            ProviderError: It failed; the error says why.
        """
        apart(self._service().ping)
        return self.account()

    def fetch(self, query: Query) -> Chip:
        """Return the chip; see `Provider`. Sends two requests: one for the list of scenes (cached), one for the pixels.

        Raises:
            SensorNotOffered: Earth Engine does not have the collection.
            SpecError: The place is missing, or the window, for a dated collection.
            NoImagery: No scene in the window passes the filters.
            OutsideCoverage: The collection has nothing at this place.
            NoValidPixels: Every pixel of the scenes is nodata on the grid.
            ProviderError: Earth Engine could not, or would not, answer; one class per reason.
        """
        return apart(lambda: self._fetched(query))

    def _fetched(self, query: Query) -> Chip:
        target, service = self._place(query), self._service()
        scenes, unlisted = self._scenes(service, target, query)
        frames = plan_frames(query, target.archive, scenes)
        try:
            stored = service.pixels(target, frames)
        except (NoImagery, ReadError):  # perhaps because there were no scenes, if there was no list
            nothing = None if scenes or unlisted else why_no_imagery(service, target, query.window)
            if nothing is None:
                raise
            raise nothing from None
        values = np.stack([in_units(one[:-1], query.sensor, target.archive) for one in stored])
        valid = [i for i, one in enumerate(values) if np.isfinite(one).any()]
        if not valid:
            raise only_nodata(query.sensor, target.geobox, len(scenes) or None, elsewhen(target))
        frames = [frames[i] for i in valid]
        source = source_of(query, target.archive, frames, float(stored[valid, -1].mean()), unlisted)
        times = tuple(mean_time([scene.time for scene in frame.scenes]) for frame in frames)
        return Chip(values[valid], bands_of(query.sensor.collection, query.sensor.bands), target.geobox, times, source)

    def _place(self, query: Query) -> Target:
        if query.geobox is None:
            raise no_place("Earth Engine")
        target = Target(query.sensor, query.geobox)
        if target.archive.dated and query.window is None:
            raise no_days("Earth Engine", query.sensor.collection, annual=target.archive.annual)
        return target

    def _service(self) -> "Service":
        """Created when first needed: the client is slow to import. Two threads may create two that share all state."""
        if self._made is None:
            account, settings = completed(self._account), self._settings
            from rs_embed.providers.earthengine.expressions import PixelOptions
            from rs_embed.providers.earthengine.service import Service

            limiter = shared_limiter(account.name, settings.concurrency, settings.qps)
            resampling = None if settings.resampling == "auto" else settings.resampling
            self._made = Service(account, limiter, self._waits, PixelOptions(settings.cloud_score, resampling))
        return self._made

    def _scenes(self, service: "Service", target: Target, query: Query) -> tuple[list[ArchivedScene], str | None]:
        """The scenes to make pixels from, if they are needed, and the reason if the request for their list failed."""
        needed = target.archive.radiance or query.series is not None or _picks_scenes(query)
        if not target.archive.dated or not (self._settings.provenance or needed):
            return [], None
        try:
            return self._listed(service, target, query), None
        except _UNANSWERED as error:
            if needed:
                raise
            LOG.warning("%s Pixels of %s come without the list of scenes.", error.headline, target.sensor.collection)
            return [], error.headline

    def _listed(self, service: "Service", target: Target, query: Query) -> list[ArchivedScene]:
        """The scenes that meet the conditions of the sensor, in order of time; at least one."""
        picks = _picks_scenes(query)
        key = f"{target.archive.asset} {query.window} {target.geobox} {query.sensor if picks else ''}"
        listed = self._kept.get(key)
        if listed is None:
            listed = tuple(in_days(service.scenes(target, query.window, measured=picks), target.archive, query.window))
            self._kept.put(key, listed)
        conditions = conditions_of(query.sensor)
        scenes = [scene for scene in listed if all(condition.met_by(scene.properties) for condition in conditions)]
        if not scenes:
            nothing = why_no_imagery(service, target, query.window, None if picks else listed)
            if nothing is not None:
                raise nothing
        return scenes


_UNANSWERED = (ServiceUnavailable, QuotaExceeded, ComputationTimedOut, RequestTooLarge, ReadError)
"""Errors that may affect the list of scenes but not the pixels."""


def _picks_scenes(query: Query) -> bool:
    """Whether single scenes are chosen, for which they must be measured."""
    if archive_of(query.sensor).annual:
        return False
    by_scene = query.series is not None and query.series.sampling == "scenes"
    return by_scene or query.sensor.composite in ("first", "mosaic")
