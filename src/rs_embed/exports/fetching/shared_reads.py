"""Super-tiles: chips of neighbours are cut from one larger read; requests grow with the area, not with the points."""

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
"""Of a read, 16 bits a value and as much for the mask of each frame. Source: Earth Engine's limit of one request."""
SPARSE = 4.0
"""A window is not read if it is so many times larger than the chips in it together."""
KEPT = 8
"""Windows kept although somebody may still ask for a chip of them (who failed before does not)."""
_ALIGNED_PX = 1e-3
"""How far the pixels of two grids may be apart to count as the same."""


@dataclass(frozen=True)
class _Box:
    """Where a chip lies on the lattice of its pixels."""

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
    """Chips of neighbours, on the lattice of the first."""

    def __init__(self, first: Query, grid: GeoBox) -> None:
        self.first, self.grid = first, grid
        self.box = _Box(0, 0, *grid.shape)
        self.chips_px = self.box.area
        self.members = [first]
        self.most_px = _most_px(first)

    def add(self, query: Query, box: _Box) -> bool:
        """Take a chip, if the window stays one that is worth reading."""
        wider = self.box.around(box)
        chips_px = self.chips_px + box.area
        if wider.area > self.most_px or wider.area > SPARSE * chips_px:
            return False
        self.box, self.chips_px = wider, chips_px
        self.members.append(query)
        return True

    def place_of(self, query: Query) -> _Box | None:
        """Where a chip lies; `None` if its pixels are others: another sensor, other days, another lattice."""
        same = query.geobox is not None and _kind(query) == _kind(self.first)
        return _place(self.grid, query.geobox) if same and query.geobox is not None else None

    @cached_property
    def query(self) -> Query:
        """The read."""
        size = self.box.bottom - self.box.top, self.box.right - self.box.left
        return replace(self.first, geobox=subgrid(self.grid, (self.box.top, self.box.left), 1, size))


def _kind(query: Query) -> Query:
    """All but where."""
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
    """Windows over chips that follow each other (units hold neighbours), in order; a chip with none is its own."""
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
    """How many reads bring these chips, and how many pixels they have together."""
    windows = cut_windows(queries)
    return len(windows), sum(window.box.area for window in windows)


class SharedReads(PlannedProvider):
    """A provider that is asked for windows, from which chips are cut.

    Pixels are those of single reads wherever a pixel depends on its own place alone. A backend that chooses scenes by
    what it is asked for may choose others for a window; the identity says that reads were shared.
    """

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider)
        self._lock = threading.Lock()
        self._window_of: dict[Query, _Window] = {}
        self._reads: OrderedDict[_Window, Future[Chip]] = OrderedDict()
        self._left: dict[_Window, int] = {}

    def identity(self) -> str:
        """That of the provider, and that reads are shared."""
        return f"{self._provider.identity()} shared:1"

    def announce(self, unit: str, planned: Sequence[PlannedFetches]) -> None:
        """See `PlannedProvider`; the provider is given the shared reads instead."""
        asked = [query for place in planned for query in place.queries]
        times = Counter(map(pixels_of, asked))
        windows = cut_windows(list({pixels_of(query): query for query in asked}.values()))
        with self._lock:
            self._window_of = {pixels_of(query): window for window in windows for query in window.members}
            self._left = {window: sum(times[pixels_of(query)] for query in window.members) for window in windows}
            self._reads.clear()
        super().announce(unit, [PlannedFetches(str(i), (window.query,)) for i, window in enumerate(windows)])

    def fetch(self, query: Query) -> Chip:
        """The chip, cut from its window.

        Raises:
            NoValidPixels: Of the window, none is within the chip.
        """
        window = self._window_of.get(pixels_of(query))
        place = None if window is None else window.place_of(query)
        if window is None or place is None or query.geobox is None:
            return self._provider.fetch(query)
        try:
            chip = _cut(self._read(window), query.geobox, place.top - window.box.top, place.left - window.box.left)
        except (RequestTooLarge, ComputationTimedOut, ReadError):  # of what nobody but us has asked for
            return self._provider.fetch(query)
        if chip is None:  # raised where nothing holds the window: errors are kept, with all that their frames hold
            raise NoValidPixels(
                f"Expected at least one valid pixel of {query.sensor.collection}, got only nodata.",
                fix="widen the window of days, or ask for another place",
            )
        return chip

    def _read(self, window: _Window) -> Chip:
        """The window; read by who needs it first, let go when all of its chips were cut."""
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
            except BaseException as error:  # noqa: BLE001  (raised for every chip of it; nobody may wait for ever)
                coming.set_exception(error.with_traceback(None))
        return outcome(coming)


def _cut(whole: Chip, geobox: GeoBox, top: int, left: int) -> Chip | None:
    """The chip, without frames that have nothing there; `None` if all have nothing."""
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
