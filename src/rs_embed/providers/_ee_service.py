"""The two questions that are put to Earth Engine: which scenes, and which pixels. Imports `ee`, which is slow."""

from collections.abc import Sequence

import ee
import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import ReadError, RequestTooLarge
from rs_embed.providers._ee_archives import Place
from rs_embed.providers._ee_errors import EarthEngineJudge
from rs_embed.providers._ee_expressions import Options, Recipe, band_names, frames_image, pixel_grid, scene_list
from rs_embed.providers._ee_pixels import Piece, decode, pieces
from rs_embed.providers._ee_scenes import FramePlan, Scene, read_scenes
from rs_embed.providers._ee_session import Account, client_of
from rs_embed.providers._limiter import Limits
from rs_embed.providers._retry import Retry, Waits
from rs_embed.specs import TemporalSpec


class Service:
    """Earth Engine for one account. Safe to call from several threads."""

    def __init__(self, account: Account, limiter: Limits, waits: Waits, options: Options) -> None:
        """Ask nothing yet; the client is initialised with the first question."""
        self._account, self._options = account, options
        self._retry = Retry(EarthEngineJudge(), limiter, waits)

    def scenes(self, place: Place, window: TemporalSpec | None, *, measured: bool) -> list[Scene]:
        """The scenes on the grid in the window, in order of time; see `scene_list` for `measured`.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """

        def ask() -> object:
            with client_of(self._account):
                return _computed(scene_list(self._recipe(place), window, measured=measured))

        return read_scenes(self._retry.call(ask, f"listing scenes of {place.sensor.collection}"), place.archive)

    def any_scene(self, place: Place) -> bool:
        """Whether the collection has anything on the grid, on whichever day.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """

        def ask() -> bool:
            with client_of(self._account):
                found = ee.ImageCollection(place.archive.asset).filterBounds(self._recipe(place).region)
                return bool(_computed(found.limit(1).size()))

        return self._retry.call(ask, f"looking for {place.sensor.collection}")

    def pixels(self, place: Place, frames: Sequence[FramePlan]) -> NDArray[np.float32]:
        """All bands of all frames, `[T, C + 1, H, W]`, the clear count last, as they travel.

        One request, unless the limits of the service ask for more. What it then still finds too large is quartered
        once.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """
        bands = len(place.sensor.bands) + 1
        made = np.empty((len(frames), bands, *place.shape_px), np.float32)
        waiting = [(piece, True) for piece in pieces(len(frames), place.shape_px, place.sensor, place.archive)]
        while waiting:
            piece, may_split = waiting.pop()
            try:
                values = self._piece(place, frames, piece)
            except RequestTooLarge:
                parts = piece.quarters()
                if not may_split or len(parts) == 1:
                    raise
                waiting += [(part, False) for part in parts]
                continue
            rows, cols = slice(piece.row, piece.row + piece.height), slice(piece.col, piece.col + piece.width)
            ordinals = slice(piece.first_frame, piece.first_frame + piece.frames)
            made[ordinals, :, rows, cols] = values.reshape(piece.frames, bands, piece.height, piece.width)
        return made

    def _piece(self, place: Place, frames: Sequence[FramePlan], piece: Piece) -> NDArray[np.float32]:
        recipe, geobox = self._recipe(place), piece.geobox(place.geobox)
        ordinals = range(piece.first_frame, piece.first_frame + piece.frames)
        names = [name for i in ordinals for name in band_names(recipe, i)]

        def ask() -> NDArray[np.float32]:
            with client_of(self._account):
                image = frames_image(recipe, [frames[i] for i in ordinals], piece.first_frame)
                request = {"expression": image, "fileFormat": "NPY", "grid": pixel_grid(geobox)}
                body: bytes = ee.data.computePixels(request)
            return decode(body, names, (piece.height, piece.width))

        return self._retry.call(ask, f"reading pixels of {place.sensor.collection}")

    def ping(self) -> None:
        """Have one pixel computed.

        Raises:
            ProviderError: The service could not, or would not, answer.
        """

        def ask() -> None:
            with client_of(self._account):
                grid = {
                    "dimensions": {"width": 1, "height": 1},
                    "affineTransform": {"scaleX": 1, "scaleY": -1},
                    "crsCode": "EPSG:4326",
                }
                request = {"expression": ee.Image.constant(1).toByte(), "fileFormat": "NPY", "grid": grid}
                body: bytes = ee.data.computePixels(request)
            decode(body, ["constant"], (1, 1))

        self._retry.call(ask, "asking for one pixel")

    def _recipe(self, place: Place) -> Recipe:
        return Recipe(place.sensor, place.archive, place.geobox, self._options)


def _computed(value: ee.ComputedObject) -> object:
    """What the service makes of an expression.

    Raises:
        ReadError: The answer was cut short: the client then takes its text for the value.
    """
    try:
        told: object = ee.data.computeValue(value)
    except (TypeError, KeyError) as error:
        raise ReadError("Wanted an answer from Earth Engine, found half of one.", fix="try again") from error
    return told
