"""The public functions. Each one makes a plan and runs it through the same pipeline.

Torch and imagery libraries load when a model runs, not when this module is imported.
"""

from collections.abc import Callable
from contextlib import closing
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, get_args, overload

from rs_embed.core.checks import require_choice
from rs_embed.core.progress import progress_bar
from rs_embed.core.specs import InputPrep, ModelOrder, OutputSpec, Precision, TemporalSpec
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card, list_cards
from rs_embed.embedders.choosing import selected
from rs_embed.embedders.describe import ModelDescription, describe
from rs_embed.errors import BatchError, Failure, SpecError
from rs_embed.pipeline.request import AcceptLicence, Backend, Bands, EmbeddingRequest, KnobValue, Modalities, Sensors
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
    """The type of a function that returns a dictionary by model id when it gets a list of models."""

    @overload
    def __call__(self, model_id: str | ModelCard, *given: P.args, **options: P.kwargs) -> "Embeddings": ...
    @overload
    def __call__(
        self, model_id: list[str] | list[ModelCard] | tuple[str | ModelCard, ...], *given: P.args, **options: P.kwargs
    ) -> "dict[str, Embeddings]": ...


def _one_or_many(
    function: "Callable[Concatenate[Models, P], Embeddings | dict[str, Embeddings]]",
) -> OneOrMany[P]:
    """Return the function itself, typed so that a type checker knows which result goes with which models."""
    return cast("OneOrMany[P]", function)


def _of_plan(planned: Callable[P, Plan]) -> Callable[[Callable[[Plan], T]], Callable[P, T]]:
    """Turn a function of a plan into one of the plan's arguments, so that the signature is written only once."""

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
    accept_licence: AcceptLicence = None,
    **knobs: KnobValue,
) -> Plan:
    """Plan what `get_embedding` would do with the same arguments, without loading or fetching anything.

    Print the plan to read it; call `run()` to carry it out.

    Returns:
        The plan.

    Raises:
        RSEmbedError: The request is invalid in a way that can be found without asking the provider.
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
        accept_licence=accept_licence,
    )
    place, days = read_place(spatial, temporal, buffer_m)
    return Plan.laid(request, [place], [days], arrays_of(input_chw, backend, dates, unit))


@_of_plan(plan_embedding)
def get_embedding(plan: Plan) -> "Embedding":
    """Compute the embedding of one place.

    Args:
        model_id: Id or alias from the catalogue (`list_models()`), or a card of your own.
        spatial: The place: a `PointBuffer`, `BBox` or `Region`, a (lon, lat), a shapely or GeoJSON geometry (degrees),
            or a table or file with one place ("aoi.geojson"). `None` takes the whole raster, sample scene or
            `input_chw`.
        temporal: The window of days, half-open. The sample scene and undated rasters ignore it.
        output: `OutputSpec.pooled()` for a vector `[D]`, `OutputSpec.grid()` for a token grid `[D,H,W]`.
        backend: "sample", "gee", "stac", "published" (published embeddings), "auto" (Earth Engine where it is set up,
            else STAC, or for published embeddings their public store), the path of a raster or a pattern of paths, an
            `EarthEngine`, a `Stac`, a `PublishedEmbeddings`, a `LocalRasters`, or any `Provider`.
        sensor: Imagery other than the card's default: bands, pixel size, cloud limit, composite.
        modality: One of the card's modalities, or several ("s2+s1").
        bands: A subset of a modality's bands, by the names of the collection ("B2") or of the model ("BLUE"), in
            channel order. For several modalities, a mapping modality -> names.
        input_chw: Your own pixels instead of a backend, as the collection stores them (Sentinel-2: 0-based DN):
            `[C,H,W]`, or `[T,C,H,W]` for several dates.
        dates: When each frame of `input_chw` was acquired: dates, or days of the year. Models of time series require
            it.
        unit: Unit of `input_chw`, if it is not that of the collection: "reflectance", "power", ..., or "byte" for
            pictures with values from 0 to 255. For several arrays, a mapping modality -> unit.
        buffer_m: Half the side of the square around a point, metres, if `spatial` does not give it.
        input_prep: "resize" scales to the network's input size, "crop" takes the centre, "tile" keeps the native pixel
            size and tiles the chip; "auto" is the card's choice.
        device: "auto", "cpu", "cuda" or "cuda:0".
        precision: "fp32", "bf16" (faster, cosine to fp32 above 0.9995), or "auto": bf16 where the hardware supports
            it natively.
        accept_licence: Ids of licences that you have read and accept, such as "olmoearth-artifact". Only models whose
            licence is not permissive ask for it; `RS_EMBED_ACCEPT_LICENCE` accepts for all calls.
        **knobs: Keyword forms of the model's `RS_EMBED_*` variables (`describe_model(model_id)`).

    Returns:
        The embedding: float32 `data`, `[D]` or `[D,H,W]`, with its grid and metadata.

    Raises:
        RSEmbedError: The request is invalid or failed; `rs_embed.errors` lists one class per kind of failure.
    """
    (result,) = plan.run()
    if isinstance(result, Failure):
        raise result.error
    return result


@_one_or_many  # type: ignore[arg-type]  # model_id may also be passed by keyword
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
    accept_licence: AcceptLicence = None,
    progress: bool = True,
    **knobs: KnobValue,
) -> "Embeddings | dict[str, Embeddings]":
    """Compute the embeddings of many places, in their order. Fetching runs ahead of the network.

    Args:
        model_id: One model, or a list of them. For a list, the result is a dictionary by model id, and imagery that
            several models need is fetched once.
        places: A list of specs or of (lon, lat), a DataFrame, or the path of a table. `read_places` lists the columns
            that are recognised, and reads tables that use other names.
        temporal: One window for all places, or one per place; a table may have its own.
        buffer_m: Half the side of the square around a point, metres, or the name of the column that holds it.
        on_error: What to do about failed places. "raise" runs all places, then raises one error that holds the
            results of the others. "keep" puts a `Failure` in place of each missing embedding.
        progress: Show a progress bar on a terminal or in a notebook.

    The other arguments are those of `get_embedding`.

    Returns:
        A list of embeddings, one per place, or a dictionary of such lists by model id.

    Raises:
        BatchError: Some places failed. `error.embeddings` holds the results of the others (`None` where a place
            failed), `error.failures` says what happened to each failed one.
        RSEmbedError: The request is invalid.
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
        accept_licence=accept_licence,
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


def list_models(
    pattern: str = "*",
    *,
    sensor: str | None = None,
    licence: str | None = None,
    no_extra: bool = False,
    max_mb: float | None = None,
    sort: ModelOrder = "catalogue",
) -> list[str]:
    """List the models of the catalogue that fit.

    Args:
        pattern: A shell-style pattern of ids and aliases, e.g. "thor*".
        sensor: A sensor that the model can take: "s2", "s1", "landsat", "location", ...
        licence: A class of licences ("permissive", "conditions", "non-commercial", "gated", "unknown") or an id.
        no_extra: Leave out models that need an extra of this package.
        max_mb: The largest download, MB. If the size of a file is not known, four bytes per parameter count.
        sort: "catalogue", "id", "params", "dim", "licence" or "size" (of the download).

    Returns:
        Their ids.

    Raises:
        SpecError: A sensor, licence or order is unknown.
    """
    found = selected(list_cards(pattern), sensor=sensor, licence=licence, no_extra=no_extra, max_mb=max_mb, sort=sort)
    return [card.id for card in found]


def describe_model(model_id: str) -> ModelDescription:
    """Describe a model: size, inputs with units, knobs, outputs, weights, licence, citation.

    Args:
        model_id: Id or alias from the catalogue.

    Returns:
        The facts as a dictionary that prints as text.

    Raises:
        UnknownModelError: No model has that id or alias.
    """
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
    """Fetch the chips that a request would feed to the model, with their statistics, without running the model.

    Print the result for a table; `report.chips["s2"].to_xarray()` returns the pixels of a modality. The arguments are
    those of `get_embedding`.

    Returns:
        One chip per modality, and the statistics of its bands.

    Raises:
        RSEmbedError: The request is invalid, or the imagery could not be obtained.
    """
    from rs_embed.pipeline.inspect import inspect
    from rs_embed.places import read_place

    model = resolved(
        EmbeddingRequest(model_id=model_id, sensor=sensor, modality=named(modality, input_chw), bands=bands)
    )
    arrays = arrays_of(input_chw, backend, dates, unit)
    provider = opened(backend_for(backend, [model.card]) if arrays is None else arrays.provider(model))
    return inspect(model, provider, *read_place(spatial, temporal, buffer_m))
