"""The public calls. Each is a plan handed to the one pipeline.

Torch and imagery libraries load when a model runs, not when this module is imported.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import card_of_key, get_card, list_cards
from rs_embed.embedders.describe import ModelDescription, describe
from rs_embed.errors import BatchError, ChoiceWarning, SpecError
from rs_embed.providers import open_provider
from rs_embed.providers.arrays import SupportsArray
from rs_embed.providers.base import Provider
from rs_embed.settings import ModelKnobs, WeightsKnobs
from rs_embed.specs import (
    InputPrep,
    OutputSpec,
    Precision,
    SensorSpec,
    SpatialSpec,
    TemporalSpec,
    require_choice,
)

if TYPE_CHECKING:
    from rs_embed.embedders.base import Embedder, ModelRequest, NetworkCache
    from rs_embed.embedding import Embedding
    from rs_embed.pipeline.plan import Plan
    from rs_embed.report import ChipReport

Backend = str | Path | Provider
"""A backend's name, a path to rasters, or a provider object."""
InputArrays = SupportsArray | Mapping[str, SupportsArray]
"""Raw values `[C,H,W]` or `[T,C,H,W]` in the unit of the collection, or a mapping modality -> array."""
Sensors = SensorSpec | Mapping[str, SensorSpec] | None
Modalities = str | Sequence[str] | None
KnobValue = str | int | float | bool | Path | None


def get_embedding(
    model_id: str,
    spatial: SpatialSpec | None = None,
    temporal: TemporalSpec | None = None,
    output: OutputSpec = OutputSpec.pooled(),
    backend: Backend = "auto",
    *,
    sensor: Sensors = None,
    modality: Modalities = None,
    input_chw: InputArrays | None = None,
    input_prep: InputPrep = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    **knobs: KnobValue,
) -> "Embedding":
    """The embedding of one place.

    Args:
        model_id: Id or alias of the catalog (`list_models()`).
        spatial: Where; `None` takes everything that a raster, the sample or `input_chw` holds.
        temporal: Which days, half-open. The sample and undated rasters are answered with what they are.
        output: `OutputSpec.pooled()` for a vector `[D]`, `OutputSpec.grid()` for a token grid `[D,H,W]`.
        backend: "sample", a path to a raster, a `LocalRasters`, or any `Provider`.
        sensor: Other imagery than the card's default: bands, pixel size, cloud limit, composite.
        modality: One of the card's, or several ("s2+s1").
        input_chw: Your own pixels instead of a backend, as the collection stores them (Sentinel-2: 0-based DN).
        input_prep: "resize" to the network's size, "crop" the centre or "tile" at native pixel size;
            "auto" is the card's choice.
        device: "auto", "cpu", "cuda" or "cuda:0".
        precision: "fp32", or "bf16" (faster, cosine to fp32 above 0.999).
        **knobs: Keyword forms of the model's `RS_EMBED_*` variables (`describe_model(model_id)`).

    Raises:
        RSEmbedError: One typed error per thing that can be wrong; see `rs_embed.errors`.
    """
    from rs_embed.pipeline.run import Failure, run  # loads torch

    plan = plan_embedding(
        model_id,
        spatial,
        temporal,
        output,
        backend,
        sensor=sensor,
        modality=modality,
        input_chw=input_chw,
        input_prep=input_prep,
        device=device,
        precision=precision,
        **knobs,
    )
    _, result = next(run(plan))
    if isinstance(result, Failure):
        raise result.error
    return result


def plan_embedding(
    model_id: str,
    spatial: SpatialSpec | None = None,
    temporal: TemporalSpec | None = None,
    output: OutputSpec = OutputSpec.pooled(),
    backend: Backend = "auto",
    *,
    sensor: Sensors = None,
    modality: Modalities = None,
    input_chw: InputArrays | None = None,
    input_prep: InputPrep = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    **knobs: KnobValue,
) -> "Plan":
    """What `get_embedding` with the same arguments would do: print it. Nothing is loaded or fetched.

    Raises:
        RSEmbedError: Whatever can be known to be wrong beforehand.
    """
    call = _Call(model_id, output, sensor, _named(modality, input_chw), input_prep, device, precision, knobs)
    return call.plan(_provider(backend, input_chw, call), [spatial], [temporal])


def get_embeddings(
    model_id: str,
    spatials: Sequence[SpatialSpec],
    temporal: TemporalSpec | Sequence[TemporalSpec | None] | None = None,
    output: OutputSpec = OutputSpec.pooled(),
    backend: Backend = "auto",
    *,
    sensor: Sensors = None,
    modality: Modalities = None,
    input_prep: InputPrep = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    progress: bool = True,
    **knobs: KnobValue,
) -> "list[Embedding]":
    """The embeddings of many places, in their order. Fetching runs ahead of the network.

    Args:
        spatials: Where, one per item.
        temporal: One window for all, or one per item.
        progress: Show a bar when the output is a terminal.

    The other arguments are those of `get_embedding`.

    Raises:
        BatchError: Some items failed. Nothing is lost: `error.embeddings` holds the others (`None` where failed),
            `error.failures` says what happened to each.
    """
    from rs_embed.pipeline.run import Failure, run

    places = list(spatials)
    windows = [temporal] * len(places) if temporal is None or isinstance(temporal, TemporalSpec) else list(temporal)
    if len(windows) != len(places):
        raise SpecError(
            f"Wanted one window for all or one per place ({len(places)}), found {len(windows)}.",
            fix="pass a single TemporalSpec, or a list as long as `spatials`",
        )
    call = _Call(model_id, output, sensor, modality, input_prep, device, precision, knobs)
    plan = call.plan(_provider(backend, None, call), places, windows)
    with _bar(len(places), shown=progress) as advance:
        results = []
        for _, result in run(plan):
            results.append(result)
            advance()
    failures = [result for result in results if isinstance(result, Failure)]
    done = [None if isinstance(result, Failure) else result for result in results]
    if failures:
        raise BatchError.of(done, failures)
    return [embedding for embedding in done if embedding is not None]


def list_models(pattern: str = "*") -> list[str]:
    """Ids of the catalog whose id or alias matches a shell-style pattern, e.g. "thor*"."""
    return [card.id for card in list_cards(pattern)]


def describe_model(model_id: str) -> ModelDescription:
    """The facts of a model: size, inputs with units, knobs, outputs, weights, licence, citation."""
    return describe(get_card(model_id))


def inspect_chip(
    model_id: str,
    spatial: SpatialSpec | None = None,
    temporal: TemporalSpec | None = None,
    backend: Backend = "auto",
    *,
    sensor: Sensors = None,
    modality: Modalities = None,
    input_chw: InputArrays | None = None,
) -> "ChipReport":
    """The chips that a request would feed to the model, and their statistics, without running it.

    Print the result for a table; `report.chips["s2"].to_xarray()` has the pixels.
    """
    modality = _named(modality, input_chw)
    call = _Call(model_id, OutputSpec.pooled(), sensor, modality, "auto", "cpu", "fp32", {})
    provider = _provider(backend, input_chw, call)
    from rs_embed.report import inspect

    return inspect(call.request(), provider, spatial, temporal)


@dataclass(frozen=True)
class _Call:
    """The arguments that all calls share, as given."""

    model_id: str
    output: OutputSpec
    sensor: Sensors
    modality: Modalities
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
        from rs_embed.embedders.base import pick_device
        from rs_embed.pipeline.plan import Job, plan_items

        request = self.request()
        require_choice("input_prep", self.input_prep, get_args(InputPrep))
        if not isinstance(self.output, OutputSpec):
            raise SpecError(f"Wanted an OutputSpec, found {self.output!r}.", fix="OutputSpec.pooled() or .grid()")
        prep = request.card.input_prep if self.input_prep == "auto" else self.input_prep
        embedder = _adapter(request.card.adapter)(request, pick_device(self.device), _networks())
        embedder.geometry()
        return plan_items(Job(embedder, provider, self.output, prep), places, windows)

    def request(self) -> "ModelRequest":
        """Model, knobs and inputs of the call."""
        from rs_embed.pipeline.request import resolve_request

        require_choice("precision", self.precision, get_args(Precision))
        card = get_card(self.model_id)
        knobs = card.knobs.read(self.knobs)
        return resolve_request(_variant(card, knobs), knobs, self.modality, self.sensor, self.precision)


def _variant(card: ModelCard, knobs: ModelKnobs) -> ModelCard:
    """The card that really runs: `model_key` may name another size of the family."""
    if not isinstance(knobs, WeightsKnobs) or knobs.model_key in (None, card.model_key):
        return card
    chosen = card_of_key(knobs.model_key)
    warnings.warn(
        f"{card.id} was asked for, but model_key={knobs.model_key!r} (keyword or variable) runs {chosen.id}.",
        ChoiceWarning,
        stacklevel=2,
    )
    return chosen


def _named(modality: Modalities, input_chw: InputArrays | None) -> Modalities:
    """The modalities asked for; arrays that come with their names need not be named again."""
    return tuple(input_chw) if modality is None and isinstance(input_chw, Mapping) else modality


def _provider(backend: Backend, input_chw: InputArrays | None, call: _Call) -> Provider:
    if input_chw is None:
        return open_provider(backend)
    if backend != "auto":
        raise SpecError(
            f"Wanted either input_chw or a backend, found both (backend={backend!r}).",
            fix="leave one of them out",
        )
    from rs_embed.providers.arrays import ArrayProvider

    if isinstance(input_chw, Mapping):
        return ArrayProvider(input_chw)
    names = [modality.name for modality, _ in call.request().inputs]
    if len(names) > 1:
        raise SpecError(
            f"Wanted an array for each of {', '.join(names)}, found one.",
            fix=f"pass input_chw={{{names[0]!r}: array, {names[1]!r}: array}}",
        )
    return ArrayProvider({names[0]: input_chw})


def _adapter(path: str) -> "type[Embedder]":
    module, name = path.split(":")
    adapter: type[Embedder] = vars(import_module(module))[name]
    return adapter


@cache
def _networks() -> "NetworkCache":
    from rs_embed.embedders.base import NetworkCache

    return NetworkCache()


@contextmanager
def _bar(total: int, *, shown: bool) -> "Iterator[Callable[[], None]]":
    """A progress bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not (shown and console.is_terminal), transient=True) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda: bar.advance(task)
