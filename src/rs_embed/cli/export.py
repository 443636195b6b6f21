"""The commands that do long jobs: export, retry."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import rs_embed
from rs_embed.cli.options import ERR, Json, ModelOptions, OptionSet, command, either, together
from rs_embed.core.specs import TemporalSpec

if TYPE_CHECKING:
    from rs_embed.exports.call import ExportReport
    from rs_embed.places import Places

_TABLE = "The table (names are guessed if left out)"
_CLUSTER = "Where it runs"
_Models = Annotated[str, typer.Argument(metavar="MODEL[,MODEL...]", help="Ids or aliases, joined by commas.")]
_Places = Annotated[
    str, typer.Argument(metavar="TABLE", help="CSV, Parquet, GeoJSON, GeoPackage or shapefile of points or polygons.")
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder that `export` filled.")]
_Column = str | None
Verify = Annotated[
    bool, typer.Option("--verify", help="Compare every byte of what is there, and make again what is damaged.")
]


@dataclass(frozen=True)
class FileOptions(OptionSet):
    """The options that say what is written, and how rows are treated."""

    format: Annotated[
        str | None, typer.Option(help="geoparquet for vectors; cog (if left out), zarr, netcdf or npz for grids.")
    ] = None
    dtype: Annotated[Literal["float32", "float16", "int8"], typer.Option(help="Of stored vectors.")] = "float32"
    unit_rows: Annotated[int, typer.Option(min=1, help="Rows a file.")] = 4096
    on_error: Annotated[Literal["keep", "raise"], typer.Option(help="Keep failed rows, or stop at one.")] = "keep"
    save_inputs: Annotated[bool, typer.Option("--save-inputs", help="Also keep each chip, as .npz.")] = False
    share_reads: Annotated[bool, typer.Option("--share-reads", help="Cut chips of neighbours from one read.")] = False


@dataclass(frozen=True)
class RunOptions(OptionSet):
    """The options that say where an export runs this time."""

    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="This machine alone, or a Ray cluster.", rich_help_panel=_CLUSTER)
    ] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            help="Of the cluster: host:port, or auto for the one that runs here; left out, one is started.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do every N-th unit, from number I on (0 to N-1): N processes fill one folder. Limits hold for each.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None
    verify: Verify = False


@contextmanager
def _stoppable(run: str) -> Iterator[None]:
    """Ctrl-C, or a scheduler's SIGTERM, ends with what is stored, and a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        ERR.print(f"stopped; {_stored(run)}; the same command goes on", soft_wrap=True)
        raise


def _stored(run: str) -> str:
    """How much of a run is in its folder, as its records say."""
    from rs_embed.exports.status import stored_rows

    if "://" in run:
        return f"what was done up to the last checkpoint, at most about a minute ago, is stored in {run}"
    return f"{stored_rows(Path(run)):,} embeddings are stored in {run}"


def _column(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="COLUMN", help=text, rich_help_panel=_TABLE)
    return option


def _file(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, rich_help_panel="The files of --rasters")
    return option


@command(
    "rs-embed export mosaiks_rcf plots.csv run --buffer 640 --backend sample --dry-run",
    "rs-embed export thor,mosaiks_rcf fields.gpkg run --backend sample --year 2017 --output grid --format zarr",
    "rs-embed export thor --rasters 'tiles/*.tif' run --bands B2,B3,B4,B8 --offset -1000",
    "rs-embed export thor plots.csv run --backend stac --engine ray --address auto",
    "rs-embed export thor plots.csv run --backend stac --shard 3/16",
)
def export(
    models: _Models,
    places: _Places,
    options: ModelOptions,
    files: FileOptions,
    running: RunOptions,
    *,
    out: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Folder, or s3:// or gs://; new, or to go on with.")
    ] = None,
    rasters: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Files to embed, a row each, as 'tiles/*.tif'; no TABLE then.")
    ] = None,
    bands: Annotated[str | None, _file("Bands of --rasters in order: B2,B3,...")] = None,
    unit: Annotated[str | None, _file("Of --rasters: dn, reflectance, db or power.")] = None,
    offset: Annotated[float | None, _file("Added to the DN of --rasters; -1000 for scenes since 2022.")] = None,
    buffer: Annotated[str | None, typer.Option(help="Half of the side around points, metres; or its column.")] = None,
    start: Annotated[str | None, typer.Option(help="First day for all rows, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="The day after the last.")] = None,
    year: Annotated[int | None, typer.Option(help="A whole year instead.")] = None,
    id_column: Annotated[_Column, _column("Of the ids.")] = None,
    lon_column: Annotated[_Column, _column("Of the longitude, or x of --crs.")] = None,
    lat_column: Annotated[_Column, _column("Of the latitude, or y of --crs.")] = None,
    year_column: Annotated[_Column, _column("Of calendar years.")] = None,
    crs: Annotated[str | None, typer.Option(help="Of the coordinates.", rich_help_panel=_TABLE)] = None,
    backend: Annotated[str, typer.Option(help="sample, gee, stac, auto, or the path of a raster.")] = "auto",
    modality: Annotated[str | None, typer.Option(help="One that `describe` lists, or several: s2+s1.")] = None,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would cost, and stop.")] = False,
    plan_rows: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: for so many rows, of which the table is a part.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="With --dry-run: rows that a worker encodes a second, or: measure.")
    ] = None,
) -> None:
    """Embed a table of places into a folder. The same command goes on after a crash and retries what failed."""
    from rs_embed.exports.call import export_embeddings

    days = together("--start and --end", start, end)
    either("--year", year, "--start and --end", days)
    window = TemporalSpec.year(year) if year is not None else TemporalSpec.range(*days) if days else None
    if (rasters is None) == (out is None):
        raise typer.BadParameter("give TABLE and RUN, or --rasters and RUN")
    columns = {"id": id_column, "lon": lon_column, "lat": lat_column, "year": year_column}
    if rasters is not None and any((window, buffer, crs, *columns.values())):
        raise typer.BadParameter("--rasters tell places and days: leave out what is about a TABLE")
    imagery = _imagery(backend, rasters, bands, unit, offset)
    target = places if out is None else out
    table = _read(Path(places), columns, window, buffer, crs) if rasters is None else _files(rasters)
    run: Callable[..., ExportReport] = export_embeddings  # knobs are words here, whatever they mean
    call = partial(
        run,
        models.split(","),
        table,
        target,
        backend=imagery,
        modality=modality,
        dry_run=dry_run,
        plan_rows=plan_rows,
        rate=_rate(rate),
        **files.keywords(),
        **running.keywords(),
        **options.keywords(),
    )
    with _stoppable(target):
        report = call()
    _tell(report, as_json=as_json)


def _read(
    path: Path, columns: dict[str, str | None], window: TemporalSpec | None, buffer: str | None, crs: str | None
) -> "Places":
    from rs_embed.places import read_places

    named = {what: name for what, name in columns.items() if name is not None}
    return read_places(path, temporal=window, buffer_m=_number_or_name(buffer), crs=crs, keep=True, **named)


def _files(pattern: str) -> "Places":
    from rs_embed.exports.rasters import raster_places

    return raster_places(pattern)


def _imagery(
    backend: str, rasters: str | None, bands: str | None, unit: str | None, offset: float | None
) -> "str | rs_embed.RasterFolder":
    """The backend, or else the files; as an object where something is said of them."""
    said = (bands, unit, offset) != (None, None, None)
    if rasters is None or backend != "auto":
        if said:
            raise typer.BadParameter("--bands, --unit and --offset describe --rasters")
        return backend
    names = bands.split(",") if bands else None
    return rs_embed.RasterFolder(rasters, bands=names, unit=unit, offset=offset) if said else rasters


def _number_or_name(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _rate(text: str | None) -> float | Literal["measure"] | None:
    try:
        return None if text is None else "measure" if text == "measure" else float(text)
    except ValueError:
        raise typer.BadParameter(f"--rate takes a number or measure, got {text!r}") from None


def _tell(report: "ExportReport", *, as_json: bool) -> None:
    if as_json:
        facts = {"folder": str(report.folder), "ok": report.ok, "failed": report.failed, "dry_run": report.dry}
        typer.echo(json.dumps(facts | {"plan": asdict(report.plan)}, indent=2))
    else:
        typer.echo(str(report))
    if report.failed and isinstance(report.folder, Path):
        ERR.print(f"rs-embed status {report.folder} tells why rows failed", soft_wrap=True)
    if report.failed and not report.ok:
        raise typer.Exit(1)


@command("rs-embed retry run", "rs-embed retry run --verify")
def retry(
    run: RunFolder,
    running: RunOptions,
    *,
    as_json: Json = False,
) -> None:
    """Do what failed, was not finished, or is damaged, with the arguments that the run folder has kept."""
    from rs_embed.exports.status import retry_export

    again: Callable[..., ExportReport] = retry_export
    with _stoppable(run):
        report = again(run, **running.keywords())
    _tell(report, as_json=as_json)
