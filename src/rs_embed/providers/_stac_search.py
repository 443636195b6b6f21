"""Searching a catalogue: once per area and window, page by page, every request tried again if it may succeed."""

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from odc.geo.geobox import GeoBox
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from rs_embed.errors import AccessRefused, ProviderError, QuotaExceeded, ReadError, RequestTooLarge, ServiceUnavailable
from rs_embed.providers._grids import bounds_deg
from rs_embed.providers._retry import Retry, Verdict
from rs_embed.providers._stac_catalogs import StacCollection
from rs_embed.providers._stac_items import Item, read_item, without_duplicates
from rs_embed.specs import TemporalSpec

AREA_DEG = 0.25
"""Searches go by squares of so many degrees: the points of a field share one, and few more items are listed."""
PAGE = 100
"""Items a page: Earth Search fails above 6 MB, which 250 items can be."""
KEPT = 256
"""Searches kept in memory, some 100 kB each for a year of Sentinel-2."""
KEPT_S = 3600.0
"""A catalogue grows every hour."""

Box = tuple[float, float, float, float]


class SearchJudge:
    """What failures of a STAC API mean."""

    judges = (APIError,)

    def verdict(self, error: Exception, doing: str) -> Verdict:
        """See `Judge`."""
        status = vars(error).get("status_code")  # not set where there was no answer
        said = re.sub(r"<[^>]+>|\s+", " ", str(error)).strip()[:300] or None
        if status == 429:
            return Verdict("throttled", _told(QuotaExceeded, "too many requests", doing, said, _LATER))
        if status in (401, 403):
            return Verdict("final", _told(AccessRefused, f"a refusal ({status})", doing, said, "does it need a key?"))
        if status is not None and 400 <= status < 500 and status != 408:
            return Verdict("final", _told(ReadError, f"a refusal ({status})", doing, said, "check the catalogue's URL"))
        found = f"an error of the server ({status})" if status else "no answer"
        return Verdict("transient", _told(ServiceUnavailable, found, doing, said, _LATER))


_LATER = "try again later, or use another catalogue"


def _told(kind: type[ProviderError], found: str, doing: str, said: str | None, fix: str) -> ProviderError:
    return kind(f"Wanted an answer of the STAC catalogue ({doing}), found {found}.", said=said, fix=fix)


class _PatientIO(StacApiIO):
    """The client's own way to ask, with our retries and limits around every request."""

    def __init__(self, retry: Retry, timeout_s: float) -> None:
        super().__init__(timeout=timeout_s, max_retries=None)  # by default it would retry itself, five times
        self._patience = retry

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, object] | None = None,
    ) -> str:
        once = partial(super().request, href, method, headers, parameters)
        return self._patience.call(once, "searching")


@dataclass
class _Kept:
    lock: threading.Lock
    items: tuple[Item, ...] | None = None
    since: float = 0.0


_SEARCHED: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()
_SEARCHED_LOCK = threading.Lock()
"""Searches of this process, by catalogue and question; those that wait for the same one ask once."""


class Search:
    """Finds the items of a catalogue. Safe to call from several threads."""

    def __init__(self, url: str, retry: Retry, timeout_s: float, max_items: int) -> None:
        self._url, self._timeout_s, self._max_items = url, timeout_s, max_items
        self._io = _PatientIO(retry, timeout_s)
        self._client: Client | None = None
        self._opening = threading.Lock()

    def title(self) -> str:
        """What the catalogue calls itself."""
        return self._opened().title or self._opened().id

    def items(self, held: StacCollection, geobox: GeoBox, window: TemporalSpec | None) -> tuple[Item, ...]:
        """All items around a grid (an area wider than it), taken in the window, each scene once.

        Raises:
            ProviderError: The catalogue could not, or would not, answer.
            RequestTooLarge: There are more than `max_items`.
        """
        boxes = areas(geobox)
        window = window if held.dated else None
        key = (self._url, repr(held), repr(boxes), repr(window))
        with _SEARCHED_LOCK:
            kept = _SEARCHED.setdefault(key, _Kept(threading.Lock()))
            _SEARCHED.move_to_end(key)
            while len(_SEARCHED) > KEPT:
                _SEARCHED.popitem(last=False)
        with kept.lock:
            if kept.items is None or time.monotonic() - kept.since > KEPT_S:
                found = (item for box in boxes for item in self._ask(held, box, window))
                kept.items, kept.since = tuple(without_duplicates(found)), time.monotonic()
            return kept.items

    def _ask(self, held: StacCollection, box: Box, window: TemporalSpec | None) -> Iterator[Item]:
        """The items in a box, page by page."""
        search = self._opened().search(
            collections=[held.id],
            bbox=list(box),
            datetime=None if window is None else _interval(window),
            limit=PAGE,
            max_items=self._max_items + 1,
        )
        for number, told in enumerate(search.items_as_dicts(), start=1):
            if number > self._max_items:
                raise RequestTooLarge(
                    f"Wanted at most {self._max_items} items of {held.id}, found more in {window}.",
                    fix="shorten the window, or raise RS_EMBED_STAC_MAX_ITEMS",
                )
            item = read_item(told, held)
            if window is None or window.start <= item.time.date() < window.end:
                yield item

    def _opened(self) -> Client:
        with self._opening:
            if self._client is None:
                self._client = Client.open(self._url, stac_io=self._io, timeout=self._timeout_s)  # else it unsets it
            return self._client


def _interval(window: TemporalSpec) -> str:
    """STAC counts the end in; ours is the first day that no longer counts."""
    last = window.end - timedelta(days=1)
    return f"{window.start}T00:00:00Z/{last}T23:59:59.999999Z"


def areas(geobox: GeoBox) -> list[Box]:
    """The squares of `AREA_DEG` that a grid lies in, as one box; two, where it crosses the antimeridian."""
    west, south, east, north = bounds_deg(geobox)
    west, south = math.floor(west / AREA_DEG) * AREA_DEG, max(-90.0, math.floor(south / AREA_DEG) * AREA_DEG)
    east, north = math.ceil(east / AREA_DEG) * AREA_DEG, min(90.0, math.ceil(north / AREA_DEG) * AREA_DEG)
    turns = 360 * math.floor((west + 180) / 360)
    west, east = west - turns, east - turns
    if east <= 180:
        return [(west, south, east, north)]
    return [(west, south, 180.0, north), (-180.0, south, east - 360, north)]
