"""Cut the chips of neighbouring places from one larger read: requests grow with the area, not the number of points."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from odc.geo.geobox import GeoBox

from rs_embed.core.chip import Chip, Source
from rs_embed.core.geo import subgrid
from rs_embed.core.stopping import outcome
from rs_embed.errors import ComputationTimedOut, NoValidPixels, ReadError, RequestTooLarge
from rs_embed.exports.fetching.reader import PlannedFetches, PlannedProvider
from rs_embed.providers.base import Provider, Query, pixels_of

WINDOW_BYTES = 48 * 2**20
"""Largest read: 16 bits per value and as much per frame for the mask. Source: Earth Engine's limit per request."""
SPARSE = 4.0
"""A shared read is skipped if it is this many times larger than its chips together."""
KEPT = 8
"""Number of reads kept for chips still to come (a place that failed before requests none)."""
_ALIGNED_PX = 1e-3
"""Largest offset, pixels, at which two grids count as aligned."""


@dataclass(frozen=True)
class _Box:
    """The position of a chip on its pixel grid, pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def around(self, other: "_Box") -> "_Box":
        return _Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


class _Window:
    """A shared read for neighbouring chips, on the pixel grid of the first."""

    def __init__(self, first: Query, grid: GeoBox) -> None:
        self.first, self.grid = first, grid
        self.box = _Box(0, 0, *grid.shape)
        self.chips_px = self.box.area
        self.members = [first]
        self.most_px = _most_px(first)

    def add(self, query: Query, box: _Box) -> bool:
        """Add a chip if the read stays worthwhile."""
        wider = self.box.around(box)
        chips_px = self.chips_px + box.area
        if wider.area > self.most_px or wider.area > SPARSE * chips_px:
            return False
        self.box, self.chips_px = wider, chips_px
        self.members.append(query)
        return True

    def place_of(self, query: Query) -> _Box | None:
        """Return the position of a chip; `None` if sensor, days or pixel grid differ."""
        same = query.geobox is not None and _kind(query) == _kind(self.first)
        return _place(self.grid, query.geobox) if same and query.geobox is not None else None

    @cached_property
    def query(self) -> Query:
        """Return the query of the read."""
        size = self.box.bottom - self.box.top, self.box.right - self.box.left
        return replace(self.first, geobox=subgrid(self.grid, (self.box.top, self.box.left), 1, size))


def _kind(query: Query) -> Query:
    """Return the query without its place."""
    return replace(pixels_of(query), geobox=None)


def _most_px(query: Query) -> int:
    frames = 1 if query.series is None else query.series.most(query.window)
    return WINDOW_BYTES // (2 * frames * (len(query.sensor.bands) + 1))


def _place(grid: GeoBox, other: GeoBox) -> _Box | None:
    a, b = grid.affine, other.affine
    if str(grid.crs) != str(other.crs) or (a.a, a.b, a.d, a.e) != (b.a, b.b, b.d, b.e):
        return None
    col, row = ~a @ (b.c, b.f)
    if max(abs(col - round(col)), abs(row - round(row))) > _ALIGNED_PX:
        return None
    height, width = other.shape
    return _Box(round(row), round(col), round(row) + height, round(col) + width)


def cut_windows(queries: Sequence[Query]) -> list[_Window]:
    """Group consecutive chips into shared reads, in order (units hold neighbours); a chip alone is its own."""
    found: list[_Window] = []
    open_windows: dict[Query, _Window] = {}
    for query in queries:
        if query.geobox is None:
            continue
        window = open_windows.get(_kind(query))
        box = None if window is None else window.place_of(query)
        if window is None or box is None or not window.add(query, box):
            window = open_windows[_kind(query)] = _Window(query, query.geobox)
            found.append(window)
    return found


def count_reads(queries: Sequence[Query]) -> tuple[int, int]:
    """Return how many reads fetch these chips, and how many pixels they have together."""
    windows = cut_windows(queries)
    return len(windows), sum(window.box.area for window in windows)


class SharedReads(PlannedProvider):
    """A provider that fetches larger reads and cuts chips from them.

    Pixels equal those of single reads wherever a pixel depends only on its own location. A backend that selects scenes
    by the requested area may select others for a larger read; the identity records that reads were shared.
    """

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider)
        self._lock = threading.Lock()
        self._window_of: dict[Query, _Window] = {}
        self._reads: OrderedDict[_Window, Future[Chip]] = OrderedDict()
        self._left: dict[_Window, int] = {}

    def identity(self) -> str:
        """Return the provider's identity, marked as shared."""
        return f"{self._provider.identity()} shared:1"

    def announce(self, unit: str, planned: Sequence[PlannedFetches]) -> None:
        """See `PlannedProvider`; announces the shared reads to the wrapped provider."""
        asked = [query for place in planned for query in place.queries]
        times = Counter(map(pixels_of, asked))
        windows = cut_windows(list({pixels_of(query): query for query in asked}.values()))
        with self._lock:
            self._window_of = {pixels_of(query): window for window in windows for query in window.members}
            self._left = {window: sum(times[pixels_of(query)] for query in window.members) for window in windows}
            self._reads.clear()
        super().announce(unit, [PlannedFetches(str(i), (window.query,)) for i, window in enumerate(windows)])

    def fetch(self, query: Query) -> Chip:
        """Return the chip, cut from its shared read.

        Raises:
            NoValidPixels: The chip has no valid pixel.
        """
        window = self._window_of.get(pixels_of(query))
        place = None if window is None else window.place_of(query)
        if window is None or place is None or query.geobox is None:
            return self._provider.fetch(query)
        try:
            chip = _cut(self._read(window), query.geobox, place.top - window.box.top, place.left - window.box.left)
        except (RequestTooLarge, ComputationTimedOut, ReadError):  # these concern only the larger read
            return self._provider.fetch(query)
        if chip is None:  # raised here, where no frame references the read: errors are stored with their frames
            raise NoValidPixels(
                f"Expected at least one valid pixel of {query.sensor.collection}, got only nodata.",
                fix="widen the window of days, or ask for another place",
            )
        return chip

    def _read(self, window: _Window) -> Chip:
        """Return the read; the first thread that needs it fetches it, and it is freed when all its chips are cut."""
        with self._lock:
            coming = self._reads.get(window)
            mine = coming is None
            coming = coming or self._reads.setdefault(window, Future())
            self._left[window] -= 1
            if self._left[window] <= 0:
                self._reads.pop(window, None)
            while len(self._reads) > KEPT:
                self._reads.popitem(last=False)
        if mine:
            try:
                coming.set_result(self._provider.fetch(window.query))
            except BaseException as error:  # noqa: BLE001  (raised for each of its chips; no thread may wait forever)
                coming.set_exception(error.with_traceback(None))
        return outcome(coming)


def _cut(whole: Chip, geobox: GeoBox, top: int, left: int) -> Chip | None:
    """Cut a chip, without the frames that are empty there; `None` if all are."""
    height, width = geobox.shape
    values = whole.values[:, :, top : top + height, left : left + width]
    kept = [frame for frame, one in enumerate(values) if np.isfinite(one).any()]
    if not kept:
        return None
    times = tuple(whole.times[frame] for frame in kept)
    return Chip(values[kept].copy(), whole.bands, geobox, times, _source(whole, kept))


def _source(whole: Chip, kept: Sequence[int]) -> Source:
    source = whole.source
    if len(kept) == len(whole.times) or len(source.scenes_per_frame) != len(whole.times):
        return source
    picked = [at for frame, scenes in enumerate(_scenes(source.scenes_per_frame)) if frame in kept for at in scenes]
    return replace(
        source,
        scene_ids=tuple(source.scene_ids[at] for at in picked),
        scene_times=tuple(source.scene_times[at] for at in picked),
        scenes_per_frame=tuple(source.scenes_per_frame[frame] for frame in kept),
    )


def _scenes(per_frame: Sequence[int]) -> Iterator[range]:
    start = 0
    for count in per_frame:
        yield range(start, start + count)
        start += count
