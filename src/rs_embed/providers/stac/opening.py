"""Open a catalogue: determine whether it is an API to search or a set of files to read."""

import threading

from rs_embed.core.stopping import PerProcess
from rs_embed.errors import ReadError
from rs_embed.providers.common.retry import Retry
from rs_embed.providers.stac.catalogs import StacCatalog
from rs_embed.providers.stac.http import Http
from rs_embed.providers.stac.links import is_local, web_address
from rs_embed.providers.stac.listed import DocumentReader, Listed
from rs_embed.providers.stac.search import Search, document, links_of
from rs_embed.providers.stac.selection import Finder
from rs_embed.providers.stac.waiting import taken


class Opening:
    """A catalogue that is opened when it is first needed.

    Args:
        catalog: The catalogue.
        http: Sends the requests.
        retry: When to repeat a request.
        max_items: Largest number of items in one window, or of documents in a static catalogue.
    """

    def __init__(self, catalog: StacCatalog, http: Http, retry: Retry, max_items: int) -> None:
        self._catalog, self._http, self._retry, self._max_items = catalog, http, retry, max_items
        self._lock = PerProcess(threading.Lock)
        self._finder: Finder | None = None

    def opened(self) -> Finder:
        """Return the finder of its items.

        Raises:
            ProviderError: It does not exist or is not a STAC catalogue.
        """
        with taken(self._lock.here):
            if self._finder is None:
                self._finder = self._looked_at()
            return self._finder

    def _looked_at(self) -> Finder:
        url, wanted = self._catalog.url, frozenset(collection.id for collection in self._catalog.mapping.values())
        address, local = web_address(url), is_local(url)
        if address is not None:
            landing = self._retry.call(lambda: document(self._http.ask(address)), "opening it")
            if links_of(landing, "search"):
                return Search(address, landing, self._http, self._retry, self._max_items)
            if landing.get("type") not in ("Catalog", "Collection", "FeatureCollection"):
                raise ReadError(
                    f"Expected a STAC catalogue at {url}, got JSON of type {landing.get('type')!r}.",
                    fix="pass the URL of its landing page, which lists links",
                )
        elif not local:
            raise ReadError(f"Expected a URL or a path, got {url}.", fix="use https, s3, gs, file:// or a path")
        return Listed.at(address or url, DocumentReader(self._http, self._retry, local=local), wanted, self._max_items)
