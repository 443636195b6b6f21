"""The public calls. Each is a plan handed to the one pipeline.

Torch and imagery libraries load when a model runs, not when this module is imported.
"""

from collections.abc import Callable
from contextlib import closing
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, get_args, overload

from rs_embed.core.checks import require_choice
from rs_embed.core.progress import progress_bar
from rs_embed.core.specs import InputPrep, OutputSpec, Precision, TemporalSpec
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card, list_cards
from rs_embed.embedders.describe import ModelDescription, describe
from rs_embed.errors import BatchError, Failure, SpecError
from rs_embed.pipeline.request import Backend, Bands, EmbeddingRequest, KnobValue, Modalities, Sensors
from rs_embed.plan import Dates, InputArrays, Plan, Units, arrays_of, backend_for, named, opened, resolved, run_plans

if TYPE_CHECKING:
    from rs_embed.embedding.batch import Embeddings, Result
    from rs_embed.embedding.embedding import Embedding
    from rs_embed.pipeline.inspect import ChipReport
    from rs_embed.places import Given, Single, Temporal

OnError = Literal["raise", "keep"]
P = ParamSpec("P")
T = TypeVar("T")
Models = str | ModelCard | list[str | ModelCard] | tuple[str | ModelCard, ...]


class OneOrMany(Protocol[P]):
    """A call that answers with a dictionary by id where it is given a list of models."""

    @overload
    def __call__(self, model_id: str | ModelCard, *given: P.args, **options: P.kwargs) -> "Embeddings": ...
    @overload
    def __call__(
        self, model_id: list[str] | list[ModelCard] | tuple[str | ModelCard, ...], *given: P.args, **options: P.kwargs
    ) -> "dict[str, Embeddings]": ...


def _one_or_many(
    function: "Callable[Concatenate[Models, P], Embeddings | dict[str, Embeddings]]",
) -> OneOrMany[P]:
    """The function itself; who checks types learns which answer goes with which models."""
    return cast("OneOrMany[P]", function)


def _of_plan(planned: Callable[P, Plan]) -> Callable[[Callable[[Plan], T]], Callable[P, T]]:
    """A function of a plan as one of what the plan is made of: these arguments are written once."""

    def taking(function: Callable[[Plan], T]) -> Callable[P, T]:
        @wraps(function)
        def call(*given: P.args, **options: P.kwargs) -> T:
            return function(planned(*given, **options))

        answer = signature(function).return_annotation
        call.__dict__["__signature__"] = signature(planned).replace(return_annotation=answer)
        return call

    return taking


def plan_embedding(
    model_id: str | ModelCard,
    spatial: "Single | None" = None,
    temporal: TemporalSpec | None = None,
    output: OutputSpec = OutputSpec.pooled(),
    backend: Backend = "auto",
    *,
    sensor: Sensors = None,
    modality: Modalities = None,
    bands: Bands = None,
    input_chw: InputArrays | None = None,
    dates: Dates | None = None,
    unit: Units | None = None,
    buffer_m: float | None = None,
    input_prep: InputPrep = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    **knobs: KnobValue,
) -> Plan:
    """What `get_embedding` with the same arguments would do: print it, or `run` it. Nothing is loaded or fetched.

    Raises:
        RSEmbedError: Whatever can be known to be wrong before a provider is asked.
    """
    from rs_embed.places import read_place

    request = EmbeddingRequest(
        model_id=model_id,
        knobs=knobs,
        output=output,
        backend=backend,
        sensor=sensor,
        modality=named(modality, input_chw),
        bands=bands,
        input_prep=input_prep,
        device=device,
        precision=precision,
    )
    place, days = read_place(spatial, temporal, buffer_m)
    return Plan.laid(request, [place], [days], arrays_of(input_chw, backend, dates, unit))


@_of_plan(plan_embedding)
def get_embedding(plan: Plan) -> "Embedding":
    """The embedding of one place.

    Args:
        model_id: Id or alias of the catalog (`list_models()`), or a card of your own.
        spatial: Where: a spec, a (lon, lat), a geometry of shapely or GeoJSON (degrees), or a table or file of one
            place ("aoi.geojson"). `None` takes everything that a raster, the sample or `input_chw` holds.
        temporal: Which days, half-open. The sample and undated rasters are answered with what they are.
        output: `OutputSpec.pooled()` for a vector `[D]`, `OutputSpec.grid()` for a token grid `[D,H,W]`.
        backend: "sample", "gee", "stac", "auto" (Earth Engine where it is set up, else STAC), the path of a raster or
            a pattern of paths, an `EarthEngine`, a `Stac`, a `LocalRasters`, or any `Provider`.
        sensor: Other imagery than the card's default: bands, pixel size, cloud limit, composite.
        modality: One of the card's, or several ("s2+s1").
        bands: Some of a modality's bands, by the names of the collection ("B2") or of the model ("BLUE"), in the
            order of the channels; of several modalities, a mapping modality -> names.
        input_chw: Your own pixels instead of a backend, as the collection stores them (Sentinel-2: 0-based DN):
            `[C,H,W]`, or `[T,C,H,W]` for several dates.
        dates: When each frame of `input_chw` was acquired: days, or days of the year; a model of time series needs to
            know.
        unit: Of `input_chw`, where it is not that of the collection: "reflectance", "power", ..., or "byte" for
            pictures from 0 to 255; of several arrays, a mapping modality -> unit.
        buffer_m: Half of the side of the square around a point, metres, where `spatial` does not say it.
        input_prep: "resize" to the network's size, "crop" the centre or "tile" at native pixel size;
            "auto" is the card's choice.
        device: "auto", "cpu", "cuda" or "cuda:0".
        precision: "fp32", "bf16" (faster, cosine to fp32 above 0.9995), or "auto": bf16 where the device is built
            for it.
        **knobs: Keyword forms of the model's `RS_EMBED_*` variables (`describe_model(model_id)`).

    Raises:
        RSEmbedError: One typed error per thing that can be wrong; see `rs_embed.errors`.
    """
    (result,) = plan.run()
    if isinstance(result, Failure):
        raise result.error
    return result


@_one_or_many  # type: ignore[arg-type]  # it may be named, too
def get_embeddings(
    model_id: Models,
    places: "Given",
    temporal: "Temporal" = None,
    output: OutputSpec = OutputSpec.pooled(),
    backend: Backend = "auto",
    *,
    buffer_m: float | str | None = None,
    on_error: OnError = "raise",
    sensor: Sensors = None,
    modality: Modalities = None,
    bands: Bands = None,
    input_prep: InputPrep = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    progress: bool = True,
    **knobs: KnobValue,
) -> "Embeddings | dict[str, Embeddings]":
    """The embeddings of many places, in their order. Fetching runs ahead of the network.

    Args:
        model_id: One model, or a list of them: then the answer is a dictionary by id, and imagery that several
            models want is fetched once.
        places: A list of specs or of (lon, lat), a DataFrame, or the path of a table. `read_places` says which
            columns are known, and reads tables that call them otherwise.
        temporal: One window for all, or one per place; a table may have its own.
        buffer_m: Half of the side of the square around a point, metres, or the column that holds it.
        on_error: What becomes of failed places. "raise": one error at the end, which holds the others, too.
            "keep": a `Failure` stands where the embedding would.
        progress: Show a bar on a terminal or in a notebook.

    The other arguments are those of `get_embedding`.

    Raises:
        BatchError: Some places failed. Nothing is lost: `error.embeddings` holds the others (`None` where failed),
            `error.failures` says what happened to each.
    """
    from rs_embed.embedding.batch import Embeddings
    from rs_embed.places import read_places

    require_choice("on_error", on_error, get_args(OnError))
    models = model_id if isinstance(model_id, list | tuple) else [model_id]
    if not models:
        raise SpecError("Expected at least one model, got none.", fix='for example "mosaiks_rcf"')
    request = EmbeddingRequest(
        model_id=models[0],
        knobs=knobs,
        output=output,
        backend=backend,
        sensor=sensor,
        modality=modality,
        bands=bands,
        input_prep=input_prep,
        device=device,
        precision=precision,
    )
    table = read_places(places, temporal=temporal, buffer_m=buffer_m)
    plans = [Plan.of(request.model_copy(update={"model_id": model}), table) for model in models]
    columns: list[list[Result]] = [[] for _ in plans]
    with (
        progress_bar(len(table), shown=progress, label="embed", unit="places") as advance,
        closing(run_plans(plans)) as coming,
    ):
        for results in coming:
            for column, result in zip(columns, results, strict=True):
                column.append(result)
            advance(1, sum(isinstance(result, Failure) for result in results))
    ids, kept = [place.id for place in table], [place.kept for place in table]
    found = {plan.model.card.id: Embeddings(column, ids, kept) for plan, column in zip(plans, columns, strict=True)}
    failures = [failure for one in found.values() for failure in one.failures]
    if failures and on_error == "raise":
        done = {name: [None if isinstance(x, Failure) else x for x in column] for name, column in found.items()}
        raise BatchError.of(
            done if models is model_id else next(iter(done.values())), failures, len(table) * len(found)
        )
    return found if models is model_id else next(iter(found.values()))


def list_models(pattern: str = "*") -> list[str]:
    """Ids of the catalog whose id or alias matches a shell-style pattern, e.g. "thor*"."""
    return [card.id for card in list_cards(pattern)]


def describe_model(model_id: str) -> ModelDescription:
    """The facts of a model: size, inputs with units, knobs, outputs, weights, licence, citation."""
    return describe(get_card(model_id))


def inspect_chip(
    model_id: str | ModelCard,
    spatial: "Single | None" = None,
    temporal: TemporalSpec | None = None,
    backend: Backend = "auto",
    *,
    sensor: Sensors = None,
    modality: Modalities = None,
    bands: Bands = None,
    input_chw: InputArrays | None = None,
    dates: Dates | None = None,
    unit: Units | None = None,
    buffer_m: float | None = None,
) -> "ChipReport":
    """The chips that a request would feed to the model, and their statistics, without running it.

    Print the result for a table; `report.chips["s2"].to_xarray()` has the pixels.
    """
    from rs_embed.pipeline.inspect import inspect
    from rs_embed.places import read_place

    model = resolved(
        EmbeddingRequest(model_id=model_id, sensor=sensor, modality=named(modality, input_chw), bands=bands)
    )
    arrays = arrays_of(input_chw, backend, dates, unit)
    provider = opened(backend_for(backend, [model.card]) if arrays is None else arrays.provider(model))
    return inspect(model, provider, *read_place(spatial, temporal, buffer_m))
