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
from rs_embed.cli.completion import complete_backend, complete_modality, complete_models
from rs_embed.cli.options import (
    BACKEND_HELP,
    ERR,
    MANY,
    OFFSET_HELP,
    Json,
    ModelOptions,
    OptionSet,
    command,
    either,
    together,
)
from rs_embed.core.specs import TemporalSpec

if TYPE_CHECKING:
    from rs_embed.exports.call import ExportReport
    from rs_embed.places import Places

_TABLE = "Columns of TABLE (omit them: common names are found)"
_IMAGERY = "Imagery and time"
_STORED = "Stored files"
_CLUSTER = "Several processes or machines"
_COST = "Cost"
_Models = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[,MODEL...]", help="Model ids or aliases, joined by commas.", autocompletion=complete_models
    ),
]
_Places = Annotated[
    str, typer.Argument(metavar="TABLE", help="CSV, Parquet, GeoJSON, GeoPackage or shapefile of points or polygons.")
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="Folder of an export.")]
_Column = str | None
Verify = Annotated[
    bool, typer.Option("--verify", help="Compare every byte of existing files with its record; redo damaged ones.")
]
_stored = partial(typer.Option, rich_help_panel=_STORED)
_cluster = partial(typer.Option, rich_help_panel=_CLUSTER)


@dataclass(frozen=True)
class FileOptions(OptionSet):
    """The options that say what is written, and how rows are treated."""

    format: Annotated[
        str | None, _stored(help="geoparquet for vectors; cog (default), zarr, netcdf or npz for grids.")
    ] = None
    dtype: Annotated[Literal["float32", "float16", "int8"], _stored(help="Number type of the vectors.")] = "float32"
    unit_rows: Annotated[int, _stored(min=1, help="Rows per file.")] = 4096
    on_error: Annotated[
        Literal["keep", "raise"], _stored(help="keep: record rows that fail. raise: stop at the first.")
    ] = "keep"
    save_inputs: Annotated[bool, _stored("--save-inputs", help="Also save each chip, as .npz.")] = False
    share_reads: Annotated[
        bool, _stored("--share-reads", help="Read imagery once for neighbours, and cut their chips from it.")
    ] = False


@dataclass(frozen=True)
class RunOptions(OptionSet):
    """The options that say where an export runs this time."""

    engine: Annotated[Literal["local", "ray"], _cluster(help="This machine, or a Ray cluster.")] = "local"
    address: Annotated[
        str | None,
        _cluster(help="Ray cluster: host:port, or auto for the one that runs here. Omit it to start one."),
    ] = None
    shard: Annotated[
        str | None,
        _cluster(
            metavar="I/N",
            help="Do every N-th unit, starting with unit I (0 to N-1), so that N processes fill one folder. "
            "Limits apply to each process.",
        ),
    ] = None
    verify: Verify = False


@contextmanager
def stoppable(run: str) -> Iterator[None]:
    """Ctrl-C, or a scheduler's SIGTERM, ends with how much is stored, and how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        ERR.print(f"stopped; {_stored_rows(run)}; run the same command to continue", soft_wrap=True)
        raise


def _stored_rows(run: str) -> str:
    """How much of a run is in its folder, as its records say."""
    from rs_embed.exports.status import stored_rows

    if "://" in run:
        return f"everything up to the last checkpoint, about a minute ago at most, is stored in {run}"
    return f"{stored_rows(Path(run)):,} embeddings are stored in {run}"


def _column(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="COLUMN", help=text, rich_help_panel=_TABLE)
    return option


_file = partial(typer.Option, rich_help_panel="Files of --rasters")
_imagery_option = partial(typer.Option, rich_help_panel=_IMAGERY)
_cost = partial(typer.Option, rich_help_panel=_COST)


@command(
    MANY,
    "rs-embed export mosaiks_rcf plots.csv run --buffer 640 --backend sample",
    "rs-embed export mosaiks_rcf plots.csv run --buffer 640 --dry-run",
    "rs-embed export thor,galileo fields.gpkg run --year 2022 --output grid",
    "rs-embed export thor --rasters 'tiles/*.tif' run --offset -1000",
    "rs-embed export thor plots.csv run --buffer 640 --year 2022 --shard 3/16",
)
def export(
    models: _Models,
    places: _Places,
    options: ModelOptions,
    files: FileOptions,
    running: RunOptions,
    *,
    out: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Output folder, or s3:// or gs:// location: new, or one to continue."),
    ] = None,
    rasters: Annotated[
        str | None, _file(metavar="PATTERN", help="Embed files instead of a TABLE, one row each: 'tiles/*.tif'.")
    ] = None,
    bands: Annotated[str | None, _file(help="Bands of the files, in order: B2,B3,...")] = None,
    unit: Annotated[str | None, _file(help="Unit of the files: dn, reflectance, db or power.")] = None,
    offset: Annotated[float | None, _file(help=OFFSET_HELP)] = None,
    buffer: Annotated[
        str | None, _imagery_option(help="Half the side of the square around a point, metres, or the column with it.")
    ] = None,
    start: Annotated[str | None, _imagery_option(help="First day for all rows, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, _imagery_option(help="The day after the last, YYYY-MM-DD.")] = None,
    year: Annotated[int | None, _imagery_option(help="A whole calendar year instead.")] = None,
    id_column: Annotated[_Column, _column("Column of the ids.")] = None,
    lon_column: Annotated[_Column, _column("Column of the longitude, or of x in --crs.")] = None,
    lat_column: Annotated[_Column, _column("Column of the latitude, or of y in --crs.")] = None,
    year_column: Annotated[_Column, _column("Column of the calendar years.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of the coordinates.", rich_help_panel=_TABLE)] = None,
    backend: Annotated[str, _imagery_option(help=BACKEND_HELP, autocompletion=complete_backend)] = "auto",
    modality: Annotated[
        str | None,
        _imagery_option(help="Input to use, or several: s2+s1. See `describe`.", autocompletion=complete_modality),
    ] = None,
    as_json: Json = False,
    dry_run: Annotated[bool, _cost("--dry-run", help="Print what the export would cost, and stop.")] = False,
    plan_rows: Annotated[
        int | None, _cost(min=1, help="With --dry-run: estimate for this many rows, of which TABLE is a sample.")
    ] = None,
    rate: Annotated[
        str | None, _cost(help="With --dry-run: rows per second that a worker encodes, or: measure.")
    ] = None,
) -> None:
    """Embed a table of places into a folder.

    Run the same command again to continue after a crash, and to retry rows that failed.
    """
    from rs_embed.exports.call import export_embeddings

    days = together("--start and --end", start, end)
    either("--year", year, "--start and --end", days)
    window = TemporalSpec.year(year) if year is not None else TemporalSpec.range(*days) if days else None
    if (rasters is None) == (out is None):
        raise typer.BadParameter("give TABLE and RUN, or --rasters and RUN")
    columns = {"id": id_column, "lon": lon_column, "lat": lat_column, "year": year_column}
    if rasters is not None and any((window, buffer, crs, *columns.values())):
        raise typer.BadParameter("--rasters give places and days: leave out the options of a TABLE")
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
        rate=rate_of(rate),
        **files.keywords(),
        **running.keywords(),
        **options.keywords(),
    )
    with stoppable(target):
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
    """The backend or the files, as an object if they have options."""
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


def rate_of(text: str | None) -> float | Literal["measure"] | None:
    """The speed of a worker that `--rate` gives."""
    try:
        return None if text is None else "measure" if text == "measure" else float(text)
    except ValueError:
        raise typer.BadParameter(f"--rate takes a number or measure, got {text!r}") from None


def box_or_file(text: str) -> str | tuple[float, ...]:
    """The place that `--within` gives: four numbers, or the name of a file."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        return text


def _tell(report: "ExportReport", *, as_json: bool) -> None:
    if as_json:
        facts = {"folder": str(report.folder), "ok": report.ok, "failed": report.failed, "dry_run": report.dry}
        typer.echo(json.dumps(facts | {"plan": asdict(report.plan)}, indent=2))
    else:
        typer.echo(str(report))
    if report.failed and isinstance(report.folder, Path):
        ERR.print(f"To see why rows failed: rs-embed status {report.folder}", soft_wrap=True)
    if report.failed and not report.ok:
        raise typer.Exit(1)


@command(MANY, "rs-embed retry run", "rs-embed retry run --verify")
def retry(
    run: RunFolder,
    running: RunOptions,
    *,
    as_json: Json = False,
) -> None:
    """Redo the rows of an export that failed, are missing, or are damaged.

    All arguments are read from the run folder.
    """
    from rs_embed.exports.status import retry_export

    again: Callable[..., ExportReport] = retry_export
    with stoppable(run):
        report = again(run, **running.keywords())
    _tell(report, as_json=as_json)
