"""A request with its places, resolved to plain data that can be printed, sent to another process and run.

Torch is loaded when a plan is made, not when this module is imported.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from odc.geo.geobox import GeoBox
from pydantic import JsonValue

from rs_embed.core import display
from rs_embed.core.bands import Unit
from rs_embed.core.hashing import json_digest
from rs_embed.core.settings import LibrarySettings, ModelKnobs, WeightsKnobs
from rs_embed.core.specs import SpatialSpec, TemporalSpec
from rs_embed.embedders.card import ModelCard, auto_backend
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.licences import licence_ids, require_accepted
from rs_embed.errors import ChoiceWarning, InputError, SensorNotOffered, SpecError, warn
from rs_embed.pipeline.request import Backend, EmbeddingRequest, Modalities
from rs_embed.places import read_places
from rs_embed.providers import open_provider, require_backend
from rs_embed.providers.arrays import ArrayProvider, SupportsArray
from rs_embed.providers.base import Provider
from rs_embed.providers.common.checked import Checked
from rs_embed.providers.nobody import Nobody
from rs_embed.redact import redacted

if TYPE_CHECKING:
    from rs_embed.embedders.base import Embedder, ModelRequest
    from rs_embed.embedders.prepare.framing import Prep
    from rs_embed.embedding.batch import Result
    from rs_embed.pipeline.plan import Item, Job
    from rs_embed.places import Given, Temporal

InputArrays = SupportsArray | Mapping[str, SupportsArray]
"""Pixel values `[C,H,W]` or `[T,C,H,W]` in the unit of the collection, or a mapping modality -> array."""
Dates = Sequence[str | date | datetime | int] | Mapping[str, Sequence[str | date | datetime | int]]
"""When each frame was acquired, `[T]`: dates, times or days of the year; or a mapping modality -> dates."""
Units = Unit | str | Mapping[str, Unit | str]
"""The unit of the arrays, or a mapping modality -> unit."""
_DATES = 'dates=["2022-06-01", ...]'
_SHOWN = 5
"""How many items a printed plan lists."""
_WORDS = (
    *(*EmbeddingRequest.model_fields, "spatial", "places", "temporal", "input_chw", "dates", "unit"),
    *("buffer_m", "on_error", "progress"),
)
"""Keywords of the public functions: any other keyword is passed to the model, misspelt ones included."""


@dataclass(frozen=True)
class Plan:
    """Everything that one call will do, as plain data: print it, pickle it, or run it here or elsewhere.

    Making a plan loads no weights and asks no provider. The environment is read once, for the knobs.
    """

    request: EmbeddingRequest
    """The request as it was made."""
    model: "ModelRequest"
    """The resolved model: its card, the knobs in force and its inputs."""
    prep: "Prep"
    items: "tuple[Item, ...]"
    """One item per place. If no place was given, the grid is the provider's, and not known yet."""

    @classmethod
    def of(
        cls,
        request: EmbeddingRequest,
        places: "Given",
        temporal: "Temporal" = None,
        buffer_m: float | str | None = None,
    ) -> Self:
        """Plan a request for many places.

        Args:
            request: What to compute for each place.
            places: Anything that `read_places` reads or returns.
            temporal: One window for all places, or one per place; see `read_places`.
            buffer_m: Half the side of the square around points, metres, or the column that holds it.

        Raises:
            RSEmbedError: The request is invalid in a way that can be found without asking the provider.
        """
        table = read_places(places, temporal=temporal, buffer_m=buffer_m)
        return cls.laid(request, [place.spatial for place in table], [place.window for place in table])

    @classmethod
    def laid(
        cls,
        request: EmbeddingRequest,
        places: Sequence[SpatialSpec | None],
        windows: Sequence[TemporalSpec | None],
        arrays: "Arrays | None" = None,
    ) -> Self:
        """Plan a request for places that are already parsed.

        Args:
            request: What to compute for each place.
            places: One spec per item; `None` means everything that the provider holds.
            windows: One window of days per place.
            arrays: Pixels to use instead of the request's backend.
        """
        from rs_embed.pipeline.plan import items_of

        model = resolved(request)
        if model.to_accept:
            given = request.accept_licence, LibrarySettings.read().accept_licence
            require_accepted(model.card, [name for one in given for name in licence_ids(one)])
        if arrays is not None:
            request = request.model_copy(update={"backend": arrays.provider(model)})
        require_backend(request.backend)
        prep = model.card.input_prep if request.input_prep == "auto" else request.input_prep
        embedder = _embedder(model, request.device)
        if embedder.geometry().native_only and prep == "resize":
            raise SpecError(
                f"{model.card.id} takes pixels at their native size only, got input_prep='resize'.",
                fix='use input_prep="tile" or "crop"',
            )
        embedder.check(request.output)
        return cls(request, model, prep, items_of(embedder, request.output, places, windows))

    @property
    def job(self) -> "Job":
        """The model, not loaded yet, and an open provider: made for this process at each access."""
        return self.job_with(opened(backend_for(self.request.backend, [self.model.card])))

    def job_with(self, provider: Provider) -> "Job":
        """Return the job that runs this plan with an open provider.

        Raises:
            SensorNotOffered: The provider does not have an input that the model requires.
        """
        from rs_embed.pipeline.plan import Job

        for modality, sensor in self.model.inputs:
            try:
                provider.require(modality.name, sensor)
            except SensorNotOffered:
                if not self.model.may_lack(modality):
                    raise
        output = self.request.output
        reference = opened("sample") if output.debias == "position" else None
        return Job(_embedder(self.model, self.request.device), provider, output, self.prep, reference)

    def run(self) -> "Generator[Result]":
        """Yield an embedding or a `Failure` for each item, in order. Fetching runs ahead of the network."""
        with closing(run_plans([self])) as results:
            for (result,) in results:
                yield result

    def fingerprint(self) -> str:
        """Return a sha256 of everything that determines the numbers and is known in advance.

        Equal plans have equal fingerprints. Weights are not loaded: they count by what the card and the knobs say of
        them. The fingerprint of each result (`meta.fingerprint`) includes the hash of the weights that were loaded.
        """
        from rs_embed.pipeline.plan import numbers_of, place_facts

        backend = self.request.backend
        where = [[place_facts(one.spatial), None if one.window is None else asdict(one.window)] for one in self.items]
        weights = self.model.card.weights
        facts = {
            **numbers_of(_embedder(self.model, "cpu"), self.request.output, self.prep),
            "inputs": [[modality.name, asdict(sensor)] for modality, sensor in self.model.inputs],  # order counts
            "weights": [None if weights is None else asdict(weights), _ckpt(self.model)],
            "provider": redacted(str(backend) if isinstance(backend, str | Path) else backend.identity())
            if self.model.inputs
            else None,
            "places": where,
        }
        return json_digest(facts)

    def to_dict(self) -> dict[str, JsonValue]:
        """Return model, output, places and imagery as plain data for `json.dumps`."""
        output = self.request.output
        items: list[JsonValue] = []
        for item in self.items:
            imagery: list[JsonValue] = [
                {
                    "modality": query.modality,
                    "collection": query.sensor.collection,
                    "bands": list(query.sensor.bands),
                    **_grid_facts(query.geobox),
                    "frames_at_most": query.series.most(query.window) if query.series else 1,
                }
                for query in item.queries
            ]
            one: dict[str, JsonValue] = {
                "spatial": None if item.spatial is None else repr(item.spatial),
                "days": None if item.window is None else [str(item.window.start), str(item.window.end)],
                "imagery": imagery,
            }
            if item.cells is not None:
                one["cells"] = _grid_facts(item.cells)
            items.append(one)
        return {
            "model_id": self.model.card.id,
            "output": output.kind,
            "input_prep": self.prep,
            "fingerprint": self.fingerprint(),
            "items": items,
        }

    def __repr__(self) -> str:
        count = "1 item" if len(self.items) == 1 else f"{len(self.items):,} items"
        return f"Plan({self.model.card.id}, {count}, {self.request.output.kind}, input_prep={self.prep})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return display.safely(self, _html)

    def __str__(self) -> str:
        """Return the text that `--dry-run` prints."""
        card, output = self.model.card, self.request.output
        count = "1 item" if len(self.items) == 1 else f"{len(self.items):,} items"
        lines = [f"{card.id}: {count}, {output.kind}, input_prep={self.prep}"]
        for item in self.items[:_SHOWN]:
            if item.cells is not None:
                lines.append(f"  [{item.index}] {'+'.join(self.model.places)} of {_grid_line(item.cells)}")
            for query in item.queries:
                grid = "everything there is" if query.geobox is None else _grid_line(query.geobox)
                bands = ",".join(query.sensor.bands)
                frames = f", {query.series.most(query.window)} frames at most" if query.series else ""
                lines.append(f"  [{item.index}] {query.modality}: {query.sensor.collection} {bands} on {grid}{frames}")
        if len(self.items) > _SHOWN:
            lines.append(f"  ... and {len(self.items) - _SHOWN:,} more")
        return "\n".join(lines)


def run_plans(plans: Sequence[Plan]) -> "Generator[tuple[Result, ...]]":
    """Yield one result per plan for each place, in order. Imagery that several plans need is fetched once.

    Args:
        plans: Plans for the same places in the same order, with one backend.
    """
    from rs_embed.pipeline.plan import on_grids
    from rs_embed.pipeline.run import run_together

    settings = LibrarySettings.read()
    provider = opened(backend_for(plans[0].request.backend, [plan.model.card for plan in plans]), settings)
    works = [on_grids(plan.job_with(provider), plan.items) for plan in plans]
    with closing(run_together(works, settings=settings)) as coming:
        for _, results in coming:
            yield results


@dataclass(frozen=True)
class Arrays:
    """The user's own pixels, in place of a backend."""

    values: InputArrays
    dates: Dates | None = None
    unit: Units | None = None

    def provider(self, model: "ModelRequest") -> ArrayProvider:
        """Return a provider that serves these arrays.

        Raises:
            SpecError: It is not clear which modality the arrays are, or `dates` is not a list.
            InputError: The model takes a time series, but `dates` is missing.
        """
        if isinstance(self.dates, str | date | int):
            one = self.dates if isinstance(self.dates, int) else str(self.dates)
            raise SpecError(f"Expected a list of dates, got {self.dates!r}.", fix=f"use dates=[{one!r}]")
        series = [modality.name for modality, _ in model.inputs if modality.is_series]
        if self.dates is None and series:
            raise InputError(f"Expected the date of each frame of {', '.join(series)}, got none.", fix=_DATES)
        if isinstance(self.values, Mapping):
            return ArrayProvider(self.values, dates=self.dates, unit=self.unit)
        names = [modality.name for modality, _ in model.inputs if not model.may_lack(modality)]
        if not model.inputs:
            raise SpecError(
                f"Expected no pixels, got some: {model.card.id} uses only the location.", fix="leave out input_chw"
            )
        if len(names) > 1:
            raise SpecError(
                f"Expected an array for each of {', '.join(names)}, got one.",
                fix=f"pass input_chw={{{names[0]!r}: array, {names[1]!r}: array}}",
            )
        return ArrayProvider({names[0]: self.values}, dates=self.dates, unit=self.unit)


def arrays_of(
    input_chw: InputArrays | None, backend: Backend, dates: Dates | None, unit: Units | None
) -> Arrays | None:
    """Return the arrays that a call passes, or `None` if it uses its backend.

    Raises:
        SpecError: The call passes both arrays and a backend, or describes arrays that it does not pass.
    """
    if input_chw is None:
        if unit is not None:
            raise SpecError(
                f"Expected unit beside input_chw, got unit={unit!r} alone.",
                fix=f"for files, use backend=LocalRasters(path, unit={unit!r})",
            )
        if dates is not None:
            raise SpecError(
                "Expected dates only with input_chw, got them alone.", fix="use temporal=TemporalSpec.range(...)"
            )
        return None
    if not (isinstance(backend, str) and backend == "auto"):
        raise SpecError(
            f"Expected either input_chw or a backend, got both (backend={backend!r}).", fix="leave one of them out"
        )
    return Arrays(input_chw, dates, unit)


def named(modality: Modalities, input_chw: InputArrays | None) -> Modalities:
    """Return the requested modalities; if none are given, the names of the arrays, if they have any."""
    return tuple(input_chw) if modality is None and isinstance(input_chw, Mapping) else modality


def backend_for(backend: Backend, cards: Iterable[ModelCard]) -> Backend:
    """Return the backend to use for these models: "auto" becomes the one that their cards name.

    If none of the models takes imagery, no backend is asked, whichever is named: it need not even be set up.

    Raises:
        SpecError: The backend is "auto", and the cards name different ones.
    """
    cards = [card for card in cards if card.modalities]
    if not cards:
        return Nobody()
    return auto_backend(cards) if isinstance(backend, str) and backend == "auto" else backend


def opened(backend: Backend, settings: LibrarySettings | None = None) -> Provider:
    """Open the provider of a name, path or object, with checks and, if one is set, the chip cache."""
    provider, settings = open_provider(backend), settings or LibrarySettings.read()
    if settings.chip_cache is not None and not isinstance(provider, ArrayProvider):
        from rs_embed.providers.cached import CachedProvider

        provider = CachedProvider(provider, settings.chip_cache, settings.chip_cache_gb)
    return Checked(provider)


def resolved(request: EmbeddingRequest) -> "ModelRequest":
    """Resolve a request to the model that will run, its knobs and its inputs.

    Raises:
        RSEmbedError: The model, a knob, modality, band, sensor or device does not exist.
    """
    from rs_embed.embedders.runtime.device import pick_device, pick_precision
    from rs_embed.pipeline.inputs import resolve_request

    card = get_card(request.model_id)
    knobs = card.knobs.read(request.knobs, _WORDS)
    precision = pick_precision(request.precision, pick_device(request.device))
    return resolve_request(_variant(card, knobs), knobs, request, precision)


def _variant(card: ModelCard, knobs: ModelKnobs) -> ModelCard:
    """Return the card that will run: `model_key` may name another size of the family."""
    if not isinstance(knobs, WeightsKnobs) or knobs.model_key in (None, card.model_key):
        return card
    chosen = get_card(knobs.model_key)
    warn(
        f"{card.id} was asked for, but model_key={knobs.model_key!r} (keyword or variable) runs {chosen.id}.",
        ChoiceWarning,
    )
    return chosen


def _embedder(model: "ModelRequest", device: str) -> "Embedder":
    from rs_embed.embedders.base import embedder_for
    from rs_embed.embedders.runtime.device import pick_device

    return embedder_for(model, pick_device(device))


def _ckpt(model: "ModelRequest") -> str | None:
    knobs = model.knobs
    return str(knobs.ckpt) if isinstance(knobs, WeightsKnobs) and knobs.ckpt is not None else None


def _html(plan: Plan) -> str:
    """A card with the first items."""
    output = plan.request.output
    facts = {
        "Output": output.kind,
        "Input": f"input_prep={plan.prep}",
        "Modalities": ", ".join(plan.model.places) or ", ".join(modality.name for modality, _ in plan.model.inputs),
        "Places": f"{len(plan.items):,}",
    }
    lines = []
    for item in plan.items[:_SHOWN]:
        grids = [item.cells] if item.cells is not None else [query.geobox for query in item.queries]
        grid = grids[0] if grids else None
        size = "everything there is" if grid is None else f"{grid.shape[0]} x {grid.shape[1]} px, {grid.crs}"
        days = "any" if item.window is None else f"{item.window.start} to {item.window.end}"
        lines.append((item.index, item.spatial or "all of the imagery", days, size))
    more = f"and {len(plan.items) - _SHOWN:,} more" if len(plan.items) > _SHOWN else ""
    below = display.rows(("item", "place", "days", "grid"), lines, more) if lines else ""
    return display.card(f"Plan for {plan.model.card.id}", "nothing is loaded or fetched yet", facts, below=below)


def _grid_facts(geobox: GeoBox | None) -> dict[str, JsonValue]:
    if geobox is None:
        return {"crs": None, "shape_px": None, "pixel_m": None, "transform": None}
    height, width = geobox.shape
    transform: list[JsonValue] = [float(value) for value in tuple(geobox.affine)[:6]]
    return {
        "crs": str(geobox.crs),
        "shape_px": [int(height), int(width)],
        "pixel_m": float(geobox.resolution.x),
        "transform": transform,
    }


def _grid_line(geobox: GeoBox) -> str:
    height, width = geobox.shape
    return f"{geobox.crs}, {height} x {width} px of {geobox.resolution.x:g} m, {tuple(geobox.affine)[:6]}"
