"""A public Zarr v3 store on the web: reads only the chunks of a window, by ranges of its files."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.stopping import Threads
from rs_embed.errors import ReadError
from rs_embed.providers.common.limiter import shared_limiter
from rs_embed.providers.common.retry import Retry, Waits
from rs_embed.providers.published.codecs import Damaged, decoded
from rs_embed.providers.published.judge import StoreJudge
from rs_embed.providers.published.layout import ENTRY_B, ArrayLayout, Json, array_of, attributes_of, parsed
from rs_embed.providers.published.settings import PublishedSettings
from rs_embed.providers.published.shelf import Shelf
from rs_embed.providers.stac.http import Http, Refusal

GAP_B, MOST_B = 500_000, 8_000_000
"""Chunks of a shard that lie closer than `GAP_B` are read by one request of up to `MOST_B`. Other readers of these
stores report 0.7 s of latency per request and 20 MB/s: a gap of this size costs less than another request."""
METADATA_B = 4_000_000
"""Largest `zarr.json`, bytes."""
NODES = 1024
"""Groups and arrays whose metadata is kept."""
_ABSENT = 2**64 - 1
"""Offset and length of a chunk that is not stored."""
_NO_FILE = (404, 410)
_PLAIN = {"Accept-Encoding": "identity"}
"""Ranges count the bytes of the file, so a server must not compress them."""

T = TypeVar("T")
Array = NDArray[np.generic]
Position = tuple[int, ...]
Key = tuple[str, Position]
"""An array, and the position of a chunk in it."""
Chunks = dict[Key, Array | None]
"""`None` for a chunk that is not stored."""
Entry = tuple[int, int, Key]
"""Offset and length of a chunk in its shard, bytes."""


class Store:
    """A read-only store. Safe to use from several threads, and in a forked process.

    Args:
        url: Its address.
        who: Its name in messages.
        settings: Limits of requests and memory.
        waits: Back-off, clock and sleep of the retries.
    """

    def __init__(self, url: str, who: str, settings: PublishedSettings, waits: Waits) -> None:
        self.url: str = url.rstrip("/")
        self.who = who
        self._http = Http(settings.timeout_s, count=settings.concurrency)
        limiter = shared_limiter(f"published {urlsplit(url).netloc}", settings.concurrency, None)
        self._retry = Retry(StoreJudge(who), limiter, waits)
        self._threads = Threads(settings.concurrency, "rs-embed-published")
        self._nodes = Shelf[str, Json | None](NODES, lambda node: 1)
        self._indexes = Shelf[str, Array | None](settings.cache_mb * 250_000, _size_b)
        self._chunks = Shelf[Key, Array | None](settings.cache_mb * 750_000, _size_b)

    def attributes(self, path: str = "") -> Json | None:
        """Return the attributes of a group; `None` if there is no such group."""
        node = self.nodes(path)[path]
        return None if node is None else attributes_of(node)

    def array(self, path: str) -> ArrayLayout | None:
        """Return the layout of an array; `None` if there is no such array."""
        node = self.nodes(path)[path]
        return None if node is None else array_of(node, path)

    def nodes(self, *paths: str) -> dict[str, Json | None]:
        """Return the metadata of groups and arrays, read at the same time; `None` for what there is not."""

        def load(path: str) -> dict[str, Json | None]:
            key = f"{path}/zarr.json".lstrip("/")
            text = self._file(key, METADATA_B)
            return {path: None if text is None else parsed(text, f"{self.url}/{key}")}

        return self._nodes.obtain(paths, lambda some: [([path], self._threads.submit(load, path)) for path in some])

    def window(self, array: ArrayLayout, window: Mapping[str, slice]) -> Array:
        """Return part of an array. Whatever the store does not hold has the array's fill value.

        Args:
            array: The layout of the array.
            window: Start and stop along each axis, within the array. The result has the axes in this order.

        Raises:
            ReadError: A file is cut off or damaged, or the array has other axes.
            ProviderError: The store could not, or would not, answer.
            Stopped: The job of this thread was stopped.
        """
        order = [array.axis(name) for name in window]
        parts = [window.get(name, slice(0, size)) for name, size in zip(array.axes, array.shape, strict=True)]
        first, stop = [part.start for part in parts], [part.stop for part in parts]
        found = np.full([b - a for a, b in zip(first, stop, strict=True)], array.fill, array.dtype)
        for position, chunk in self._wanted(array, first, stop).items():
            if chunk is None:
                continue
            into, out_of = zip(*map(_overlap, first, stop, position, array.chunk_shape), strict=True)
            found[into] = chunk[out_of]
        return found.transpose(order)

    def _wanted(self, array: ArrayLayout, first: Sequence[int], stop: Sequence[int]) -> dict[Position, Array | None]:
        """Return the chunks of a window by their position; `None` for those that are not stored."""
        ranges = [range(a // size, -(-b // size)) for a, b, size in zip(first, stop, array.chunk_shape, strict=True)]
        keys = [(array.path, position) for position in itertools.product(*ranges)]
        found = self._chunks.obtain(keys, partial(self._start, array))
        return {position: chunk for (_, position), chunk in found.items()}

    def _start(self, array: ArrayLayout, keys: list[Key]) -> "Iterator[tuple[list[Key], Future[Chunks]]]":
        """Start to read chunks: first the indexes of their shards, then ranges of the shards."""
        by_file: dict[str, list[Key]] = {}
        for key in keys:
            at = [number // count for number, count in zip(key[1], array.chunks_per_file, strict=True)]
            by_file.setdefault(array.file(at), []).append(key)
        if not array.index_codecs:
            for file, (key,) in by_file.items():
                yield [key], self._threads.submit(self._lone, array, file, key)
            return
        indexes = self._indexes.obtain(
            by_file, lambda files: [([file], self._threads.submit(self._index, array, file)) for file in files]
        )
        for file, some in by_file.items():
            absent, stored = _entries(array, indexes[file], some, f"{self.url}/{file}")
            nothing: Future[Chunks] = Future()
            nothing.set_result(dict.fromkeys(absent))
            yield absent, nothing
            for run in _runs(stored):
                yield [key for _, _, key in run], self._threads.submit(self._run, array, file, run)

    def _index(self, array: ArrayLayout, file: str) -> dict[str, Array | None]:
        """Return the index of a shard, `[chunk, (offset, length)]`; `None` if there is no such shard."""

        def read() -> Array | None:
            stored = self._range(file, 0 if array.index_first else None, array.index_b)
            shape = (array.index_b // ENTRY_B, 2)
            return None if stored is None else decoded(stored, array.index_codecs, np.dtype(np.uint64), shape)

        return {file: _twice(read, f"the index of {self.url}/{file}")}

    def _run(self, array: ArrayLayout, file: str, run: list[Entry]) -> Chunks:
        """Read and decode chunks that lie next to each other in a shard."""
        start, end = run[0][0], max(offset + length for offset, length, _ in run)

        def read() -> Chunks:
            stored = self._range(file, start, end - start)
            if stored is None:
                raise Damaged("no file, although it had an index")
            return {
                key: decoded(stored[at - start : at - start + length], array.codecs, array.dtype, array.chunk_shape)
                for at, length, key in run
            }

        return _twice(read, f"chunk {run[0][2][1]} of {self.url}/{file}")

    def _lone(self, array: ArrayLayout, file: str, key: Key) -> Chunks:
        """Read and decode a file that is one chunk."""

        def read() -> Chunks:
            stored = self._file(file, _most_b(array))
            return {key: None if stored is None else decoded(stored, array.codecs, array.dtype, array.chunk_shape)}

        return _twice(read, f"the chunk {self.url}/{file}")

    def _range(self, key: str, start: int | None, length: int) -> bytes | None:
        """Return exactly `length` bytes of a file, from `start` or, without one, at its end; `None` without a file.

        Raises:
            Damaged: The file is too short.
        """
        span = f"-{length}" if start is None else f"{start}-{start + length - 1}"
        stored = self._file(key, length, {"Range": f"bytes={span}"})
        if stored is not None and len(stored) != length:
            raise Damaged(f"{len(stored):,} bytes instead of {length:,}")
        return stored

    def _file(self, key: str, most_b: int, headers: Mapping[str, str] | None = None) -> bytes | None:
        """Return a file; `None` if there is none."""

        def ask() -> bytes | None:
            try:
                return self._http.ask(f"{self.url}/{key}", headers={**_PLAIN, **(headers or {})}, most_b=most_b)
            except Refusal as refusal:
                if refusal.status in _NO_FILE:
                    return None
                raise

        return self._retry.call(ask, f"reading {key}")


def _entries(array: ArrayLayout, index: Array | None, keys: list[Key], file: str) -> tuple[list[Key], list[Entry]]:
    """Return the chunks that a shard does not hold, and where the others are in it.

    Raises:
        ReadError: A chunk is larger than it can be.
    """
    if index is None:
        return keys, []
    absent, stored = list[Key](), list[Entry]()
    for key in keys:
        inside = [number % count for number, count in zip(key[1], array.chunks_per_file, strict=True)]
        start, length = (int(number) for number in index[np.ravel_multi_index(inside, array.chunks_per_file)])
        if start == length == _ABSENT:
            absent.append(key)
        elif length <= _most_b(array):
            stored.append((start, length, key))
        else:
            raise _damaged(f"a chunk of at most {_most_b(array):,} bytes in {file}", f"{length:,}")
    return absent, stored


def _runs(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Group chunks that one request should read."""
    run: list[Entry] = []
    for start, length, key in sorted(entries):
        if run and (start - run[-1][0] - run[-1][1] > GAP_B or start + length - run[0][0] > MOST_B):
            yield run
            run = []
        run.append((start, length, key))
    if run:
        yield run


def _twice(read: Callable[[], T], what: str) -> T:
    """Read again, once, what came damaged.

    Raises:
        ReadError: It came damaged both times.
    """
    with suppress(Damaged):
        return read()
    try:
        return read()
    except Damaged as error:
        raise _damaged(what, str(error)) from error


def _damaged(expected: str, got: str) -> ReadError:
    fix = "report it to the publisher of the store, or set the address of a copy"
    return ReadError(f"Expected {expected}, got {got}.", fix=fix)


def _most_b(array: ArrayLayout) -> int:
    """The largest size of an encoded chunk, bytes: an encoding adds little to what it cannot compress."""
    return array.chunk_b + array.chunk_b // 8 + 65_536


def _overlap(first: int, stop: int, number: int, size: int) -> tuple[slice, slice]:
    """Return the part that a window and a chunk share along an axis: in the window, and in the chunk."""
    corner = number * size
    lower, upper = max(first, corner), min(stop, corner + size)
    return slice(lower - first, upper - first), slice(lower - corner, upper - corner)


def _size_b(array: Array | None) -> int:
    return 0 if array is None else array.nbytes
