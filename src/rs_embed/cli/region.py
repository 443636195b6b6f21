"""The commands for whole regions: region, map."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rs_embed.cli.completion import complete_backend, complete_modality
from rs_embed.cli.export import RunOptions, box_or_file, rate_of, stoppable
from rs_embed.cli.options import (
    ACCEPT_HELP,
    BACKEND_HELP,
    ERR,
    MANY,
    OUT,
    Json,
    Model,
    OptionSet,
    command,
    either,
    knobs_of,
    together,
)
from rs_embed.cli.tables import table
from rs_embed.core.specs import BBox, Debias, Precision, TemporalSpec

if TYPE_CHECKING:
    from rs_embed.exports.region.call import RegionReport

_when = partial(typer.Option, rich_help_panel="Time")
_imagery = partial(typer.Option, rich_help_panel="Imagery")
_map = partial(typer.Option, rich_help_panel="Map")
_search = partial(typer.Option, rich_help_panel="Search")
_Map = Annotated[str, typer.Argument(metavar="OUT", help="Folder that `region` filled, or the map.zarr in it.")]


@dataclass(frozen=True)
class MapOptions(OptionSet):
    """The options that say what the map is like."""

    crs: Annotated[
        str | None, _map(help="CRS of the map, projected, in metres. Default: the UTM zone, or a map for each.")
    ] = None
    detail: Annotated[Literal["patch", "dense"], _map(help="dense: finer tokens, where the model has them.")] = "patch"
    debias: Annotated[
        Debias, _map(help="position: remove from each token what depends only on its place in the window.")
    ] = "position"
    format: Annotated[Literal["zarr", "cog"], _map(help="One Zarr store, or a GeoTIFF for each block.")] = "zarr"
    dtype: Annotated[Literal["float32", "float16", "int8"], _map(help="Number type of the tokens.")] = "float32"
    block_cells: Annotated[int | None, _map(min=1, help="Tokens along the side of a block.")] = None
    unit_blocks: Annotated[int, _map(min=1, help="Blocks per record: what --shard and a worker take at a time.")] = 8


@command(
    MANY,
    "rs-embed region mosaiks --bbox 12.92 47.76 12.95 47.78 map --backend sample",
    "rs-embed region galileo county.geojson map --year 2022 --set patch_size=4",
    "rs-embed region galileo county.geojson map --year 2022 --monthly --dtype int8",
    "rs-embed region thor county.gpkg map --year 2022 --dry-run --rate measure",
)
def region(
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[REGION] OUT", help="Polygons (GeoJSON, GeoPackage, shapefile) or rasters; then the output folder."
        ),
    ],
    of_map: MapOptions,
    running: RunOptions,
    *,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        _map(metavar="W S E N", help="Bounding box instead of REGION: MINLON MINLAT MAXLON MAXLAT."),
    ] = None,
    start: Annotated[str | None, _when(help="First day, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, _when(help="The day after the last, YYYY-MM-DD.")] = None,
    year: Annotated[int | None, _when(help="A whole calendar year instead.")] = None,
    monthly: Annotated[bool, _when("--monthly", help="A time axis with a map for each month.")] = False,
    backend: Annotated[str, _imagery(help=BACKEND_HELP, autocompletion=complete_backend)] = "auto",
    modality: Annotated[
        str | None, _imagery(help="Input to use, or several: s2+s1.", autocompletion=complete_modality)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="bf16: faster, slightly less exact.")] = "fp32",
    accept_licence: Annotated[str | None, typer.Option(metavar="ID[,ID...]", help=ACCEPT_HELP)] = None,
    knobs: Annotated[
        list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="Set a knob of the model. Repeatable.")
    ] = None,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the map would cost, and stop.")] = False,
    rate: Annotated[
        str | None, typer.Option(help="With --dry-run: blocks per second that a worker encodes, or: measure.")
    ] = None,
) -> None:
    """Embed a whole region as one seamless map.

    Run the same command again to continue after a crash, and to retry blocks that failed.
    """
    from rs_embed.exports.region.call import embed_region

    if len(paths) != (1 if bbox else 2):
        raise typer.BadParameter("give REGION and OUT, or --bbox and OUT")
    days = together("--start and --end", start, end)
    either("--year", year, "--start and --end", days)
    window = TemporalSpec.year(year) if year is not None else TemporalSpec.range(*days) if days else None
    if monthly and window is None:
        raise typer.BadParameter("--monthly needs --year, or --start and --end")
    call: Callable[..., RegionReport] = embed_region  # knobs are text here, whatever they mean
    make = partial(call, **knobs_of(knobs))
    with stoppable(paths[-1]):
        report = make(
            model,
            BBox(*bbox) if bbox else paths[0],
            list(window.months()) if monthly and window else window,
            paths[-1],
            backend=backend,
            modality=modality,
            device=device,
            precision=precision,
            accept_licence=accept_licence,
            dry_run=dry_run,
            rate=rate_of(rate),
            **of_map.keywords(),
            **running.keywords(),
        )
    if as_json:
        maps = {
            crs: {"folder": str(one.folder), "ok": one.ok, "failed": one.failed} for crs, one in report.maps.items()
        }
        typer.echo(json.dumps({"out": str(report.out), "dry_run": dry_run, "maps": maps}, indent=2))
    else:
        typer.echo(str(report))
    if report.failed:
        ERR.print(f"To see why blocks failed: rs-embed status {report.out}", soft_wrap=True)
        if not any(one.ok for one in report.maps.values()):
            raise typer.Exit(1)


@command(
    MANY,
    "rs-embed map map",
    "rs-embed map map --pca pca.tif",
    "rs-embed map map --similar 12.94 47.77 similar.tif",
    "rs-embed map map --index",
    "rs-embed map map --most-similar 12.94 47.77 --top 5 --within 12.9,47.7,13,47.8",
)
def map(  # noqa: A001  (the name of the command)
    out: _Map,
    *,
    pca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the principal components as a GeoTIFF.")
    ] = None,
    similar: Annotated[
        tuple[float, float, Path] | None,
        typer.Option(metavar="LON LAT FILE", help="Write the similarity to a place as a GeoTIFF."),
    ] = None,
    geotiff: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tokens as a GeoTIFF.")] = None,
    time: Annotated[str | None, typer.Option(help="Time of the map, such as 2022-06. Default: the only one.")] = None,
    level: Annotated[int, typer.Option(min=0, help="Overview: 1 is half the resolution, 2 a quarter.")] = 0,
    index: Annotated[
        bool, _search("--index", help="Build a search index of the tokens. Needs the extra `search`.")
    ] = False,
    most_similar: Annotated[
        tuple[float, float] | None, _search(metavar="LON LAT", help="List the tokens most similar to a place.")
    ] = None,
    top: Annotated[int, _search(min=1, help="Number of tokens to list.")] = 10,
    within: Annotated[
        str | None,
        _search(metavar="PLACE", help="Only tokens in this place: W,S,E,N in degrees, or a file of polygons."),
    ] = None,
    exact: Annotated[bool, _search("--exact", help="Compare all tokens even if there is an index.")] = False,
) -> None:
    """Describe the map of a region, write rasters of it, or search it."""
    from rs_embed.exports.results.open_region import open_region

    found = open_region(out)
    if pca is not None:
        found.pca(pca, time=time, level=level)
    if similar is not None:
        lon, lat, path = similar
        found.similar(lon, lat, out=path, time=time, level=level)
    if geotiff is not None:
        found.to_geotiff(geotiff, time=time, level=level)
    if index:
        typer.echo(str(found.build_index()))
    if most_similar is None:
        typer.echo(repr(found))
        return
    lon, lat = most_similar
    place = None if within is None else box_or_file(within)
    best = found.most_similar(lon, lat, top=top, within=place, time=time, level=level, exact=exact)
    where = best.geometry.get_coordinates()
    rows = zip(best["similarity"], where["x"], where["y"], best["row"], best["column"], strict=True)
    OUT.print(
        table(
            [
                {"similarity": f"{one:.4f}", "lon": f"{x:.6f}", "lat": f"{y:.6f}", "row": row, "column": column}
                for one, x, y, row, column in rows
            ]
        )
    )
