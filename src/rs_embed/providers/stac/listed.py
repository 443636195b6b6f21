"""Catalogues that are read, not searched: static catalogues, lists of items, and items passed by the user."""

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pystac import Item as PystacItem

from rs_embed.core.specs import TemporalSpec
from rs_embed.core.stopping import PerProcess, Threads
from rs_embed.errors import ReadError, RequestTooLarge, SpecError
from rs_embed.providers.common.retry import Retry
from rs_embed.providers.stac.catalogs import StacCollection
from rs_embed.providers.stac.http import LARGEST_B, Garbled, Http
from rs_embed.providers.stac.items import CatalogItem, read_item, without_duplicates
from rs_embed.providers.stac.links import is_local, joined, path_of, web_address
from rs_embed.providers.stac.search import Document, areas, document, links_of
from rs_embed.providers.stac.table import items_of_table
from rs_embed.providers.stac.waiting import awaited, taken

Items = str | Path | Document | Iterable[Document | PystacItem]
"""Items, an item collection, or the path of one (JSON or stac-geoparquet)."""
Raw = tuple[str | None, Document]
"""The address that an item was read from, if known, and the item."""
_AT_ONCE = 8
"""Documents of a catalogue read at the same time."""
_TABLES = (".parquet", ".geoparquet")


class DocumentReader:
    """Reads the documents of one catalogue.

    Args:
        http: Requests documents on the web.
        retry: When to repeat a request.
        local: Whether files on this machine may be read; a catalogue on the web must not name them.
    """

    def __init__(self, http: Http, retry: Retry, *, local: bool) -> None:
        self._http, self._retry, self._local = http, retry, local

    def read(self, href: str) -> Document:
        """Read one document.

        Raises:
            ReadError: It does not exist or is not JSON.
            ProviderError: The server could not, or would not, answer.
        """
        url = web_address(href)
        if url is not None:
            return self._retry.call(lambda: document(self._http.ask(url)), "reading the catalogue")
        if not self._local or not is_local(href):
            raise ReadError(
                f"Expected a catalogue on the web to link only to the web, got a link to {href}.",
                fix="report this to the maintainer of the catalogue",
            )
        return read_json(path_of(href))


def read_json(path: str) -> Document:
    """Read a JSON object from disk.

    Raises:
        ReadError: The file does not exist, or is not a JSON object.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ReadError(f"Expected a STAC catalogue or items, got no file {file}.", fix="check the path")
    if file.stat().st_size > LARGEST_B:
        raise ReadError(
            f"Expected a document of at most {LARGEST_B // 1_000_000} MB, got {file}.",
            fix="store that many items as stac-geoparquet",
        )
    try:
        return document(file.read_bytes())
    except (Garbled, OSError) as error:
        raise ReadError(f"Expected a STAC catalogue or items, got {file}: {error}", fix="check the file") from error


def walk(start: str, read: Callable[[str], Document], wanted: frozenset[str], most: int) -> "Walked":
    """Read the items of a static catalogue, and its collections.

    Items of collections other than `wanted` are not read.

    Raises:
        RequestTooLarge: There are more than `most` documents.
    """
    threads, found = Threads(_AT_ONCE, "rs-embed-catalogue"), Walked()
    waiting, seen = deque([start]), {start}
    while waiting:
        if len(seen) > most:
            raise RequestTooLarge(
                f"Expected a catalogue of at most {most} documents, got more at {start}.",
                fix="raise RS_EMBED_STAC_MAX_ITEMS, or pass the items that you need: Stac(..., items=...)",
            )
        wave = [waiting.popleft() for _ in range(min(_AT_ONCE, len(waiting)))]
        coming = [threads.submit(read, href) for href in wave]
        for href, future in zip(wave, coming, strict=True):
            new = [link for link in _visit(href, awaited(future), wanted, found) if link not in seen]
            seen.update(new)
            waiting.extend(new)
    return found


class Walked:
    """What was found in a static catalogue."""

    def __init__(self) -> None:
        self.items: list[Raw] = []
        self.collections: set[str] = set()
        self.title: str | None = None


def _visit(href: str, raw: Document, wanted: frozenset[str], found: Walked) -> list[str]:
    """Take the items of a document, and return the addresses that it links to."""
    kind = raw.get("type")
    if kind in ("Feature", "FeatureCollection"):
        found.items += [(href, item) for item in features_of(raw)]
        return []
    if kind not in ("Catalog", "Collection"):
        raise ReadError(
            f"Expected a STAC catalogue, collection or items, got type {kind!r} at {href}.", fix="check the URL or path"
        )
    found.title = found.title or str(raw.get("title") or raw.get("id"))
    rels: tuple[str, ...] = ("child", "item", "items")
    if kind == "Collection":
        found.collections.add(str(raw.get("id")))
        rels = rels if raw.get("id") in wanted else ("child",)
    return [joined(href, str(link["href"])) for link in links_of(raw, *rels)]


def features_of(raw: Document) -> list[Document]:
    """The items in a document: one item, or an item collection."""
    features = raw.get("features") if raw.get("type") == "FeatureCollection" else [raw]
    if not isinstance(features, list) or not all(isinstance(item, Mapping) for item in features):
        raise ReadError("Expected a collection of STAC items, got one without a list of them.", fix="check the file")
    return features


def given(items: Items) -> list[Raw]:
    """Load the items that the user passes.

    Raises:
        SpecError: They are not STAC items.
        ReadError: The file of items does not exist or cannot be read.
    """
    if isinstance(items, str | Path):
        path = path_of(os.path.abspath(Path(items).expanduser()))
        if path.lower().endswith(_TABLES):
            return [(path, item) for item in items_of_table(path)]
        raw: list[Raw] = [(path, item) for item in features_of(read_json(path))]
    elif isinstance(items, Mapping):
        raw = [(None, item) for item in features_of(items)]
    else:
        raw = [_one(item) for item in items]
    if not raw:
        raise SpecError("Expected STAC items, got none.", fix="check the search that found them")
    return raw


def _one(item: object) -> Raw:
    if isinstance(item, PystacItem):
        return item.get_self_href(), item.to_dict(transform_hrefs=False)
    if isinstance(item, Mapping):
        return None, item
    raise SpecError(
        f"Expected STAC items, got {type(item).__name__}.",
        fix="pass pystac items, their dictionaries, or the path of an item collection (.json, .parquet)",
    )


def digest_of(raw: Iterable[Raw]) -> str:
    """A fingerprint of the items that does not depend on the signatures of their links."""
    plain = [
        {**item, "links": [], "assets": {name: _unsigned(asset) for name, asset in _assets(item)}} for _, item in raw
    ]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _assets(item: Document) -> Iterator[tuple[str, object]]:
    assets = item.get("assets")
    yield from (assets.items() if isinstance(assets, Mapping) else ())


def _unsigned(asset: object) -> object:
    href = asset.get("href") if isinstance(asset, Mapping) else None
    return str(href).partition("?")[0]


class Listed:
    """Finds items in a list. Safe to call from several threads.

    Args:
        load: Returns all items; called once.
    """

    def __init__(self, load: Callable[[], Walked]) -> None:
        self._load = load
        self._lock = PerProcess(threading.Lock)
        self._walked: Walked | None = None
        self._read: dict[str, tuple[list[CatalogItem], NDArray[np.float64]]] = {}

    @classmethod
    def of(cls, raw: list[Raw]) -> "Listed":
        """Find among items that the user passes."""
        walked = Walked()
        walked.items, walked.title = raw, f"{len(raw)} items of your own"
        return cls(lambda: walked)

    @classmethod
    def at(cls, url: str, reader: DocumentReader, wanted: frozenset[str], most: int) -> "Listed":
        """Find among the items of a static catalogue."""
        if url.lower().endswith(_TABLES) and is_local(url):
            return cls.of(given(path_of(url)))
        return cls(partial(walk, url, reader.read, wanted, most))

    def title(self) -> str:
        """The catalogue's title."""
        return self._loaded().title or "STAC items"

    def items(self, collection: StacCollection, geobox: GeoBox, window: TemporalSpec | None) -> tuple[CatalogItem, ...]:
        """Return the items around a grid (in a wider area), taken in the window, each scene once.

        Raises:
            ReadError: One of them is not a STAC item.
            ProviderError: The catalogue could not be read.
        """
        with taken(self._lock.here):
            if repr(collection) not in self._read:
                self._read[repr(collection)] = _prepared(self._everything().items, collection)
            items, bounds = self._read[repr(collection)]
        near = np.zeros(len(items), bool)
        for west, south, east, north in areas(geobox):
            apart = (bounds[:, 0] > east) | (bounds[:, 2] < west) | (bounds[:, 1] > north) | (bounds[:, 3] < south)
            near |= ~apart
        window = window if collection.dated else None
        return tuple(
            item
            for item, here in zip(items, near, strict=True)
            if here and (window is None or window.start <= item.time.date() < window.end)
        )

    def lacks(self, collection: str) -> tuple[str, ...] | None:
        """Return the collections that exist instead of a missing one; `None` if it exists."""
        walked = self._loaded()
        there = walked.collections | {str(item.get("collection")) for _, item in walked.items if "collection" in item}
        if collection in there or any("collection" not in item for _, item in walked.items):
            return None
        return tuple(sorted(there))

    def _loaded(self) -> Walked:
        with taken(self._lock.here):
            return self._everything()

    def _everything(self) -> Walked:
        if self._walked is None:
            self._walked = self._load()
        return self._walked


def _prepared(raw: Iterable[Raw], collection: StacCollection) -> tuple[list[CatalogItem], NDArray[np.float64]]:
    """The items of a collection, and the bounds of each (west, south, east, north); NaN means unknown."""
    items = without_duplicates(
        read_item(item, collection, where)
        for where, item in raw
        if item.get("collection", collection.id) == collection.id
    )
    bounds = [item.footprint.bounds if item.footprint is not None else (np.nan,) * 4 for item in items]
    return items, np.array(bounds, np.float64).reshape(-1, 4)
