"""Fetch the chips of one place: each once for all models, several at the same time."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from rs_embed.core.chip import Chip
from rs_embed.core.stopping import Stop, Threads, current, outcome
from rs_embed.providers.base import Provider, Query, pixels_of


@contextmanager
def chip_threads(count: int) -> Iterator[Threads | None]:
    """Yield threads for the chips of one place; `None` for a single chip, which the calling thread fetches.

    When the block ends, chips that are still being fetched are stopped.
    """
    if count <= 1:
        yield None
        return
    stop = Stop(current())
    threads = Threads(count, "rs-embed-chip", stop)
    try:
        yield threads
    finally:
        stop.set()
        threads.close()


class Fetching:
    """The chips of one place.

    Models share a chip even if they name it differently or fill nodata in another way.

    Args:
        threads: Fetch the chips that were started; `None` means that the thread that takes a chip fetches it.
    """

    def __init__(self, threads: Threads | None = None) -> None:
        self._threads = threads
        self._coming: dict[Query, Future[Chip]] = {}

    def begin(self, queries: Iterable[Query], provider: Provider) -> None:
        """Start to fetch these chips, unless another model has started them."""
        if self._threads is None:
            return
        for query in queries:
            key = pixels_of(query)
            if key not in self._coming:
                self._coming[key] = self._threads.submit(provider.fetch, query)

    def take(self, query: Query, provider: Provider) -> Chip:
        """Return the chip.

        Raises:
            Exception: The provider's error, for every model that uses the chip.
        """
        key = pixels_of(query)
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = _fetched(query, provider)  # hashing a grid takes 50 us
        return outcome(coming)

    def cancel(self) -> None:
        """Cancel chips that have not started: the item that needed them has failed."""
        for coming in self._coming.values():
            coming.cancel()


def _fetched(query: Query, provider: Provider) -> Future[Chip]:
    future: Future[Chip] = Future()
    try:
        future.set_result(provider.fetch(query))
    except Exception as error:  # noqa: BLE001  (raised by `take`, for every model that uses the chip)
        future.set_exception(error)
    return future
