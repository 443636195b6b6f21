"""Search a catalogue: once per area and window, page by page; requests that may yet succeed are retried."""

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from odc.geo.geobox import GeoBox
from pystac_client import ItemSearch
from pystac_client.stac_api_io import StacApiIO

from rs_embed.core.specs import TemporalSpec
from rs_embed.core.stopping import PerProcess
from rs_embed.errors import ReadError, RequestTooLarge
from rs_embed.providers.common.grids import bounds_deg
from rs_embed.providers.common.retry import Retry
from rs_embed.providers.stac.catalogs import StacCollection
from rs_embed.providers.stac.http import Garbled, Http, Refusal
from rs_embed.providers.stac.items import CatalogItem, read_item, without_duplicates
from rs_embed.providers.stac.links import joined
from rs_embed.providers.stac.waiting import taken

AREA_DEG = 0.25
"""Side of the squares that are searched, degrees: neighbouring points share a search, which lists few extra items."""
PAGE = 100
"""Items per page: Earth Search fails above 6 MB, which 250 items can reach."""
KEPT = 256
"""Searches kept in memory, about 100 kB each for a year of Sentinel-2."""
KEPT_S = 3600.0
"""How long a search is kept, seconds: a catalogue grows every hour."""

Box = tuple[float, float, float, float]
Document = Mapping[str, object]


def document(text: bytes | str) -> Document:
    """Parse a JSON object.

    Raises:
        Garbled: The text is something else, such as a login page or half an answer.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise Garbled(f"no JSON object but a {type(raw).__name__}")
    return raw


def links_of(raw: Document, *rels: str) -> list[Mapping[str, object]]:
    """The links of a document with one of these relations and an address."""
    links = raw.get("links")
    found = [link for link in links if isinstance(link, Mapping)] if isinstance(links, list) else []
    return [link for link in found if link.get("rel") in rels and isinstance(link.get("href"), str)]


class _PatientIO(StacApiIO):
    """Pages as pystac-client turns them, with our requests, retries and limits."""

    def __init__(self, http: Http, retry: Retry) -> None:
        super().__init__(max_retries=None)  # by default, the client retries five times itself
        self._http, self._patience = http, retry

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, object] | None = None,
    ) -> str:
        return self._patience.call(partial(self._once, href, method or "GET", headers, parameters), "searching")

    def _once(
        self, href: str, method: str, headers: dict[str, str] | None, parameters: dict[str, object] | None
    ) -> str:
        text = self._http.ask(href, method, sent=parameters, headers=headers)
        document(text)  # while the page can be requested again
        return text.decode("utf-8")


@dataclass
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    items: tuple[CatalogItem, ...] | None = None
    since: float = 0.0


@dataclass
class _Searched:
    """The searches of a process, by catalogue and parameters; threads that need the same search share one."""

    kept: OrderedDict[tuple[str, ...], _Kept] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_SEARCHED = PerProcess(_Searched)


class Search:
    """Finds the items of a STAC API. Safe to call from several threads.

    Args:
        url: Its landing page.
        landing: The content of the landing page.
        http: Sends the requests.
        retry: When to repeat a request.
        max_items: Largest number of items in one window; more are refused.
    """

    def __init__(self, url: str, landing: Document, http: Http, retry: Retry, max_items: int) -> None:
        self._url, self._landing, self._max_items = url, landing, max_items
        self._http, self._retry = http, retry
        self._lacking: dict[str, tuple[str, ...] | None] = {}

    def title(self) -> str:
        """The catalogue's title."""
        return str(self._landing.get("title") or self._landing.get("id"))

    def items(self, collection: StacCollection, geobox: GeoBox, window: TemporalSpec | None) -> tuple[CatalogItem, ...]:
        """Return the items around a grid (in a wider area), taken in the window, each scene once.

        Raises:
            ProviderError: The catalogue could not, or would not, answer.
            RequestTooLarge: There are more than `max_items`.
        """
        boxes = areas(geobox)
        window = window if collection.dated else None
        key = (self._url, repr(collection), repr(boxes), repr(window))
        searched = _SEARCHED.here
        with searched.lock:
            kept = searched.kept.setdefault(key, _Kept())
            searched.kept.move_to_end(key)
            while len(searched.kept) > KEPT:
                searched.kept.popitem(last=False)
        with taken(kept.lock):
            if kept.items is None or time.monotonic() - kept.since > KEPT_S:
                found = (item for box in boxes for item in self._ask(collection, box, window))
                kept.items, kept.since = tuple(without_duplicates(found)), time.monotonic()
            return kept.items

    def lacks(self, collection: str) -> tuple[str, ...] | None:
        """Return the collections it has instead of a missing one; `None` if it has that one or does not list them."""
        if collection not in self._lacking:
            self._lacking[collection] = self._retry.call(
                partial(self._instead_of, collection), "looking for a collection"
            )
        return self._lacking[collection]

    def _instead_of(self, collection: str) -> tuple[str, ...] | None:
        base = self._url.rstrip("/")
        try:
            self._http.ask(f"{base}/collections/{collection}")
        except Refusal as error:
            if error.status != 404:
                return None
        else:
            return None
        try:
            listed = document(self._http.ask(f"{base}/collections")).get("collections")
        except (Refusal, Garbled):
            return None
        return tuple(str(one["id"]) for one in listed if "id" in one) if isinstance(listed, list) else None

    def _ask(self, collection: StacCollection, box: Box, window: TemporalSpec | None) -> Iterator[CatalogItem]:
        """Search for the items in a box, page by page."""
        links = links_of(self._landing, "search")
        methods = {str(link.get("method", "GET")) for link in links}
        pages = ItemSearch(
            joined(self._url, str(links[0]["href"])),
            method="POST" if "POST" in methods else "GET",
            collections=[collection.id],
            bbox=list(box),
            datetime=None if window is None else _interval(window),
            limit=PAGE,
            max_items=self._max_items + 1,
            stac_io=_PatientIO(self._http, self._retry),
        )
        for number, raw in enumerate(_features(pages), start=1):
            if number > self._max_items:
                raise RequestTooLarge(
                    f"Expected at most {self._max_items} items of {collection.id}, got more in {window}.",
                    fix="shorten the window, or raise RS_EMBED_STAC_MAX_ITEMS",
                )
            item = read_item(raw, collection)
            if window is None or window.start <= item.time.date() < window.end:
                yield item


def _features(pages: ItemSearch) -> Iterator[Document]:
    try:
        yield from pages.items_as_dicts()
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # not a page of items
        raise ReadError(
            f"Expected pages of STAC items, got something else: {error!r}",
            fix="check the catalogue's URL, or report this to its maintainer",
        ) from error


def _interval(window: TemporalSpec) -> str:
    """STAC includes the end of an interval; our end is the first day after the window."""
    last = window.end - timedelta(days=1)
    return f"{window.start}T00:00:00Z/{last}T23:59:59.999999Z"


def areas(geobox: GeoBox) -> list[Box]:
    """The squares of `AREA_DEG` around a grid as one box, or as two if the grid crosses the antimeridian."""
    west, south, east, north = bounds_deg(geobox)
    west, south = math.floor(west / AREA_DEG) * AREA_DEG, max(-90.0, math.floor(south / AREA_DEG) * AREA_DEG)
    east, north = math.ceil(east / AREA_DEG) * AREA_DEG, min(90.0, math.ceil(north / AREA_DEG) * AREA_DEG)
    turns = 360 * math.floor((west + 180) / 360)
    west, east = west - turns, east - turns
    if east <= 180:
        return [(west, south, east, north)]
    return [(west, south, 180.0, north), (-180.0, south, east - 360, north)]
