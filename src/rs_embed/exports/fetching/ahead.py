"""Chips brought in batches, ahead of use, by threads here or by tasks on a cluster."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rs_embed.core.chip import Chip
from rs_embed.core.stopping import Stop, Threads, outcome
from rs_embed.exports.fetching.reader import PlannedFetches, PlannedProvider
from rs_embed.providers.base import Provider, Query, pixels_of

BATCH_CHIPS = 64
"""Chips a batch at most: the first of many small ones must not wait for thousands."""
Brought = Sequence[Chip | Exception]
"""One for each query of a batch, in order."""
Bring = Callable[[Sequence[Query]], Callable[[], Brought]]
"""Begins to bring a batch; what it returns waits for it, and may be called from several threads."""


def bring_by_threads(provider: Provider, threads: int, stop: Stop) -> Bring:
    """Fetch batches in threads of this process, which end with the job, or when nobody holds this any more."""
    pool = Threads(threads, "rs-embed-ahead", stop)

    def fetch(query: Query) -> Chip | Exception:
        try:
            return provider.fetch(query)
        except Exception as error:  # noqa: BLE001  (raised where the chip is asked for)
            return error.with_traceback(None)

    def bring(queries: Sequence[Query]) -> Callable[[], Brought]:
        coming = [pool.submit(fetch, query) for query in queries]
        return lambda: [outcome(one) for one in coming]

    return bring


@dataclass
class _Batch:
    """Chips that come together."""

    index: dict[Query, int] = field(default_factory=dict)
    """Place of each query, as the provider sees it."""
    queries: list[Query] = field(default_factory=list)
    nbytes: int = 0
    left: int = 0
    """How often a chip of it will still be asked for."""
    wait: Callable[[], Brought] | None = None
    """`None` before it is begun, and after it was let go."""
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
    """A chip that one place will ask for, once."""

    batch: _Batch
    place: int
    counted: bool = True
    """Whether its batch still waits for it."""


class Ahead(PlannedProvider):
    """A provider whose chips are brought in batches, a few of them ahead of the one that is being read.

    Memory: `batches` batches of `batch_bytes` (one chip, where that is more), and one more for each thread that asks.
    A batch is let go when all of its chips were asked for.

    Args:
        provider: Asked directly for what was not expected.
        bring: Brings batches.
        batch_bytes: Pixels of one batch, at most.
        batches: On their way or waiting at the same time.
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
        """See `PlannedProvider`; the first batches are begun."""
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
        """The chip, when its batch has come."""
        found = self._found(query)
        if isinstance(found, Exception):
            raise found
        return self._provider.fetch(query) if found is None else found

    def _found(self, query: Query) -> Chip | Exception | None:
        """What was brought; `None` if nothing was. Errors come back, as a traceback would keep the batch alive."""
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
            self._settle(self._by_place[ask.place])  # the place has failed: it may ask for nothing more
            return found
        chip = replace(found, values=found.values.copy())  # its own: the batch may go
        self._settle([ask])
        return chip

    def _next_ask(self, key: Query) -> _Ask | None:
        asks = self._asks.get(key)
        return asks.popleft() if asks else None

    def _waiting_for(self, batch: _Batch) -> Callable[[], Brought] | None:
        """What waits for the batch, begun now if it was not; `None` if it was let go already."""
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
        """These will not be waited for any more."""
        with self._lock:
            for ask in asks:
                ask.batch.left -= int(ask.counted)
                ask.counted = False
                if ask.batch.left == 0 and ask.batch.wait is not None:
                    ask.batch.wait, ask.batch.over = None, True
                    self._held -= 1
            self._top_up()
