"""What an export is asked for: as models that can run, as the request that names a run, as arguments to repeat."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, get_args

from pydantic import JsonValue

from rs_embed.call import Backend, Bands, Call, KnobValue, Modalities, Sensors, provider_of
from rs_embed.core.checks import require_choice, short
from rs_embed.core.hashing import as_json
from rs_embed.core.specs import InputPrep, OutputSpec, Precision
from rs_embed.embedders.card import ModelCard
from rs_embed.errors import SpecError
from rs_embed.exports.unit import Units
from rs_embed.exports.unit_writer import slug
from rs_embed.exports.work import OnError
from rs_embed.formats.base import Dtype
from rs_embed.formats.files import format_named
from rs_embed.pipeline.plan import job_facts
from rs_embed.places import Places

if TYPE_CHECKING:
    from rs_embed.pipeline.plan import Job

Models = str | ModelCard | Sequence[str | ModelCard] | Mapping[str, Mapping[str, KnobValue]]
"""One model, several, or several with the knobs of each."""
NUMBERS = ("torch", "numpy", "rasterio", "odc-geo", "pyproj")
"""Packages another version of which may change a digit. (Changes of ours raise the revision of a card.)"""
VECTORS = "geoparquet"


@dataclass(frozen=True)
class Asked:
    """The arguments of an export, checked as far as they can be without the places."""

    models: Models
    output: OutputSpec
    backend: Backend
    format: str | None
    dtype: Dtype
    unit_rows: int
    on_error: OnError
    sensor: Sensors
    modality: Modalities
    bands: Bands
    input_prep: InputPrep
    device: str
    precision: Precision
    knobs: Mapping[str, KnobValue]
    save_inputs: bool = False
    share_reads: bool = False

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, get_args(Dtype))
        require_choice("on_error", self.on_error, get_args(OnError))
        if isinstance(self.unit_rows, bool) or not isinstance(self.unit_rows, int) or self.unit_rows < 1:
            raise SpecError(f"Expected unit_rows of 1 or more, got {self.unit_rows!r}.", fix="leave it out")
        if not isinstance(self.output, OutputSpec):
            raise SpecError(f"Expected an OutputSpec, got {self.output!r}.", fix="OutputSpec.pooled() or .grid()")
        if self.grid_format is not None and self.dtype != "float32":
            raise SpecError(f"Expected float32 for grids, got dtype={self.dtype!r}.", fix="leave out dtype")

    @property
    def grid_format(self) -> str | None:
        """How grids are written; `None` for vectors."""
        if self.output.kind == "pooled":
            require_choice("the format of vectors", VECTORS if self.format is None else self.format, (VECTORS,))
            return None
        return format_named("cog" if self.format is None else self.format).name

    def jobs(self) -> "dict[str, Job]":
        """What is run for each model, by the name of its folder. Everything is checked that concerns no place."""
        imagery = self.sensor, self.modality, self.bands
        jobs: dict[str, Job] = {}
        provider = None
        for model, knobs in _with_knobs(self.models, self.knobs):
            call = Call(model, self.output, *imagery, self.input_prep, self.device, self.precision, knobs)
            if provider is None:
                provider = provider_of(self.backend, None, call)
            job = call.plan(provider, [], []).job
            name = slug(job.request.card.id).removeprefix("-")
            if name in jobs:
                raise SpecError(f"Expected every model once, got {name!r} twice.", fix="export it to another folder")
            jobs[name] = job
        if not jobs:
            raise SpecError("Expected at least one model, got none.", fix='for example "mosaiks_rcf"')
        return jobs

    def request(self, facts: Mapping[str, JsonValue], places: Places, units: Units) -> dict[str, JsonValue]:
        """All that decides the numbers and the files.

        Args:
            facts: What `models_facts` says where the models run.
        """
        return {
            **facts,
            "format": self.grid_format or VECTORS,
            "dtype": self.dtype,
            "places": {"rows": len(places), "digest": places.digest()},
            "units": {"rows": self.unit_rows, "digest": units.digest()},
        }

    def command(self) -> dict[str, JsonValue]:
        """The arguments again as JSON; `None` for what only the caller has: a card or a provider of its own."""
        pairs = [(model, dict(knobs)) for model, knobs in _with_knobs(self.models, self.knobs)]
        sensors = self.sensor if isinstance(self.sensor, Mapping) else {"": self.sensor}
        return plain(
            {
                "models": dict(pairs) if all(isinstance(model, str) for model, _ in pairs) else None,
                "backend": _backend_text(self.backend),
                "sensor": {name: asdict(sensor) for name, sensor in sensors.items() if sensor is not None},
                "output": asdict(self.output),
                **{name: vars(self)[name] for name in _REPEATED},
            }
        )


def models_facts(jobs: "Mapping[str, Job]") -> dict[str, JsonValue]:
    """All that decides the numbers, but for places and units; loads the networks to know their weights."""
    return plain(
        {
            "models": {name: {**job_facts(job), "device": job.embedder.device.type} for name, job in jobs.items()},
            "versions": {name: version(name) for name in NUMBERS},
        }
    )


def _backend_text(backend: Backend) -> str | None:
    if isinstance(backend, str | Path):
        from rs_embed.providers.rasters.folder import is_pattern  # not above: rasterio is slow to import

        is_path = isinstance(backend, Path) or Path(backend).exists() or is_pattern(backend)
        return str(Path(backend).resolve() if is_path else backend)
    return None


_REPEATED = (
    *("format", "dtype", "unit_rows", "on_error", "modality", "bands", "input_prep", "device", "precision"),
    *("save_inputs", "share_reads"),
)


def versions() -> dict[str, str]:
    """Packages that take part in an export."""
    ours = {"python": python_version(), "rs_embed": version("eo-rs-embed")}
    return ours | {name: version(name) for name in (*NUMBERS, "pyarrow", "geopandas")}


def _with_knobs(
    models: Models, shared: Mapping[str, KnobValue]
) -> list[tuple[str | ModelCard, Mapping[str, KnobValue]]]:
    if isinstance(models, str | ModelCard):
        return [(models, shared)]
    if not isinstance(models, Mapping | list | tuple):
        raise SpecError(f"Expected models by their ids, got {short(models)}.", fix='for example "thor" or ["thor"]')
    if isinstance(models, Mapping):
        for model, knobs in models.items():
            if not isinstance(knobs, Mapping):
                raise SpecError(f"Expected the knobs of {short(model)} by name, got {short(knobs)}.", fix="{} for none")
        return [(model, {**shared, **knobs}) for model, knobs in models.items()]
    return [(model, shared) for model in models]


def plain(value: Mapping[str, object]) -> dict[str, JsonValue]:
    """The same as JSON values."""
    found: dict[str, JsonValue] = json.loads(json.dumps(value, default=as_json))
    return found
