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
        self._coming: list[tuple[Query, Future[Chip]]] = []
        """A few only, so they are compared: the hash of a grid takes 0.08 ms."""

    def begin(self, queries: Iterable[Query], provider: Provider) -> None:
        """Start to fetch these chips, unless another model has started them."""
        if self._threads is None:
            return
        for query in queries:
            key = pixels_of(query)
            if self._find(key) is None:
                self._coming.append((key, self._threads.submit(provider.fetch, query)))

    def take(self, query: Query, provider: Provider) -> Chip:
        """Return the chip.

        Raises:
            Exception: The provider's error, for every model that uses the chip.
        """
        key = pixels_of(query)
        coming = self._find(key)
        if coming is None:
            coming = _fetched(query, provider)
            self._coming.append((key, coming))
        return outcome(coming)

    def cancel(self) -> None:
        """Cancel chips that have not started: the item that needed them has failed."""
        for _, coming in self._coming:
            coming.cancel()

    def _find(self, key: Query) -> Future[Chip] | None:
        return next((coming for other, coming in self._coming if other == key), None)


def _fetched(query: Query, provider: Provider) -> Future[Chip]:
    future: Future[Chip] = Future()
    try:
        future.set_result(provider.fetch(query))
    except Exception as error:  # noqa: BLE001  (raised by `take`, for every model that uses the chip)
        future.set_exception(error)
    return future
