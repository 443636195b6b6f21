"""What all commands share: the options that say what is asked for, and how a command is registered."""

import inspect as introspect
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeGuard, TypeVar

import typer
from rich.console import Console
from rich.text import Text

import rs_embed
from rs_embed.cli.completion import complete_backend, complete_knob, complete_modality, complete_model
from rs_embed.core.specs import (
    BBox,
    Debias,
    InputPrep,
    OutputSpec,
    PointBuffer,
    Pooling,
    Precision,
    SpatialSpec,
    TemporalSpec,
)
from rs_embed.errors import RSEmbedError

T = TypeVar("T")
Command = Callable[..., None]
WIDTH = shutil.get_terminal_size(fallback=(120, 40)).columns  # a pipe or log gets 120
OUT = Console(width=WIDTH, markup=False, highlight=False, emoji=False)
ERR = Console(width=WIDTH, markup=False, highlight=False, emoji=False, stderr=True)

app: typer.Typer = typer.Typer(
    help="Embeddings from Earth observation foundation models, for any place and time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Start with: rs-embed demo",
)
START, ONE, MANY, LABELS, OWN = "Start here", "One place", "Many places", "Your labels", "Your own model"
ORDER = (
    *("demo", "models", "describe", "doctor", "embed", "inspect", "explore", "generate"),
    *("export", "region", "map", "change", "status", "retry", "verify", "compact", "index", "similar"),
    *("evaluate", "fit", "predict", "suggest", "fit-mosaiks"),
)
"""Commands, in the order of the help."""
EXAMPLES: dict[str, tuple[str, ...]] = {}
"""Command -> the examples of its help."""

_where = partial(typer.Option, rich_help_panel="Place (omit it for the whole raster or sample)")
_when = partial(typer.Option, rich_help_panel="Time")
_imagery = partial(typer.Option, rich_help_panel="Imagery")
_running = partial(typer.Option, rich_help_panel="Model and output")
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Model id or alias: see `rs-embed models`.", autocompletion=complete_model),
]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
BACKEND_HELP = "Source of the imagery: sample, stac, gee, published, auto, or the path of a raster."
ACCEPT_HELP = "Accept the licence of a model that asks for it."
OFFSET_HELP = "Add this to the DN: -1000 for Sentinel-2 scenes since 2022."


@dataclass(frozen=True)
class OptionSet:
    """Options that stand together in several commands, each written once."""

    def keywords(self) -> dict[str, object]:
        """As keywords of the call that a command makes."""
        return dict(vars(self))


@dataclass(frozen=True)
class Request(OptionSet):
    """The options that say what is asked for: model, place, days, imagery."""

    model: Model
    lon: Annotated[float | None, _where(help="Longitude of the centre, degrees east.")] = None
    lat: Annotated[float | None, _where(help="Latitude of the centre, degrees north.")] = None
    buffer: Annotated[float | None, _where(help="Half the side of the square, metres.")] = None
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        _where(metavar="W S E N", help="Bounding box instead: MINLON MINLAT MAXLON MAXLAT."),
    ] = None
    crs: Annotated[str | None, _where(help="CRS of --bbox. Default: EPSG:4326.")] = None
    start: Annotated[str | None, _when(help="First day, YYYY-MM-DD.")] = None
    end: Annotated[str | None, _when(help="The day after the last, YYYY-MM-DD.")] = None
    year: Annotated[int | None, _when(help="A whole calendar year instead.")] = None
    backend: Annotated[str | None, _imagery(help=BACKEND_HELP, autocompletion=complete_backend)] = None
    raster: Annotated[Path | None, _imagery(help="Your own GeoTIFF, COG, VRT or Zarr instead.")] = None
    bands: Annotated[str | None, _imagery(help="Bands of --raster, in order: B2,B3,...")] = None
    unit: Annotated[str | None, _imagery(help="Unit of --raster: dn, reflectance, db or power.")] = None
    offset: Annotated[float | None, _imagery(help=OFFSET_HELP)] = None
    modality: Annotated[
        str | None,
        _imagery(help="Input to use, or several: s2+s1. See `describe`.", autocompletion=complete_modality),
    ] = None
    only_bands: Annotated[str | None, _imagery(help="Feed the model only these bands: B2,B3.")] = None

    def chosen_bands(self) -> list[str] | None:
        """Some of the modality's bands; `None` for all."""
        return self.only_bands.split(",") if self.only_bands else None

    def spatial(self) -> SpatialSpec | None:
        """The place; `None` for all that the backend holds."""
        point = together("--lon, --lat and --buffer", self.lon, self.lat, self.buffer)
        either("--bbox", self.bbox, "--lon, --lat and --buffer", point)
        if self.bbox is not None:
            return BBox(*self.bbox, crs=self.crs or "EPSG:4326")
        if self.crs is not None:
            raise typer.BadParameter("--crs describes a --bbox: give both")
        return PointBuffer(*point) if point else None

    def temporal(self) -> TemporalSpec | None:
        """The days; `None` for those that the backend holds."""
        days = together("--start and --end", self.start, self.end)
        either("--year", self.year, "--start and --end", days)
        if self.year is not None:
            return TemporalSpec.year(self.year)
        return TemporalSpec.range(*days) if days else None

    def imagery(self) -> "str | rs_embed.LocalRasters":
        """The backend: a name, or the raster given."""
        either("--backend", self.backend, "--raster", self.raster)
        if self.raster is not None:
            bands = self.bands.split(",") if self.bands else None
            return rs_embed.LocalRasters(self.raster, bands=bands, unit=self.unit, offset=self.offset)
        if (self.bands, self.unit, self.offset) != (None, None, None):
            raise typer.BadParameter("--bands, --unit and --offset describe a --raster")
        return self.backend or "auto"


def together(names: str, *values: T | None) -> tuple[T, ...]:
    """All of the values, or none."""
    given = tuple(value for value in values if value is not None)
    if 0 < len(given) < len(values):
        raise typer.BadParameter(f"{names} go together")
    return given


def either(name: str, value: object, other_name: str, other: object) -> None:
    """Refuse two options that say the same in two ways."""
    if value is not None and other:
        raise typer.BadParameter(f"give either {name} or {other_name}")


_OF_OUTPUT = ("output", "pooling", "debias", "knobs")
"""Options that are no keywords of the calls."""


@dataclass(frozen=True)
class ModelOptions(OptionSet):
    """The options that say how the model runs."""

    output: Annotated[
        Literal["pooled", "grid", "dense"],
        _running(help="pooled: one vector. grid: a map of patch tokens. dense: a map of finer tokens."),
    ] = "pooled"
    pooling: Annotated[Pooling, _running(help="How tokens become one vector.")] = "mean"
    debias: Annotated[
        Debias, _running(help="position: remove from each token what depends only on its place in the window.")
    ] = "none"
    input_prep: Annotated[
        InputPrep, _running(help="Resize the chip to the network's input, crop its centre, or tile it.")
    ] = "auto"
    device: Annotated[str, _running(help="auto, cpu, cuda or cuda:0.")] = "auto"
    precision: Annotated[
        Precision, _running(help="bf16: faster, slightly less exact. auto: bf16 where the device is built for it.")
    ] = "fp32"
    accept_licence: Annotated[str | None, _running(metavar="ID[,ID...]", help=ACCEPT_HELP)] = None
    knobs: Annotated[
        list[str] | None,
        _running(
            "--set",
            metavar="KNOB=VALUE",
            help="Set a knob that `describe` lists. Repeatable.",
            autocompletion=complete_knob,
        ),
    ] = None

    def output_spec(self) -> OutputSpec:
        """What comes back."""
        if self.output == "pooled":
            return OutputSpec("pooled", self.pooling, debias=self.debias)
        return OutputSpec.grid("dense" if self.output == "dense" else "patch", debias=self.debias)

    def keywords(self) -> dict[str, object]:
        """Of `get_embedding`: all but the knobs by their own names, and the knobs."""
        named = {name: value for name, value in vars(self).items() if name not in _OF_OUTPUT}
        return {**named, "output": self.output_spec(), **knobs_of(self.knobs)}


def knobs_of(settings: list[str] | None) -> dict[str, str]:
    """The knobs that `--set` gives, by name; their values are text."""
    pairs = [setting.partition("=") for setting in settings or ()]
    if not all(equals for _, equals, _ in pairs):
        raise typer.BadParameter("--set takes KNOB=VALUE, for example --set patch_size=8")
    return {name: value for name, _, value in pairs}


def _is_set(annotation: object) -> TypeGuard[type[OptionSet]]:
    return isinstance(annotation, type) and issubclass(annotation, OptionSet)


_IN_SHELL = (
    (r"spatial=PointBuffer\(lon=([-\d.]+), lat=([-\d.]+), buffer_m=([-\d.]+)\)", r"--lon \1 --lat \2 --buffer \3"),
    (r'temporal=TemporalSpec\.range\("([\d-]+)", "([\d-]+)"\)', r"--start \1 --end \2"),
    (r"temporal=TemporalSpec\.year\((\d+)\)", r"--year \1"),
    (r"\btimes=\((\d+), (\d+)\)", r"--times \1 \2"),
    (
        r"\b(backend|device|precision|format|dtype|engine|address|modality|buffer_m|input_prep|accept_licence|label|kind|"
        r'groups|blocks|level|raster|region|false_alarms)="?(<[^>]+>|[\w.,:+*/-]+\b)"?',
        lambda found: f"--{found[1].removesuffix('_m').replace('_', '-')} {found[2]}",
    ),
)
"""What a fix says for Python -> the same on the command line."""


def in_shell(fix: str) -> str:
    """The fix of an error, with options of the command line in place of keywords of Python."""
    for pattern, option in _IN_SHELL:
        fix = re.sub(pattern, option, fix)
    return fix


def command(panel: str, *examples: str) -> Callable[[Command], Command]:
    """Register a command whose parameters are options, or one of the sets of options above, which are spread.

    An error of the library ends it with exit code 1 and without a traceback.

    Args:
        panel: The group that the help lists it in.
        examples: For its help; each line has at most 78 characters.
    """

    def register(function: Command) -> Command:
        parameters = introspect.signature(function).parameters
        sets = {name: p.annotation for name, p in parameters.items() if _is_set(p.annotation)}
        options = {name: p for name, p in parameters.items() if name not in sets}
        for kind in sets.values():
            options |= introspect.signature(kind).parameters

        def run(*, debug: bool, **given: object) -> None:
            spread = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in sets.items()}
            try:
                function(**spread, **given)
            except RSEmbedError as error:
                if debug:
                    raise
                text, fix, advice = str(error).partition("\n  fix:")
                said = Text.assemble((f"{type(error).__name__}: ", "bold red"), text + fix + in_shell(advice))
                said.highlight_regex(r"(?m)^  fix:.*", "green")
                ERR.print(said, soft_wrap=True)  # long lines stay whole, so that paths can be copied
                raise typer.Exit(1) from None

        keyword = introspect.Parameter.KEYWORD_ONLY
        options["debug"] = introspect.Parameter("debug", keyword, default=False, annotation=_Debug)
        run.__dict__["__signature__"] = introspect.Signature([p.replace(kind=keyword) for p in options.values()])
        name = function.__name__.replace("_", "-")
        EXAMPLES[name] = examples
        head = "Example:" if len(examples) == 1 else "Examples:"
        text, epilog = introspect.cleandoc(function.__doc__ or ""), "\n".join([head, *examples])
        app.command(name, help=text, epilog=epilog, rich_help_panel=panel)(run)
        return function

    return register
