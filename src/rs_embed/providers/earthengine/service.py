"""Request lists of scenes and pixels from Earth Engine. Imports the client, which is slow."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.specs import TemporalSpec
from rs_embed.core.stopping import POLL_S, PerProcess, Stop, Threads, current, outcome
from rs_embed.errors import ComputationTimedOut, RequestTooLarge
from rs_embed.providers.common.limiter import Limits
from rs_embed.providers.common.retry import Retry, Waits
from rs_embed.providers.earthengine.archives import Target
from rs_embed.providers.earthengine.client import ee, knows, learn
from rs_embed.providers.earthengine.errors import EarthEngineJudge
from rs_embed.providers.earthengine.expressions import (
    PixelOptions,
    Recipe,
    band_names,
    frames_image,
    pixel_grid,
    scene_list,
)
from rs_embed.providers.earthengine.http import connection_of
from rs_embed.providers.earthengine.pixels import Piece, decode, pieces
from rs_embed.providers.earthengine.scenes import ArchivedScene, FramePlan, read_scenes
from rs_embed.providers.earthengine.session import Account

_TOO_MUCH = (RequestTooLarge, ComputationTimedOut)
"""Errors after which a smaller request may succeed."""


PIECES_AT_ONCE = 8
"""Pieces of one chip requested at once, if the limiter allows; decoding one takes up to 400 MB."""
_LEARNING = PerProcess(Lock)


class Service:
    """Earth Engine for one account. Safe to call from several threads."""

    def __init__(self, account: Account, limiter: Limits, waits: Waits, options: PixelOptions) -> None:
        """Configure it, without sending a request; the process's first request also loads Earth Engine's functions."""
        self._connection, self._options, self._waits = connection_of(account), options, waits
        self._retry = Retry(EarthEngineJudge(), limiter, waits)

    def scenes(self, target: Target, window: TemporalSpec | None, *, measured: bool) -> list[ArchivedScene]:
        """List the scenes on the grid in the window, in order of time; see `scene_list` for `measured`.

        A list of more than 5,000 scenes, or one that takes too much memory or time, is requested for half of the window
        at a time, down to single days.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """
        self._learn()
        found: list[ArchivedScene] = []
        waiting, until = [window], self._until()
        while waiting:
            part = waiting.pop()
            try:
                found += self._scenes_of(target, part, measured=measured)
            except _TOO_MUCH:
                halves = () if part is None else part.split(2)
                if len(halves) < 2 or self._waits.clock() > until:
                    raise
                waiting += halves
        return sorted(found, key=lambda scene: (scene.time, scene.id))

    def _scenes_of(self, target: Target, window: TemporalSpec | None, *, measured: bool) -> list[ArchivedScene]:
        expression = _encoded(scene_list(self._recipe(target), window, measured=measured))

        def ask() -> list[ArchivedScene]:
            return read_scenes(self._connection.value(expression), target.archive)

        return self._retry.call(ask, f"listing scenes of {target.sensor.collection}")

    def any_scene(self, target: Target) -> bool:
        """Return whether the collection has any image on the grid, on any day.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """
        self._learn()
        found = self._recipe(target).images.filterBounds(self._recipe(target).region)
        expression = _encoded(found.limit(1).size())
        return bool(
            self._retry.call(lambda: self._connection.value(expression), f"looking for {target.sensor.collection}")
        )

    def pixels(self, target: Target, frames: Sequence[FramePlan]) -> NDArray[np.float32]:
        """Request all bands of all frames, `[T, C + 1, H, W]`, the clear count last, with values in transit.

        Sends one request or, if the limits of the service require it, several at the same time. A request that the
        service finds too large or gives up computing is split further, down to one frame of 16 x 16 pixels.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """
        self._learn()
        bands = len(target.sensor.bands) + 1
        made, until = np.empty((len(frames), bands, *target.shape_px), np.float32), self._until()

        def fill(piece: Piece) -> None:
            waiting = [piece]
            while waiting:
                part = waiting.pop()
                try:
                    values = self._piece(target, frames, part)
                except _TOO_MUCH:
                    parts = part.smaller()
                    if not parts or self._waits.clock() > until:
                        raise
                    waiting += parts
                    continue
                rows, cols = slice(part.row, part.row + part.height), slice(part.col, part.col + part.width)
                ordinals = slice(part.first_frame, part.first_frame + part.frames)
                made[ordinals, :, rows, cols] = values.reshape(part.frames, bands, part.height, part.width)

        _for_each(pieces(len(frames), target.shape_px, target.sensor, target.archive), fill)
        return made

    def _piece(self, target: Target, frames: Sequence[FramePlan], piece: Piece) -> NDArray[np.float32]:
        recipe, geobox = self._recipe(target), piece.geobox(target.geobox)
        ordinals = range(piece.first_frame, piece.first_frame + piece.frames)
        names = [name for i in ordinals for name in band_names(recipe, i)]
        image = frames_image(recipe, [frames[i] for i in ordinals], piece.first_frame)
        asking = self._asking_pixels(image, pixel_grid(geobox), names, (piece.height, piece.width))
        return self._retry.call(asking, f"reading pixels of {target.sensor.collection}")

    def _asking_pixels(
        self, image: "ee.Image", grid: Mapping[str, object], names: Sequence[str], shape: tuple[int, int]
    ) -> Callable[[], NDArray[np.float32]]:
        request = {"expression": _encoded(image), "fileFormat": "NPY", "grid": grid}
        return lambda: decode(self._connection.pixels(request), names, shape)

    def ping(self) -> None:
        """Compute one pixel.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """
        self._learn()
        grid = {
            "dimensions": {"width": 1, "height": 1},
            "affineTransform": {"scaleX": 1, "scaleY": -1},
            "crsCode": "EPSG:4326",
        }
        asking = self._asking_pixels(ee.Image.constant(1).toByte(), grid, ["constant"], (1, 1))
        self._retry.call(asking, "asking for one pixel")

    def _learn(self) -> None:
        """Load the list of Earth Engine's functions once per process: expressions need it."""
        if knows():
            return
        lock = _LEARNING.here
        while not lock.acquire(timeout=POLL_S):
            current().check()
        try:
            if not knows():
                self._retry.call(lambda: learn(self._connection.algorithms()), "asking what Earth Engine can compute")
        finally:
            lock.release()

    def _until(self) -> float:
        """When to stop splitting a request that was too large."""
        return self._waits.clock() + self._waits.backoff.total_s

    def _recipe(self, target: Target) -> Recipe:
        return Recipe(target.sensor, target.archive, target.geobox, self._options)


def _for_each(waiting: Sequence[Piece], fill: Callable[[Piece], None]) -> None:
    """Fill all pieces, several at the same time. The first error, in their order, stops the others."""
    if len(waiting) == 1:
        fill(waiting[0])
        return
    stop = Stop(current())
    threads = Threads(PIECES_AT_ONCE, "rs-embed-gee", stop)
    try:
        for coming in [threads.submit(fill, piece) for piece in waiting]:
            outcome(coming)
    finally:
        stop.set()
        threads.close()


def _encoded(value: "ee.ComputedObject") -> object:
    """Encode an expression for a request."""
    graph: object = ee.serializer.encode(value, for_cloud_api=True)
    return graph
