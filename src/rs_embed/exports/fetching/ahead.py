"""Fetch chips in batches ahead of use, by threads here or by tasks on a cluster."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rs_embed.core.chip import Chip
from rs_embed.core.stopping import Stop, Threads, outcome
from rs_embed.exports.fetching.reader import PlannedFetches, PlannedProvider
from rs_embed.providers.base import Provider, Query, pixels_of

BATCH_CHIPS = 64
"""Most chips in a batch, so that the first of many small chips does not wait for thousands."""
Brought = Sequence[Chip | Exception]
"""One result for each query of a batch, in order."""
Bring = Callable[[Sequence[Query]], Callable[[], Brought]]
"""Starts to fetch a batch, and returns a function that waits for it; several threads may call that."""


def bring_by_threads(provider: Provider, threads: int, stop: Stop) -> Bring:
    """Return a fetcher with threads of this process, which end with the job, or when the fetcher is freed."""
    pool = Threads(threads, "rs-embed-ahead", stop)

    def fetch(query: Query) -> Chip | Exception:
        try:
            return provider.fetch(query)
        except Exception as error:  # noqa: BLE001  (raised where the chip is needed)
            return error.with_traceback(None)

    def bring(queries: Sequence[Query]) -> Callable[[], Brought]:
        coming = [pool.submit(fetch, query) for query in queries]
        return lambda: [outcome(one) for one in coming]

    return bring


@dataclass
class _Batch:
    """Chips that are fetched together."""

    index: dict[Query, int] = field(default_factory=dict)
    """Position of each query, in the form that providers see."""
    queries: list[Query] = field(default_factory=list)
    nbytes: int = 0
    left: int = 0
    """How many requests for its chips are still to come."""
    wait: Callable[[], Brought] | None = None
    """`None` before it is started, and after it was released."""
    over: bool = False

    def add(self, query: Query) -> None:
        if pixels_of(query) not in self.index:
            self.index[pixels_of(query)] = len(self.queries)
            self.queries.append(query)
            self.nbytes += query.nbytes
        self.left += 1

    def has_room(self, query: Query, batch_bytes: int) -> bool:
        fits = self.nbytes + query.nbytes <= batch_bytes and len(self.queries) < BATCH_CHIPS
        return fits or not self.queries or pixels_of(query) in self.index


@dataclass(eq=False)
class _Ask:
    """A chip that one place will request, once."""

    batch: _Batch
    place: int
    counted: bool = True
    """Whether its batch still counts it."""


class Ahead(PlannedProvider):
    """A provider that fetches chips in batches, a few of them ahead of the one that is being used.

    Memory: `batches` batches of `batch_bytes` (or one chip, if that is larger), and one more for each thread that
    fetches. A batch is released when all of its chips have been requested.

    Args:
        provider: Used directly for chips that were not announced.
        bring: Fetches batches.
        batch_bytes: Largest size of a batch, bytes of pixels.
        batches: Number of batches that are being fetched or waiting.
    """

    def __init__(self, provider: Provider, bring: Bring, batch_bytes: int, batches: int) -> None:
        super().__init__(provider)
        self._bring, self._batch_bytes, self._most = bring, batch_bytes, batches
        self._lock = threading.Lock()
        self._upcoming: deque[_Batch] = deque()
        self._asks: dict[Query, deque[_Ask]] = {}
        self._by_place: dict[int, list[_Ask]] = {}
        self._held = 0

    def announce(self, unit: str, planned: Sequence[PlannedFetches]) -> None:
        """See `PlannedProvider`; starts the first batches."""
        super().announce(unit, planned)
        with self._lock:
            self._upcoming.clear()
            self._asks, self._by_place, self._held = {}, {}, 0
            batch = _Batch()
            for place, query in ((place, query) for place, its in enumerate(planned) for query in its.queries):
                if not batch.has_room(query, self._batch_bytes):
                    self._upcoming.append(batch)
                    batch = _Batch()
                batch.add(query)
                ask = _Ask(batch, place)
                self._asks.setdefault(pixels_of(query), deque()).append(ask)
                self._by_place.setdefault(place, []).append(ask)
            self._upcoming.append(batch)
            self._top_up()

    def fetch(self, query: Query) -> Chip:
        """Return the chip when its batch has arrived."""
        found = self._found(query)
        if isinstance(found, Exception):
            raise found
        return self._provider.fetch(query) if found is None else found

    def _found(self, query: Query) -> Chip | Exception | None:
        """Return what was fetched, if anything. Errors are returned, since a traceback would keep the batch alive."""
        key = pixels_of(query)
        with self._lock:
            ask = self._next_ask(key)
            wait = None if ask is None else self._waiting_for(ask.batch)
        if ask is None or wait is None:
            return None
        try:
            found = wait()[ask.batch.index[key]]
        except Exception as error:  # noqa: BLE001  (raised by `fetch`)
            found = error.with_traceback(None)
        if isinstance(found, Exception):
            self._settle(self._by_place[ask.place])  # the place has failed and may request nothing more
            return found
        chip = replace(found, values=found.values.copy())  # a copy, so that the batch can be freed
        self._settle([ask])
        return chip

    def _next_ask(self, key: Query) -> _Ask | None:
        asks = self._asks.get(key)
        return asks.popleft() if asks else None

    def _waiting_for(self, batch: _Batch) -> Callable[[], Brought] | None:
        """Return what waits for the batch, starting it if needed; `None` if it was released already."""
        while batch.wait is None and not batch.over:
            self._begin()
        return batch.wait

    def _begin(self) -> None:
        batch = self._upcoming.popleft()
        if batch.left > 0:
            batch.wait = self._bring(batch.queries)
            self._held += 1
        batch.over = batch.left == 0

    def _top_up(self) -> None:
        while self._upcoming and self._held < self._most:
            self._begin()

    def _settle(self, asks: Sequence[_Ask]) -> None:
        """Mark these requests as done."""
        with self._lock:
            for ask in asks:
                ask.batch.left -= int(ask.counted)
                ask.counted = False
                if ask.batch.left == 0 and ask.batch.wait is not None:
                    ask.batch.wait, ask.batch.over = None, True
                    self._held -= 1
            self._top_up()
