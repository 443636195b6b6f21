"""What all commands share: the options that say what is asked for, and how a command is registered."""

import inspect as introspect
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
    help="The embedding of any Earth observation foundation model, for any place and time, in one call.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Start with: rs-embed demo",
)


_where = partial(typer.Option, rich_help_panel="Where (leave out: all of the raster or sample)")
_when = partial(typer.Option, rich_help_panel="When")
_imagery = partial(typer.Option, rich_help_panel="Imagery")
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Id or alias; `rs-embed models` lists them.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


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
    lon: Annotated[float | None, _where(help="Degrees east.")] = None
    lat: Annotated[float | None, _where(help="Degrees north.")] = None
    buffer: Annotated[float | None, _where(help="Half of the side of the square, metres.")] = None
    bbox: Annotated[
        tuple[float, float, float, float] | None, _where(metavar="MINLON MINLAT MAXLON MAXLAT", help="A box instead.")
    ] = None
    crs: Annotated[str | None, _where(help="Of the four numbers of --bbox; EPSG:4326 if left out.")] = None
    start: Annotated[str | None, _when(help="First day, YYYY-MM-DD.")] = None
    end: Annotated[str | None, _when(help="The day after the last.")] = None
    year: Annotated[int | None, _when(help="A whole year instead.")] = None
    backend: Annotated[str | None, _imagery(help="sample, gee, stac, auto, or the path of a raster.")] = None
    raster: Annotated[Path | None, _imagery(help="Your own GeoTIFF, COG, VRT or Zarr instead.")] = None
    bands: Annotated[str | None, _imagery(help="Bands of --raster in order: B2,B3,...")] = None
    unit: Annotated[str | None, _imagery(help="Of --raster: dn, reflectance, db or power.")] = None
    offset: Annotated[float | None, _imagery(help="Added to the DN of --raster; -1000 for scenes since 2022.")] = None
    modality: Annotated[str | None, _imagery(help="One that `describe` lists, or several: s2+s1.")] = None
    only_bands: Annotated[str | None, _imagery(help="Feed the model only these: B2,B3 or BLUE,GREEN.")] = None

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
            raise typer.BadParameter("--crs describes a --bbox")
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
        Literal["pooled", "grid", "dense"], typer.Option(help="One vector, a map of tokens, or of finer ones.")
    ] = "pooled"
    pooling: Annotated[Pooling, typer.Option(help="Of a pooled vector.")] = "mean"
    debias: Annotated[
        Debias, typer.Option(help="Of a map: position takes out what tokens carry of their place in the window.")
    ] = "none"
    input_prep: Annotated[InputPrep, typer.Option(help="How the chip fits the network.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto"
    precision: Annotated[
        Precision, typer.Option(help="bf16 is faster and a little coarser; auto takes it where it is.")
    ] = "fp32"
    knobs: Annotated[
        list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="One that `describe` lists; repeatable.")
    ] = None

    def output_spec(self) -> OutputSpec:
        """What comes back."""
        if self.output == "pooled":
            return OutputSpec("pooled", self.pooling, debias=self.debias)
        return OutputSpec.grid("dense" if self.output == "dense" else "patch", debias=self.debias)

    def keywords(self) -> dict[str, object]:
        """Of `get_embedding`: all but the knobs by their own names, and the knobs."""
        pairs = [setting.partition("=") for setting in self.knobs or ()]
        if not all(equals for _, equals, _ in pairs):
            raise typer.BadParameter("--set wants KNOB=VALUE, as in --set patch_size=8")
        named = {name: value for name, value in vars(self).items() if name not in _OF_OUTPUT}
        return {**named, "output": self.output_spec(), **{name: value for name, _, value in pairs}}


def _is_set(annotation: object) -> TypeGuard[type[OptionSet]]:
    return isinstance(annotation, type) and issubclass(annotation, OptionSet)


def command(*examples: str) -> Callable[[Command], Command]:
    """Register a command whose parameters are options, or one of the sets of options above, which are spread.

    An error of the library ends it with exit code 1 and without a traceback.
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
                said = Text.assemble((f"{type(error).__name__}: ", "bold red"), str(error))
                said.highlight_regex(r"(?m)^  fix:.*", "green")
                ERR.print(said, soft_wrap=True)  # long lines stay whole, so that paths can be copied
                raise typer.Exit(1) from None

        keyword = introspect.Parameter.KEYWORD_ONLY
        options["debug"] = introspect.Parameter("debug", keyword, default=False, annotation=_Debug)
        run.__dict__["__signature__"] = introspect.Signature([p.replace(kind=keyword) for p in options.values()])
        app.command(
            function.__name__.replace("_", "-"), help=function.__doc__, epilog="\n\n".join(["Examples:", *examples])
        )(run)
        return function

    return register
