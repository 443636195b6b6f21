"""One call as given: its arguments resolved to a model, a provider and a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rs_embed.core.bands import Unit
from rs_embed.core.checks import require_choice
from rs_embed.core.settings import LibrarySettings, ModelKnobs, WeightsKnobs
from rs_embed.core.specs import InputPrep, OutputSpec, Precision, SensorSpec, SpatialSpec, TemporalSpec
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import ChoiceWarning, InputError, SpecError, warn
from rs_embed.providers import open_provider
from rs_embed.providers.arrays import SupportsArray
from rs_embed.providers.base import Provider
from rs_embed.providers.common.checked import Checked

if TYPE_CHECKING:
    from rs_embed.embedders.base import Embedder, ModelRequest, NetworkCache
    from rs_embed.pipeline.plan import Plan
    from rs_embed.places import Single

Backend = str | Path | Provider
"""A backend's name, a path to rasters, or a provider object."""
InputArrays = SupportsArray | Mapping[str, SupportsArray]
"""Raw values `[C,H,W]` or `[T,C,H,W]` in the unit of the collection, or a mapping modality -> array."""
Sensors = SensorSpec | Mapping[str, SensorSpec] | None
Modalities = str | Sequence[str] | None
Bands = Sequence[str] | Mapping[str, Sequence[str]] | None
Dates = Sequence[str | date | datetime | int] | Mapping[str, Sequence[str | date | datetime | int]]
"""When each frame of the arrays was acquired, `[T]`: moments or days of the year; or a mapping modality -> dates."""
Units = Unit | str | Mapping[str, Unit | str]
"""Of the values of the arrays; or a mapping modality -> unit."""
_DATES = 'dates=["2022-06-01", ...]'
KnobValue = str | int | float | bool | Path | Sequence[int] | Sequence[str] | None


WORDS = (
    *("model_id", "spatial", "places", "temporal", "output", "backend", "sensor", "modality", "bands", "input_chw"),
    *("dates", "unit", "buffer_m", "input_prep", "device", "precision", "on_error", "progress"),
)
"""Keywords of the public calls: what is none of a call's own goes to the model, misspelt ones as well."""


@dataclass(frozen=True)
class Call:
    """The arguments that all calls share, as given."""

    model_id: str | ModelCard
    output: OutputSpec
    sensor: Sensors
    modality: Modalities
    bands: Bands
    input_prep: InputPrep
    device: str
    precision: Precision
    knobs: Mapping[str, KnobValue]

    def plan(
        self,
        provider: Provider,
        places: Sequence[SpatialSpec | None],
        windows: Sequence[TemporalSpec | None],
    ) -> "Plan":
        """Everything checked that can be checked before weights are loaded or pixels fetched."""
        from rs_embed.embedders.runtime.device import pick_device
        from rs_embed.pipeline.plan import Job, plan_items

        require_choice("input_prep", self.input_prep, get_args(InputPrep))
        if not isinstance(self.output, OutputSpec):
            raise SpecError(f"Expected an OutputSpec, got {self.output!r}.", fix="OutputSpec.pooled() or .grid()")
        request = self.request
        prep = request.card.input_prep if self.input_prep == "auto" else self.input_prep
        embedder = _adapter(request.card.adapter)(request, pick_device(self.device), _networks())
        if embedder.geometry().native_only and prep == "resize":
            raise SpecError(
                f"{request.card.id} takes pixels at their own size only, found input_prep='resize'.",
                fix='input_prep="tile" or "crop"',
            )
        embedder.check(self.output)
        for modality, sensor in request.inputs:
            provider.require(modality.name, sensor)
        plan = plan_items(Job(embedder, provider, self.output, prep), places, windows)
        if request.places and any(query.geobox is None for item in plan.items for query in item.queries):
            raise SpecError(
                f"Expected a place for {', '.join(request.places)}, got pixels without one.",
                fix="say where they lie: spatial=PointBuffer(...), on the grid of rs_embed.geobox_for",
            )
        return plan

    @cached_property
    def request(self) -> "ModelRequest":
        """Model, knobs and inputs of the call."""
        from rs_embed.embedders.runtime.device import pick_device, pick_precision
        from rs_embed.pipeline.request import Asked, resolve_request

        require_choice("precision", self.precision, get_args(Precision))
        card = get_card(self.model_id)
        knobs = card.knobs.read(self.knobs, WORDS)
        dense = self.output.kind == "grid" and self.output.detail == "dense"
        asked = Asked(self.modality, self.sensor, self.bands, dense=dense)
        precision = pick_precision(self.precision, pick_device(self.device))
        return resolve_request(_variant(card, knobs), knobs, asked, precision)


def _variant(card: ModelCard, knobs: ModelKnobs) -> ModelCard:
    """The card that really runs: `model_key` may name another size of the family."""
    if not isinstance(knobs, WeightsKnobs) or knobs.model_key in (None, card.model_key):
        return card
    chosen = get_card(knobs.model_key)
    warn(
        f"{card.id} was asked for, but model_key={knobs.model_key!r} (keyword or variable) runs {chosen.id}.",
        ChoiceWarning,
    )
    return chosen


def named(modality: Modalities, input_chw: InputArrays | None) -> Modalities:
    """The modalities asked for; arrays that come with their names need not be named again."""
    return tuple(input_chw) if modality is None and isinstance(input_chw, Mapping) else modality


def one_place(
    spatial: "Single | None", temporal: TemporalSpec | None, buffer_m: float | None
) -> tuple[SpatialSpec | None, TemporalSpec | None]:
    """The place and days of a call for one."""
    from rs_embed.places import read_place

    return read_place(spatial, temporal, buffer_m)


def opened(backend: Backend) -> Provider:
    """The provider of that name, path or object, checked; with the cache of chips, where there is one."""
    provider, settings = open_provider(backend), LibrarySettings.read()
    if settings.chip_cache is not None:
        from rs_embed.providers.cached import CachedProvider

        provider = CachedProvider(provider, settings.chip_cache, settings.chip_cache_gb)
    return Checked(provider)


def provider_of(
    backend: Backend,
    input_chw: InputArrays | None,
    call: Call,
    dates: Dates | None = None,
    unit: Units | None = None,
) -> Provider:
    """Where the pixels come from: the user's arrays, else the backend."""
    if input_chw is None:
        if unit is not None:
            raise SpecError(
                f"Expected unit beside input_chw, got unit={unit!r} alone.",
                fix=f"for files: backend=LocalRasters(path, unit={unit!r})",
            )
        if dates is not None:
            raise SpecError("Expected dates only with input_chw, got them alone.", fix="temporal=TemporalSpec.range()")
        return opened(backend)
    if backend != "auto":
        raise SpecError(
            f"Expected either input_chw or a backend, got both (backend={backend!r}).",
            fix="leave one of them out",
        )
    from rs_embed.providers.arrays import ArrayProvider

    if isinstance(dates, str | date | int):
        one = dates if isinstance(dates, int) else str(dates)
        raise SpecError(f"Expected a list of dates, got {dates!r}.", fix=f"dates=[{one!r}]")
    series = [modality.name for modality, _ in call.request.inputs if modality.is_series]
    if dates is None and series:
        raise InputError(f"Expected the date of each frame of {', '.join(series)}, got none.", fix=_DATES)
    if isinstance(input_chw, Mapping):
        return Checked(ArrayProvider(input_chw, dates=dates, unit=unit))
    names = [modality.name for modality, _ in call.request.inputs]
    if len(names) > 1:
        raise SpecError(
            f"Expected an array for each of {', '.join(names)}, got one.",
            fix=f"pass input_chw={{{names[0]!r}: array, {names[1]!r}: array}}",
        )
    return Checked(ArrayProvider({names[0]: input_chw}, dates=dates, unit=unit))


def _adapter(named: "str | type[Embedder]") -> "type[Embedder]":
    if not isinstance(named, str):
        return named
    module, name = named.split(":")
    adapter: type[Embedder] = vars(import_module(module))[name]
    return adapter


@cache
def _networks() -> "NetworkCache":
    from rs_embed.embedders.base import NetworkCache

    return NetworkCache()
