"""`fit_mosaiks`: make a model for imagery that no model was trained on, from a sample of that imagery.

The imagery is planned, fetched and checked like that of any model. Then `embedders.whitening` makes the filters.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.core.bands import Unit, bands_of
from rs_embed.core.checks import require_whole, short
from rs_embed.core.chip import Chip
from rs_embed.core.geo import subgrid
from rs_embed.core.hashing import json_digest
from rs_embed.core.progress import progress_bar
from rs_embed.core.specs import SensorSpec, TemporalSpec
from rs_embed.core.stopping import Stop, Threads, current, outcome
from rs_embed.embedders.banks import IMAGE, draft, load_mosaiks, save_bank
from rs_embed.embedders.card import ModelCard, is_file_id
from rs_embed.embedders.whitening import fit_filters
from rs_embed.errors import (
    NoImagery,
    NoValidPixels,
    OutsideCoverage,
    PixelWarning,
    RSEmbedError,
    SpecError,
    UnitMismatch,
    warn,
)
from rs_embed.pipeline.plan import on_grids
from rs_embed.pipeline.request import Backend, EmbeddingRequest
from rs_embed.plan import Plan
from rs_embed.providers.arrays import ArrayProvider, SupportsArray
from rs_embed.providers.base import Provider, Query
from rs_embed.providers.common.checked import Checked, require_asked
from rs_embed.redact import redacted

if TYPE_CHECKING:
    from rs_embed.places import Given, Temporal

Sample = Chip | SupportsArray | str | Path | Provider
"""A chip, an array `[C, H, W]`, or a source of imagery: a path, or anything else that `backend=` takes."""
FILTERS = 512
"""The number of filters in the bundled bank."""
WINDOW_PX, WINDOWS = 256, 32
"""For an area larger than twice `WINDOW_PX` (pixels a side), `WINDOWS` squares are read, drawn with the seed."""
FETCH_WORKERS = 8
SCENES = 100
"""Most scene ids that a file lists."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_ABSENCES = (NoImagery, NoValidPixels, OutsideCoverage)


def fit_mosaiks(
    imagery: Sample | Iterable[Sample],
    sensor: SensorSpec,
    out: str | Path,
    *,
    places: "Given | None" = None,
    temporal: "Temporal" = None,
    buffer_m: float | str | None = None,
    unit: Unit | str | None = None,
    filters: int = FILTERS,
    seed: int = 0,
    name: str | None = None,
    progress: bool = True,
) -> ModelCard:
    """Make a model of your own imagery without training: MOSAIKS, with patches of that imagery as filters.

    The file is the model: its path is a valid model id in Python, on the command line, in exports and in other
    processes. You can also pass the returned card, or give it a short name with `register_model(card)`. The file holds
    bands, units, pixel size and collection, so nothing needs to be registered where it is used.

    Args:
        imagery: A list of chips, arrays `[C, H, W]` or rasters; or anything that `backend=` takes: "gee", "stac", the
            path of a raster, a pattern of paths, a `LocalRasters`. Hundreds of square kilometres are better than one:
            sample the whole area and season of your study.
        sensor: Bands, collection and pixel size. For a collection of your own, call `register_collection` first.
        out: The file to write, `.safetensors`.
        places: Where to look, if `imagery` is a backend: anything that `get_embeddings` takes. By default, everything
            the backend holds. Areas larger than 512 px a side are sampled.
        temporal: One window of days, or one per place.
        buffer_m: Half the side of the square around points, metres.
        unit: Unit of the arrays, if it is not that of the collection.
        filters: Number of filters; each gives two features.
        seed: Seed of the random draws: the same imagery and seed give the same file.
        name: Name of the model; by default, the name of the file.
        progress: Show a progress bar on a terminal or in a notebook.

    Returns:
        The card of the new model.

    Raises:
        InputError: There are too few valid pixels, a band is constant, or bands or units differ from the sensor's.
        SpecError: An argument is invalid.
        RSEmbedError: Imagery could not be obtained. A place without imagery is left out, with a warning, as long as
            others have some.
        StorageError: The file cannot be written.

    Source: Rolf et al. 2021, https://doi.org/10.1038/s41467-021-24638-z
    """
    path = _checked_path(out)
    name = _checked_name(path.stem if name is None else name)
    if not isinstance(sensor, SensorSpec):
        raise SpecError(f"Expected a SensorSpec, got {short(sensor)}.", fix='SensorSpec("ME/MINE", ("red", "nir"), 3)')
    require_whole("filters", filters, 1, 65_536)
    require_whole("seed", seed, 0, 2**32 - 1)
    sources = _listed(imagery)
    _require_meant(sources, places, unit)
    where = _Where(draft(name, sensor), places, temporal, buffer_m)
    asked = [
        _of_chip(source, sensor)
        if isinstance(source, Chip)
        else _of_array(source, sensor, unit)
        if isinstance(source, SupportsArray)
        else _of_backend(source, where, np.random.default_rng((seed, index)))
        for index, source in enumerate(sources)
    ]
    reading = _Reading([fetch for one in asked for fetch in one.fetches], sensor)
    with closing(reading.pixels(progress=progress)) as pixels:
        bank = fit_filters(pixels, sensor.bands, about=len(reading.fetches), filters=filters, seed=seed)
    facts = {"chips": bank.chips, "scenes": cast("JsonValue", sorted(reading.scenes)[:SCENES])}
    save_bank(path, name, sensor, bank, {"seed": seed, "source": json_digest([one.identity for one in asked]), **facts})
    return load_mosaiks(path)


@dataclass(frozen=True)
class _Asked:
    """The imagery of one source, not read yet."""

    fetches: tuple[Callable[[], Chip], ...]
    identity: str


@dataclass(frozen=True)
class _Where:
    """The part of the request that is the same for all backends."""

    card: ModelCard
    places: "Given | None"
    temporal: "Temporal"
    buffer_m: float | str | None


class _Reading:
    """Reads the requested chips ahead, and collects the ids of their scenes."""

    def __init__(self, fetches: Sequence[Callable[[], Chip]], sensor: SensorSpec) -> None:
        self.fetches = fetches
        self.scenes: set[str] = set()
        self._wanted = [band.unit for band in bands_of(sensor.collection, sensor.bands)]

    def pixels(self, *, progress: bool) -> Generator[NDArray[np.float32]]:
        """Yield `[band, height, width]` for each chip; places without imagery are left out."""
        absent: list[RSEmbedError] = []
        with (
            progress_bar(len(self.fetches), shown=progress, label="fetch", unit="chips") as advance,
            closing(self._chips()) as chips,
        ):
            for chip in chips:
                advance(1, isinstance(chip, RSEmbedError))
                if isinstance(chip, RSEmbedError):
                    absent.append(chip)
                    continue
                self._require_unit(chip)
                self.scenes.update(chip.source.scene_ids)
                yield chip.values[0]
        if len(absent) == len(self.fetches):
            raise absent[0]
        if 2 * len(absent) > len(self.fetches):
            warn(f"{len(absent)} of {len(self.fetches)} chips have no imagery and are left out.", PixelWarning)

    def _chips(self) -> Generator[Chip | RSEmbedError]:
        """Yield the chips in order, fetched ahead in threads."""
        stop = Stop(current())
        threads = Threads(min(FETCH_WORKERS, len(self.fetches)), "rs-embed-fit", stop)
        pending: deque[Future[Chip | RSEmbedError]] = deque()
        left = iter(self.fetches)
        try:
            while True:
                more = islice(left, 2 * FETCH_WORKERS - len(pending))
                pending.extend(threads.submit(_fetched, fetch) for fetch in more)
                if not pending:
                    return
                yield outcome(pending.popleft())
        finally:
            stop.set()
            threads.close()

    def _require_unit(self, chip: Chip) -> None:
        """Require the exact unit: here, bytes would be mixed with values in the unit of the collection."""
        for band, unit in zip(chip.bands, self._wanted, strict=True):
            if band.unit != unit:
                raise UnitMismatch(
                    f"Expected {band.name} in {unit}, got {band.unit}.",
                    chip=chip.describe(),
                    fix="give all imagery in the unit of its collection, or register one of your own in that unit",
                )


def _fetched(fetch: Callable[[], Chip]) -> Chip | RSEmbedError:
    try:
        return fetch()
    except _ABSENCES as error:
        return error


def _of_chip(chip: Chip, sensor: SensorSpec) -> _Asked:
    require_asked(chip, Query(IMAGE, sensor, None, None), "imagery")
    return _Asked((lambda: chip,), f"{chip.describe()} {hashlib.sha256(chip.values.tobytes()).hexdigest()}")


def _of_array(array: SupportsArray, sensor: SensorSpec, unit: Unit | str | None) -> _Asked:
    provider = Checked(ArrayProvider({IMAGE: array}, unit=unit))
    provider.require(IMAGE, sensor)
    return _Asked((partial(provider.fetch, Query(IMAGE, sensor, None, None)),), provider.identity())


def _of_backend(backend: Backend, where: _Where, chance: np.random.Generator) -> _Asked:
    request = EmbeddingRequest(model_id=where.card, backend=backend)
    if where.places is None:
        plan = Plan.laid(request, [None], [cast("TemporalSpec | None", where.temporal)])
    else:
        plan = Plan.of(request, where.places, where.temporal, where.buffer_m)
    job = plan.job
    queries = [one for item in on_grids(job, plan.items).items for one in _windows(item.queries[0], chance)]
    places = plan.fingerprint() if where.places is not None else where.temporal
    return _Asked(
        tuple(partial(job.provider.fetch, query) for query in queries), f"{redacted(job.provider.identity())} {places}"
    )


def _windows(query: Query, chance: np.random.Generator) -> list[Query]:
    """Return the query itself or, for a large area, some squares of it."""
    if query.geobox is None or max(query.geobox.shape) <= 2 * WINDOW_PX:
        return [query]
    height, width = (min(WINDOW_PX, side) for side in query.geobox.shape)
    rows = chance.integers(0, query.geobox.shape[0] - height, WINDOWS, endpoint=True).tolist()
    cols = chance.integers(0, query.geobox.shape[1] - width, WINDOWS, endpoint=True).tolist()
    corners = zip(rows, cols, strict=True)
    return [replace(query, geobox=subgrid(query.geobox, corner, 1, (height, width))) for corner in corners]


def _listed(imagery: Sample | Iterable[Sample]) -> list[Sample]:
    """List the sources; a pattern of paths counts as each of its files."""
    from rs_embed.providers.rasters.folder import is_pattern, matching  # here, because rasterio is slow to import

    single = isinstance(imagery, Chip | SupportsArray | str | Path) or not isinstance(imagery, Iterable)
    sources = cast("list[Sample]", [imagery] if single else list(cast("Iterable[Sample]", imagery)))
    found: list[Sample] = []
    for source in sources:
        several = isinstance(source, str | Path) and is_pattern(source)
        found += matching(cast("str | Path", source)) if several else [source]
    if not found:
        raise SpecError(
            "Expected imagery, got an empty list.", fix='pass a list of arrays, or a path such as "tiles/*.tif"'
        )
    return found


def _require_meant(sources: Sequence[Sample], places: "Given | None", unit: Unit | str | None) -> None:
    arrays = [isinstance(source, SupportsArray) for source in sources]
    if places is not None and (len(sources) > 1 or any(arrays) or isinstance(sources[0], Chip)):
        raise SpecError(
            "Expected `places` with a single backend, got it with arrays, chips or several sources.",
            fix="leave out `places`",
        )
    if unit is not None and not all(arrays):
        raise SpecError(
            f"Expected unit beside arrays, got unit={unit!r} for other imagery.",
            fix=f"for files, use LocalRasters(path, unit={str(unit)!r})",
        )


def _checked_path(out: str | Path) -> Path:
    if not isinstance(out, str | Path) or not is_file_id(str(out)):
        raise SpecError(f"Expected a path that ends in .safetensors, got {short(out)}.", fix='out="planet.safetensors"')
    path = Path(out).expanduser()
    if not path.parent.is_dir():
        raise SpecError(f"Expected an existing folder, got {str(path.parent)!r}.", fix="create it, or choose another")
    return path


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SpecError(
            f"Expected a name of letters, digits, dots, dashes and underscores, got {short(name)}.",
            fix='for example name="planet_2023"',
        )
    return name
