"""Published embeddings as a provider: read from public stores, without an account."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, time

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.bands import COLLECTIONS, bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.core.geo import geobox_for
from rs_embed.core.optional import require
from rs_embed.core.specs import SensorSpec, SpatialSpec, TemporalSpec
from rs_embed.core.stopping import Stop, apart, current
from rs_embed.errors import SensorNotOffered, SpecError
from rs_embed.providers.base import Query, Rebuilt
from rs_embed.providers.common.absence import no_days, no_place, only_nodata
from rs_embed.providers.common.retry import Backoff, Waits
from rs_embed.providers.published.alphaearth import AlphaEarthMosaic
from rs_embed.providers.published.product import Product
from rs_embed.providers.published.settings import PublishedSettings
from rs_embed.providers.published.store import Store
from rs_embed.providers.published.tessera import TesseraStore

_WHO = "the public store"
_FIX = "choose another year or place: oceans and poles have no embeddings"


class PublishedEmbeddings(Rebuilt):
    """Embeddings that others have computed and published: AlphaEarth and TESSERA. Safe to call from several threads.

    Creating one sends no request. Only the chunks under a chip are read; those read last are kept in memory.

    Example:
        >>> PublishedEmbeddings()                                               # doctest: +SKIP
        >>> PublishedEmbeddings(tessera="https://mirror.example/v1.1-dclimate") # doctest: +SKIP
    """

    name = "published"

    def __init__(
        self,
        *,
        alphaearth: str | None = None,
        tessera: str | None = None,
        concurrency: int | None = None,
        timeout_s: float | None = None,
        total_s: float | None = None,
        cache_mb: int | None = None,
        waits: Waits = Waits(Backoff(first_s=0.5, longest_s=30.0)),
    ) -> None:
        """Configure the backend; anything left out is read from `RS_EMBED_PUBLISHED_*`, or else has its default.

        Args:
            alphaearth: Address of AlphaEarth's mosaic, or of a copy.
            tessera: Address of TESSERA's store, or of a copy.
            concurrency: Largest number of requests at the same time.
            timeout_s: Time limit of one request, seconds.
            total_s: Time after which a request is not tried again, seconds.
            cache_mb: Memory for the chunks read last, MB per process and product.
            waits: Back-off, clock and sleep of the retries.

        Raises:
            MissingDependency: The extra `export` is not installed; it brings what decompresses the chunks.
            KnobError: A setting is invalid.
        """
        require("numcodecs", extra="export")
        self._settings = settings = PublishedSettings.read(
            {
                "alphaearth": alphaearth,
                "tessera": tessera,
                "concurrency": concurrency,
                "timeout_s": timeout_s,
                "total_s": total_s,
                "cache_mb": cache_mb,
            }
        )
        waits = replace(waits, backoff=replace(waits.backoff, total_s=settings.total_s))
        products: tuple[Product, ...] = (
            AlphaEarthMosaic(Store(settings.alphaearth, "AlphaEarth's public mosaic", settings, waits)),
            TesseraStore(Store(settings.tessera, "TESSERA's public store", settings, waits)),
        )
        self._products: Mapping[str, Product] = {product.collection: product for product in products}

    def identity(self) -> str:
        """Return what determines the pixels besides the query: a copy at another address may hold others."""
        own = self._settings.model_dump(include={"alphaearth", "tessera"}, exclude_defaults=True)
        return " ".join(["published:1", *(f"{name}={url}" for name, url in own.items())])

    def require(self, modality: str, sensor: SensorSpec) -> None:
        """See `Provider`; sends no request.

        Raises:
            SensorNotOffered: The collection is not one of the published products.
        """
        self._product(sensor.collection)

    def native_geobox(self, query: Query) -> GeoBox:
        """Raise `SpecError`: the products cover the Earth, so a place must be given.

        Raises:
            SpecError: Always.
        """
        raise no_place(_WHO)

    def check(self) -> str:
        """Read the metadata of the stores, and say what they hold.

        Raises:
            ProviderError: One did not answer, or is laid out in another way than documented; the error says which.
        """
        found = [f"{one.store.who}: {apart(one.described)}" for one in self._products.values()]
        return "; ".join(found)

    def own_grid(self, collection: str, spatial: SpatialSpec) -> GeoBox:
        """Return the grid of a product's own pixels that cover a place, in the product's own CRS.

        A `Query` on this grid returns the pixels as they are stored. AlphaEarth's mosaic is in degrees (EPSG:4326), so
        its own grid is not one on which models run; TESSERA's is the northern UTM zone.

        Raises:
            SensorNotOffered: The collection is not one of the published products.
            OutsideCoverage: The store does not cover the place.
            ProviderError: The store could not be read.
        """
        product = self._product(collection)
        return apart(lambda: product.own_grid(geobox_for(spatial)))

    def fetch(self, query: Query) -> Chip:
        """Return the chip; see `Provider`. The window must be one calendar year.

        Raises:
            SensorNotOffered: The collection is not one of the published products.
            SpecError: The place or the year is missing, or the window is not one calendar year.
            NoImagery: The store does not have that year.
            OutsideCoverage: The store does not cover the place.
            NoValidPixels: No pixel of the chip has an embedding.
            ReadError: The store is damaged, or laid out in another way than documented.
            ProviderError: The store could not, or would not, answer; one class per reason.
            Stopped: The job of this thread was stopped.
        """
        stop = Stop(current())
        try:
            with stop.here():
                return self._fetched(query)
        finally:
            stop.set()  # read no more for a chip that failed

    def _fetched(self, query: Query) -> Chip:
        product, sensor, geobox = self._product(query.sensor.collection), query.sensor, query.geobox
        if geobox is None:
            raise no_place(_WHO)
        year = _year(query.window, sensor.collection)
        found = product.read(year, geobox)
        names = list(COLLECTIONS[sensor.collection])
        values = found.values if list(sensor.bands) == names else found.values[[names.index(b) for b in sensor.bands]]
        if not np.isfinite(values).any():
            raise only_nodata(sensor, geobox, None, _FIX)
        source = Source(self.name, sensor.collection, found.ids, notes=found.notes)
        first_day = datetime.combine(TemporalSpec.year(year).start, time(), UTC)
        return Chip(values[None], bands_of(sensor.collection, sensor.bands), geobox, (first_day,), source)

    def _product(self, collection: str) -> Product:
        if collection not in self._products:
            raise SensorNotOffered(
                f"Expected a collection of published embeddings, got {collection}.",
                has=", ".join(self._products),
                fix='for imagery, use backend="gee" or backend="stac"',
            )
        return self._products[collection]


def _year(window: TemporalSpec | None, collection: str) -> int:
    """Return the calendar year of a window."""
    if window is None:
        raise no_days(_WHO, collection, annual=True)
    if window != TemporalSpec.year(window.start.year):
        raise SpecError(
            f"Expected one calendar year, got {window.start} up to {window.end}.",
            fix=f"pass temporal=TemporalSpec.year({window.start.year})",
        )
    return window.start.year
