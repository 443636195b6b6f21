"""An export request: as models that can run, as the facts that identify a run, and as arguments to repeat it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    ValidationError,
    field_serializer,
    model_validator,
)

from rs_embed.core.checks import require_choice, short
from rs_embed.core.hashing import as_json
from rs_embed.embedders.card import ModelCard, lasting_id
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import SpecError
from rs_embed.exports.records import UnitStore
from rs_embed.exports.region.grid import MapGrid
from rs_embed.exports.region.tiles import MapTiles
from rs_embed.exports.unit import MAP, UNIT_ROWS, Units
from rs_embed.exports.unit_writer import slug
from rs_embed.exports.work import OnError
from rs_embed.formats.base import Dtype
from rs_embed.formats.files import format_named
from rs_embed.pipeline.plan import job_facts
from rs_embed.pipeline.request import Backend, EmbeddingRequest, KnobValue, RequestBase, Unvalidated, canonical, one_of
from rs_embed.places import Places
from rs_embed.plan import Plan, backend_for, opened

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Job

Models = (
    str
    | ModelCard
    | Sequence[str | ModelCard | tuple[str | ModelCard, Mapping[str, KnobValue]]]
    | Mapping[str, Mapping[str, KnobValue]]
)
"""One model, several, or a mapping model id -> knobs; of several, each may be a pair with its knobs."""
NUMBERS = ("torch", "numpy", "rasterio", "odc-geo", "pyproj")
"""Packages whose version may change the numbers. (Our own changes raise the revision of a card.)"""
VECTORS = "geoparquet"


class ExportRequest(RequestBase):
    """What the models of an export are to compute, checked as far as possible without the places."""

    models: Annotated[Models, Unvalidated]
    knobs: Annotated[Mapping[str, object], AfterValidator(canonical)] = {}
    """Knobs of every model; the knobs given per model in `models` take precedence."""
    format: str | None = None
    dtype: Annotated[Dtype, one_of(Dtype, "dtype")] = "float32"
    unit_rows: Annotated[int, Field(strict=True, ge=1, title="unit_rows of 1 or more")] = UNIT_ROWS
    on_error: Annotated[OnError, one_of(OnError, "on_error")] = "keep"
    save_inputs: bool = False
    share_reads: bool = False
    region: MapGrid | None = None
    """Of a map of a region, whose blocks are the places."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.grid_format not in (None, MAP) and self.dtype != "float32":
            raise SpecError(f"Expected float32 for grids, got dtype={self.dtype!r}.", fix="leave out dtype")
        self.requests()
        return self

    @property
    def grid_format(self) -> str | None:
        """The file format of grids; `None` for vectors."""
        if self.output.kind == "pooled":
            require_choice("the format of vectors", VECTORS if self.format is None else self.format, (VECTORS,))
            return None
        if self.region is not None and self.format in (None, MAP):
            return MAP
        return format_named("cog" if self.format is None else self.format).name

    def requests(self) -> list[EmbeddingRequest]:
        """Return one embedding request per model."""
        shared = {name: vars(self)[name] for name in RequestBase.model_fields}
        return [
            EmbeddingRequest(**shared, model_id=model, knobs={**self.knobs, **knobs})
            for model, knobs in _with_knobs(self.models)
        ]

    @property
    def source(self) -> Backend:
        """Return the backend to use; "auto" becomes the one that the cards name."""
        return backend_for(self.backend, [get_card(request.model_id) for request in self.requests()])

    def jobs(self) -> "dict[str, Job]":
        """Return folder name -> job for each model. Everything that does not depend on places is checked."""
        plans: dict[str, Plan] = {}
        for request in self.requests():
            plan = Plan.laid(request, [], [])
            name = slug(plan.model.card.id).removeprefix("-")
            if name in plans:
                raise SpecError(f"Expected each model once, got {name!r} twice.", fix="export it to another folder")
            plans[name] = plan
        if not plans:
            raise SpecError("Expected at least one model, got none.", fix='for example "mosaiks_rcf"')
        provider = opened(self.source)
        overlaps = None if self.region is None else self.region.overlaps
        return {name: replace(plan.job_with(provider), overlaps=overlaps) for name, plan in plans.items()}

    def store(self, folder: Path, job: "Job", fingerprint: str) -> UnitStore:
        """The files of a model.

        Args:
            folder: Its folder.
            job: What is run for it.
            fingerprint: Of the run.
        """
        if self.grid_format != MAP or self.region is None:
            return UnitStore(folder, fingerprint, versions())
        tiles = MapTiles(self.region, job.embedder.readout.width(self.output), self.dtype)
        return UnitStore(folder, fingerprint, versions(), tiles=tiles)

    def run_facts(self, facts: Mapping[str, JsonValue], places: Places, units: Units) -> dict[str, JsonValue]:
        """Return everything that determines the numbers and files of a run.

        Args:
            facts: The result of `models_facts` where the models run.
            places: The table.
            units: Its units.
        """
        return {
            **facts,
            "format": self.grid_format or VECTORS,
            "dtype": self.dtype,
            "places": {"rows": len(places), "digest": places.digest()},
            "units": {"rows": self.unit_rows, "digest": units.digest()},
            **({} if self.region is None else {"region": self.region.model_dump(mode="json")}),
        }

    def command(self) -> dict[str, JsonValue]:
        """Return the request as JSON, with `None` for what only the caller has: a card or provider object."""
        own = {
            "models": not all(isinstance(request.model_id, str) for request in self.requests()),
            "backend": not isinstance(self.backend, str | Path),
        }
        objects = {name for name, is_object in own.items() if is_object}
        return {**self.model_dump(mode="json", exclude=objects), **dict.fromkeys(objects)}

    @classmethod
    def of_command(cls, command: Mapping[str, JsonValue]) -> Self:
        """Rebuild the request that `command` returned.

        Raises:
            SpecError: The arguments are not valid.
        """
        sensor = command.get("sensor")
        if isinstance(sensor, dict) and (not sensor or "" in sensor):  # the form of earlier versions
            sensor = sensor.get("")
        try:
            return cls.model_validate({**command, "sensor": sensor})
        except ValidationError as error:
            raise cls._spec_error(error) from None

    @field_serializer("models")
    def _by_id(self, _: Models) -> dict[str, Mapping[str, object]]:
        return {lasting_id(str(request.model_id)): request.knobs for request in self.requests()}

    @field_serializer("backend")
    def _as_text(self, backend: Backend) -> str:
        """Return the backend's name, or an absolute path."""
        from rs_embed.providers.rasters.folder import is_pattern  # here, because rasterio is slow to import

        text = super()._as_text(backend)
        return (
            str(Path(text).resolve()) if isinstance(backend, Path) or Path(text).exists() or is_pattern(text) else text
        )


def models_facts(jobs: "Mapping[str, Job]") -> dict[str, JsonValue]:
    """Return what determines the numbers, except places and units. Loads the networks to hash their weights."""
    return plain(
        {
            "models": {name: {**job_facts(job), "device": job.embedder.device.type} for name, job in jobs.items()},
            "versions": {name: _version(name) for name in NUMBERS},
        }
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part in an export."""
    ours = {"python": python_version(), "rs_embed": _version("eo-rs-embed")}
    return ours | {name: _version(name) for name in (*NUMBERS, "pyarrow", "geopandas")}


_version = cache(version)
"""Each unit asks, and to read what is installed takes as long as to embed some places."""


def _with_knobs(models: Models) -> list[tuple[str | ModelCard, Mapping[str, KnobValue]]]:
    if isinstance(models, str | ModelCard):
        return [(models, {})]
    if not isinstance(models, Mapping | list | tuple):
        raise SpecError(f"Expected model ids, got {short(models)}.", fix='for example "thor" or ["thor"]')
    if isinstance(models, Mapping):
        for model, knobs in models.items():
            if not isinstance(knobs, Mapping):
                raise SpecError(
                    f"Expected a mapping of knobs for {short(model)}, got {short(knobs)}.", fix="use {} for none"
                )
        return list(models.items())
    return [model if isinstance(model, tuple) else (model, {}) for model in models]


def plain(value: Mapping[str, object]) -> dict[str, JsonValue]:
    """Convert values to JSON."""
    found: dict[str, JsonValue] = json.loads(json.dumps(value, default=as_json))
    return found
