"""The command line. Nothing heavy is imported before a command runs, so `--help` is quick."""

import inspect as introspect
import json
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.console import Console
from rich.text import Text

import rs_embed
from rs_embed.errors import RSEmbedError, RSEmbedWarning
from rs_embed.specs import BBox, InputPrep, OutputSpec, PointBuffer, Pooling, Precision, SpatialSpec, TemporalSpec
from rs_embed.tables import table

if TYPE_CHECKING:
    from rs_embed.embedders.describe import ModelDescription

T = TypeVar("T")
Command = Callable[..., None]
WIDTH = shutil.get_terminal_size(fallback=(120, 40)).columns  # a pipe or log gets 120
OUT = Console(width=WIDTH, markup=False, highlight=False, emoji=False)
ERR = Console(width=WIDTH, markup=False, highlight=False, emoji=False, stderr=True)

app = typer.Typer(
    help="The embedding of any Earth observation foundation model, for any place and time, in one call.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Start with: rs-embed demo",
)


def main() -> None:
    """The command `rs-embed`."""
    python_style = warnings.formatwarning

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, RSEmbedWarning):
            return f"warning: {message}\n"
        return python_style(message, category, filename, lineno, line)

    warnings.formatwarning = one_line
    app(prog_name="rs-embed")


_where = partial(typer.Option, rich_help_panel="Where (leave out: all of the raster or sample)")
_when = partial(typer.Option, rich_help_panel="When")
_imagery = partial(typer.Option, rich_help_panel="Imagery")
_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Id or alias; `rs-embed models` lists them.")]
_Pattern = Annotated[str, typer.Argument(metavar="[PATTERN]", help="Such as 'thor*'.")]
_Picture = Annotated[Path | None, typer.Option(help="Draw it: .png.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


@dataclass(frozen=True)
class Request:
    """The options that say what is asked for: model, place, days, imagery."""

    model: _Model
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
    backend: Annotated[str | None, _imagery(help="gee, stac, sample, or the path of a raster.")] = None
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
        point = _together("--lon, --lat and --buffer", self.lon, self.lat, self.buffer)
        _either("--bbox", self.bbox, "--lon, --lat and --buffer", point)
        if self.bbox is not None:
            return BBox(*self.bbox, crs=self.crs or "EPSG:4326")
        if self.crs is not None:
            raise typer.BadParameter("--crs describes a --bbox")
        return PointBuffer(*point) if point else None

    def temporal(self) -> TemporalSpec | None:
        """The days; `None` for those that the backend holds."""
        days = _together("--start and --end", self.start, self.end)
        _either("--year", self.year, "--start and --end", days)
        if self.year is not None:
            return TemporalSpec.year(self.year)
        return TemporalSpec.range(*days) if days else None

    def imagery(self) -> "str | rs_embed.LocalRasters":
        """The backend: a name, or the raster given."""
        _either("--backend", self.backend, "--raster", self.raster)
        if self.raster is not None:
            bands = self.bands.split(",") if self.bands else None
            return rs_embed.LocalRasters(self.raster, bands=bands, unit=self.unit, offset=self.offset)
        if (self.bands, self.unit, self.offset) != (None, None, None):
            raise typer.BadParameter("--bands, --unit and --offset describe a --raster")
        return self.backend or "auto"


def _together(names: str, *values: T | None) -> tuple[T, ...]:
    """All of the values, or none."""
    given = tuple(value for value in values if value is not None)
    if 0 < len(given) < len(values):
        raise typer.BadParameter(f"{names} go together")
    return given


def _either(name: str, value: object, other_name: str, other: object) -> None:
    if value is not None and other:
        raise typer.BadParameter(f"give either {name} or {other_name}")


@dataclass(frozen=True)
class ModelOptions:
    """The options that say how the model runs."""

    output: Annotated[Literal["pooled", "grid"], typer.Option(help="One vector, or a map of tokens.")] = "pooled"
    pooling: Annotated[Pooling, typer.Option(help="Of a pooled vector.")] = "mean"
    input_prep: Annotated[InputPrep, typer.Option(help="How the chip fits the network.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto"
    precision: Annotated[Precision, typer.Option(help="bf16 is faster and a little coarser.")] = "fp32"
    knobs: Annotated[
        list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="One that `describe` lists; repeatable.")
    ] = None

    def keywords(self) -> dict[str, str]:
        """The knobs by name."""
        pairs = [setting.partition("=") for setting in self.knobs or ()]
        if not all(equals for _, equals, _ in pairs):
            raise typer.BadParameter("--set wants KNOB=VALUE, as in --set patch_size=8")
        return {name: value for name, _, value in pairs}


def _command(*examples: str) -> Callable[[Command], Command]:
    """Register a command whose parameters are options, or one of the sets of options above, which are spread.

    An error of the library ends it with exit code 1 and without a traceback.
    """

    def register(function: Command) -> Command:
        parameters = introspect.signature(function).parameters
        sets = {name: p.annotation for name, p in parameters.items() if p.annotation in (Request, ModelOptions)}
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
        app.command(function.__name__, help=function.__doc__, epilog="\n\n".join(["Examples:", *examples]))(run)
        return function

    return register


def _readable(model: "ModelDescription") -> dict[str, object]:
    names = [modality["name"] for modality in model["modalities"]]
    return {**model, "modalities": names, "parameters": f"{model['parameters_m']:g} million"}


@_command("rs-embed models", "rs-embed models 'thor*' --json")
def models(pattern: _Pattern = "*", as_json: _Json = False) -> None:
    """List the models."""
    found = [rs_embed.describe_model(model_id) for model_id in rs_embed.list_models(pattern)]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif found:
        shown = ("id", "kind", "parameters", "dim", "modalities", "licence", "aliases")
        OUT.print(table([_readable(model) for model in found], shown))
    else:
        ERR.print(f"No model matches {pattern!r}; `rs-embed models` lists all.")


@_command("rs-embed describe thor", "rs-embed describe mosaiks_rcf --json")
def describe(model: _Model, as_json: _Json = False) -> None:
    """Show what a model takes, gives and lets you turn, with its licence and citation."""
    found = rs_embed.describe_model(model)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    names = ("id", "title", "kind", "aliases", "parameters", "dim", "input_prep", "weights", "licence", "citation")
    facts = _readable(found)
    OUT.print(table([{"fact": name.replace("_", " "), "value": facts[name]} for name in names]))
    modalities = [{**modality, "units": sorted(set(modality["units"]))} for modality in found["modalities"]]
    OUT.print(table(modalities, ("name", "collection", "bands", "units", "scale_m", "image_px")))
    OUT.print(table(found["knobs"]))


@_command(
    "rs-embed embed mosaiks_rcf --backend sample --output grid --out grid.tif --picture grid.png",
    "rs-embed embed thor --lon 12.94 --lat 47.77 --buffer 500 --backend sample --set pretrained=0",
    "rs-embed embed thor --raster scene.tif --unit dn --offset -1000 --input-prep tile --json",
)
def embed(
    request: Request,
    options: ModelOptions,
    *,
    out: Annotated[Path | None, typer.Option(help="Write it: .npz, .nc, or .tif (grids).")] = None,
    picture: _Picture = None,
    as_json: _Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")] = False,
) -> None:
    """Embed one place: a vector, or a map that opens in QGIS."""
    if dry_run:
        from rs_embed.api import plan_embedding

        typer.echo(str(_call(plan_embedding, request, options)))
        return
    from rs_embed.embedding_files import check_path
    from rs_embed.tables import embedding_row, source_line

    if out is not None:
        check_path(out, options.output)
    started = time.perf_counter()
    embedding = _call(rs_embed.get_embedding, request, options)
    if as_json:
        typer.echo(embedding.meta.model_dump_json(indent=2))
    else:
        row = embedding_row(embedding, time.perf_counter() - started)
        OUT.print(source_line(embedding), table([row]), sep="\n")
    if out is not None:
        ERR.print(f"wrote {embedding.save(out)}", soft_wrap=True)
    if picture is not None:
        embedding.plot(picture)
        ERR.print(f"wrote {picture}", soft_wrap=True)


def _call(function: Callable[..., T], request: Request, options: ModelOptions) -> T:
    """What a function with the arguments of `get_embedding` answers."""
    return function(
        request.model,
        request.spatial(),
        request.temporal(),
        OutputSpec.grid() if options.output == "grid" else OutputSpec.pooled(options.pooling),
        request.imagery(),
        modality=request.modality,
        bands=request.chosen_bands(),
        input_prep=options.input_prep,
        device=options.device,
        precision=options.precision,
        **options.keywords(),
    )


@_command("rs-embed inspect thor --backend sample --picture chip.png", "rs-embed inspect thor --raster scene.tif")
def inspect(request: Request, picture: _Picture = None) -> None:
    """Show the pixels that a model would get, and how far they are from those it was trained on."""
    where, when, imagery = request.spatial(), request.temporal(), request.imagery()
    bands = request.chosen_bands()
    report = rs_embed.inspect_chip(request.model, where, when, imagery, modality=request.modality, bands=bands)
    typer.echo(str(report))
    if picture is not None:
        from rs_embed.pictures import save_figure, side_by_side, true_colour

        save_figure(side_by_side([true_colour(next(iter(report.chips.values())))]), picture)
        ERR.print(f"wrote {picture}", soft_wrap=True)


@_command("rs-embed demo", "rs-embed demo --out /tmp/demo")
def demo(out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo")) -> None:
    """Run two models on the scene that comes with the package, and draw what they see."""
    from rs_embed.demo import run_demo

    raise typer.Exit(run_demo(out, OUT))


@_command("rs-embed doctor", "rs-embed doctor --json")
def doctor(as_json: _Json = False) -> None:
    """Check this machine and the Earth Engine account, and say what is wrong."""
    from rs_embed.doctor import run_doctor

    raise typer.Exit(run_doctor(OUT, as_json=as_json))
