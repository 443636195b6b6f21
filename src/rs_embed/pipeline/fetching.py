"""Chips of one place: each is fetched once for all models, several at the same time."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from rs_embed.core.chip import Chip
from rs_embed.core.stopping import Stop, Threads, current, outcome
from rs_embed.providers.base import Provider, Query, pixels_of


@contextmanager
def chip_threads(count: int) -> Iterator[Threads | None]:
    """Threads for the chips of one place; `None` for a single one, as the calling thread fetches it.

    When the block ends, chips that are still under way are stopped.
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

    What a model calls a chip, and what nodata becomes later, are nothing to the provider: models share the chip.

    Args:
        threads: Fetch the chips that were begun; `None`: whoever takes a chip fetches it.
    """

    def __init__(self, threads: Threads | None = None) -> None:
        self._threads = threads
        self._coming: dict[Query, Future[Chip]] = {}

    def begin(self, queries: Iterable[Query], provider: Provider) -> None:
        """Start to fetch these chips, unless another model has done so."""
        if self._threads is None:
            return
        for query in queries:
            key = pixels_of(query)
            if key not in self._coming:
                self._coming[key] = self._threads.submit(provider.fetch, query)

    def take(self, query: Query, provider: Provider) -> Chip:
        """The chip.

        Raises:
            Exception: Whatever the provider has raised, for every model that wants the chip.
        """
        key = pixels_of(query)
        if key not in self._coming:
            self._coming[key] = _fetched(query, provider)
        return outcome(self._coming[key])

    def cancel(self) -> None:
        """Begin no chip that nobody waits for any more: the item that wanted it has failed."""
        for coming in self._coming.values():
            coming.cancel()


def _fetched(query: Query, provider: Provider) -> Future[Chip]:
    future: Future[Chip] = Future()
    try:
        future.set_result(provider.fetch(query))
    except Exception as error:  # noqa: BLE001  (raised by `take`, for every model that wants the chip)
        future.set_exception(error)
    return future
