"""The command that makes a page of a result."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rs_embed.cli.completion import complete_backend
from rs_embed.cli.options import ERR, ONE, OUT, Json, command
from rs_embed.errors import SpecError
from rs_embed.explore.plane import Projection

_Result = Annotated[
    Path, typer.Argument(metavar="RESULT", help="A grid that was saved, the folder of an export, or of a region.")
]


@command(
    ONE,
    "rs-embed explore grid.tif",
    "rs-embed explore grid.tif --beside other.tif --open",
    "rs-embed explore grid.tif --imagery stac",
    "rs-embed explore run --out plots.html",
    "rs-embed explore map --bbox 12.92 47.76 12.95 47.78",
    "rs-embed explore map --serve --open",
)
def explore(
    result: _Result,
    *,
    out: Annotated[Path, typer.Option(help="The page to write, .html.")] = Path("explore.html"),
    beside: Annotated[
        list[Path] | None, typer.Option(help="Another grid in the same CRS to compare with. Repeatable.")
    ] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="Only this part of a region: MINLON MINLAT MAXLON MAXLAT."),
    ] = None,
    level: Annotated[int, typer.Option(min=0, help="Overview of a region: 1 is half the resolution.")] = 0,
    model: Annotated[str | None, typer.Option(help="Of an export with several models.")] = None,
    projection: Annotated[
        Projection | None, typer.Option(help="Of an export: how vectors come on a plane. umap needs umap-learn.")
    ] = None,
    imagery: Annotated[
        str | None,
        typer.Option(
            help="True colour as the base: a backend such as stac or gee, or a raster with red, green and blue.",
            autocompletion=complete_backend,
        ),
    ] = None,
    base_map: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="URL CREDIT",
            help="Tiles from the network, shown if chosen, and their owner: https://.../{z}/{x}/{y}.png '© Owner'.",
        ),
    ] = None,
    max_mb: Annotated[float, typer.Option(help="Largest size of the page, MB.")] = 25.0,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="A region of any size: serve its page on this machine, until you press Ctrl-C."),
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0 takes a free one.")] = 0,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Make a page on which a click shows what is like a place. It is one file and needs no network."""
    from rs_embed.explore.page import PageOptions
    from rs_embed.exports.results.exploring import explore_result

    if serve:
        given = {"--beside": beside, "--level": level, "--model": model, "--projection": projection}
        if wrong := [name for name, value in given.items() if value]:
            raise typer.BadParameter(f"--serve goes without {', '.join(wrong)}")
        _serve(result, bbox, imagery, base_map, port, open_it=open_it, as_json=as_json)
        return
    page = explore_result(
        result,
        out,
        beside=beside or (),
        bbox=bbox,
        level=level,
        model=model,
        imagery=imagery,
        projection=projection,
        options=PageOptions(base_map, max_mb=max_mb),
    )
    size_mb = page.stat().st_size / 1e6
    if as_json:
        typer.echo(json.dumps({"page": str(page), "megabytes": round(size_mb, 3)}))
    else:
        OUT.print(f"{page}, {size_mb:.1f} MB: open it in a browser and click a place", soft_wrap=True)
    if open_it:
        _open(page.resolve().as_uri())


def _serve(
    path: Path,
    bbox: tuple[float, float, float, float] | None,
    imagery: str | None,
    base_map: tuple[str, str] | None,
    port: int,
    *,
    open_it: bool,
    as_json: bool,
) -> None:
    from rs_embed.exports.results.exploring import is_region
    from rs_embed.exports.results.open_region import open_region
    from rs_embed.exports.results.serving import serve_map

    if not is_region(path):
        raise SpecError(
            f"Expected the map of a region to serve, got {str(path)!r}.", fix="leave --serve out: the page is one file"
        )
    with serve_map(open_region(path), bbox, imagery=imagery, base_map=base_map, port=port) as server:
        if as_json:
            typer.echo(json.dumps({"url": server.url}))
        else:
            OUT.print(f"{server.url}\nserves {path} to this machine until you press Ctrl-C", soft_wrap=True)
        if open_it:
            _open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _open(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        ERR.print("no browser was found; open the page yourself")
