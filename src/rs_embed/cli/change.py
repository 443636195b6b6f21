"""The command that finds what has changed between two times."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rs_embed.cli.options import ERR, MANY, OUT, Json, command
from rs_embed.cli.tables import table

if TYPE_CHECKING:
    from rs_embed import Embedding, EmbeddingMap

_SHOWN = 10
"""Polygons that are listed."""


@command(
    MANY,
    "rs-embed change map --times 2021 2022",
    "rs-embed change 2021.tif 2022.tif --stable stable.gpkg --false-alarms 0.001",
    "rs-embed change map2021 map2022 --raster distance.tif --min-tokens 4",
)
def change(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A grid that was saved, or the folder of a region.")],
    after: Annotated[Path | None, typer.Argument(metavar="[AFTER]", help="The same ground at another time.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="The polygons, .gpkg.")] = Path("change.gpkg"),
    raster: Annotated[Path | None, typer.Option(help="Also write the distances as a GeoTIFF.")] = None,
    times: Annotated[
        tuple[str, str] | None, typer.Option(metavar="T1 T2", help="Two times of a region: 2021 2022.")
    ] = None,
    stable: Annotated[Path | None, typer.Option(help="File of places that did not change.")] = None,
    false_alarms: Annotated[
        float, typer.Option(metavar="SHARE", help="Accepted share of unchanged tokens above the threshold.")
    ] = 0.01,
    min_tokens: Annotated[int, typer.Option(min=1, help="Leave out smaller polygons.")] = 1,
    level: Annotated[int, typer.Option(min=0, help="Overview of a region: 1 is half the resolution.")] = 0,
    as_json: Json = False,
) -> None:
    """Find what changed between two times, and write it as polygons with scores."""
    from rs_embed.learning.change import detect_change

    found = detect_change(
        _opened(before),
        None if after is None else _opened(after),
        times=times,
        stable=stable,
        false_alarms=false_alarms,
        min_tokens=min_tokens,
        level=level,
        raster=raster,
    )
    path = found.save(out)
    if as_json:
        typer.echo(json.dumps({"out": str(path), **found.to_dict()}, indent=2))
        return
    typer.echo(str(found))
    if len(found.polygons):
        best = found.polygons.head(_SHOWN).drop(columns=["geometry", "before", "after"])
        OUT.print(table([{name: f"{value:g}" for name, value in row.items()} for row in best.to_dict("records")]))
    ERR.print(f"wrote {path}", soft_wrap=True)


def _opened(path: Path) -> "Embedding | EmbeddingMap":
    """A grid if the name ends like one that was saved, else a map."""
    from rs_embed import Embedding, open_region
    from rs_embed.exports.unit import MAP
    from rs_embed.formats.files import format_of

    return Embedding.load(path) if format_of(path) and path.name != MAP else open_region(path)
