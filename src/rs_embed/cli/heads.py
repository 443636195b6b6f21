"""The commands that go from labels to a map: fit, predict, suggest."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from rs_embed.cli.completion import complete_backend, complete_modality, complete_model
from rs_embed.cli.options import (
    ACCEPT_HELP,
    BACKEND_HELP,
    ERR,
    LABELS,
    OUT,
    Json,
    command,
    either,
    knobs_of,
    together,
)
from rs_embed.cli.tables import table
from rs_embed.core.atomic import replacing, storing
from rs_embed.core.specs import OutputSpec, TemporalSpec
from rs_embed.errors import StorageError

if TYPE_CHECKING:
    import geopandas

    from rs_embed import Head
    from rs_embed.learning.folds import Blocks

_source = partial(typer.Option, rich_help_panel="Vectors: of a model, or of a region that exists")
_fold = partial(typer.Option, rich_help_panel="Head and folds")
_map = partial(typer.Option, rich_help_panel="Maps")
_place = partial(typer.Option, rich_help_panel="Places")
_HeadFile = Annotated[Path, typer.Argument(metavar="HEAD", help="File that `fit` wrote, .safetensors.")]
_Backend = Annotated[str, _source(help=BACKEND_HELP, autocompletion=complete_backend)]
_Device = Annotated[str, _source(help="auto, cpu, cuda or cuda:0.")]
_Buffer = Annotated[
    float | None, _source(help="Half the side of the square around a point, metres. Default: the model's window.")
]
_Time = Annotated[str | None, typer.Option(help="Which time of a region, where it has several.")]


@command(
    LABELS,
    "rs-embed fit labels.csv --label cover --region map",
    "rs-embed fit labels.gpkg --label cover --model mosaiks --backend sample \\\n  --out cover.safetensors",
    "rs-embed fit fields.gpkg --label crop --model thor --year 2022 --output pooled",
    "rs-embed fit run --label crop",
)
def fit(
    labels: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Table of labelled points or polygons, or the folder of an export.")
    ],
    *,
    label: Annotated[str, typer.Option(help="Column of the labels; several columns of 0 and 1, joined by commas.")],
    out: Annotated[Path, typer.Option(help="The head, .safetensors.")] = Path("head.safetensors"),
    kind: Annotated[
        Literal["classes", "number", "multilabel"] | None, typer.Option(help="What whole numbers mean.")
    ] = None,
    model: Annotated[
        str | None, _source(help="Model id or alias; of an export: which model.", autocompletion=complete_model)
    ] = None,
    region: Annotated[Path | None, _source(help="Folder that `region` filled: its tokens are read.")] = None,
    output: Annotated[
        Literal["grid", "dense", "pooled"],
        _source(help="grid, dense: tokens, for maps. pooled: a vector for each place."),
    ] = "grid",
    backend: _Backend = "auto",
    buffer: _Buffer = None,
    start: Annotated[str | None, _source(help="First day for all rows, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, _source(help="The day after the last, YYYY-MM-DD.")] = None,
    year: Annotated[int | None, _source(help="A whole calendar year instead.")] = None,
    modality: Annotated[
        str | None, _source(help="Input to use, or several: s2+s1.", autocompletion=complete_modality)
    ] = None,
    device: _Device = "auto",
    accept_licence: Annotated[str | None, _source(metavar="ID[,ID...]", help=ACCEPT_HELP)] = None,
    knobs: Annotated[
        list[str] | None, _source("--set", metavar="KNOB=VALUE", help="Set a knob of the model. Repeatable.")
    ] = None,
    time: _Time = None,
    head: Annotated[
        Literal["auto", "knn", "logistic", "ridge"], _fold(help="auto: the one that predicts best in the folds.")
    ] = "auto",
    groups: Annotated[
        str | None, _fold(metavar="COLUMN", help="Keep the places of one farm, scene, ... together.")
    ] = None,
    blocks: Annotated[
        str, _fold(help="Side of the blocks, metres; auto: as far as labels are alike; random: none (too optimistic).")
    ] = "auto",
    folds: Annotated[int, _fold(min=2, max=100, help="Number of folds.")] = 5,
    seed: Annotated[int, _fold(help="Seed of random choices.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a head on labelled places, and score it in folds that lie apart.

    `predict` then maps a region with it.
    """
    from rs_embed import Head, open_run
    from rs_embed.learning.fit import TOKENS
    from rs_embed.learning.fit import fit as run

    call: Callable[..., Head] = run  # knobs are text here, whatever they mean
    days = together("--start and --end", start, end)
    either("--year", year, "--start and --end", days)
    window = TemporalSpec.year(year) if year is not None else TemporalSpec.range(*days) if days else None
    outputs = {"grid": TOKENS, "dense": OutputSpec.grid("dense", debias="position"), "pooled": OutputSpec.pooled()}
    found = call(
        open_run(labels) if labels.is_dir() else labels,
        label.split(",") if "," in label else label,
        model=model,
        region=region,
        head=head,
        kind=kind,
        temporal=window,
        output=outputs[output],
        backend=backend,
        buffer_m=buffer,
        time=time,
        modality=modality,
        device=device,
        accept_licence=accept_licence,
        blocks=_blocks(blocks),
        groups=groups,
        folds=folds,
        seed=seed,
        progress=not as_json,
        **knobs_of(knobs),
    )
    path = found.save(out)
    if as_json:
        typer.echo(json.dumps({"out": str(path), **_facts(found)}, indent=2))
        return
    OUT.print(repr(found), soft_wrap=True)
    for note in found.validation.notes if found.validation else ():
        OUT.print(f"  - {note}", soft_wrap=True)
    ERR.print(f"wrote {path}", soft_wrap=True)


@command(
    LABELS,
    "rs-embed predict head.safetensors map classes.tif --areas",
    "rs-embed predict head.safetensors grid.tif classes.tif --polygons classes.gpkg",
    "rs-embed predict head.safetensors plots.csv predicted.csv --region map",
)
def predict(
    head: _HeadFile,
    what: Annotated[
        Path,
        typer.Argument(metavar="WHAT", help="Folder of a region, a grid that was saved, an export, or a table."),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="For a region or grid, .tif; else .csv, .gpkg, .geojson or .parquet.")
    ],
    *,
    probabilities: Annotated[Path | None, _map(help="Also write the probability of each class, .tif.")] = None,
    polygons: Annotated[Path | None, _map(help="Also write the classes as polygons, .gpkg.")] = None,
    areas: Annotated[bool, _map("--areas", help="Print the area of each class.")] = False,
    sample: Annotated[
        Literal["random", "stratified"] | None,
        _map(help="How the labels were drawn in this area; then --areas estimates true areas with intervals."),
    ] = None,
    reference: Annotated[Path | None, _map(help="Table of other labels to judge the map by, for --areas.")] = None,
    level: Annotated[int, _map(min=0, help="Overview of a region: 1 is half the resolution.")] = 0,
    time: _Time = None,
    region: Annotated[Path | None, _source(help="For a table: the region to read tokens from.")] = None,
    backend: _Backend = "auto",
    buffer: _Buffer = None,
    start: Annotated[str | None, _source(help="First day for all rows, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, _source(help="The day after the last, YYYY-MM-DD.")] = None,
    device: _Device = "auto",
    as_json: Json = False,
) -> None:
    """Map a region or a grid with a head, or predict the places of a table.

    The vectors must be of the model and settings that the head was trained on; others are refused.
    """
    from rs_embed import load_head
    from rs_embed.formats.files import format_of

    days = together("--start and --end", start, end)
    trained = load_head(head)
    if format_of(what) is None and not _is_region(what):
        frame = trained.predict(
            what,
            region=region,
            time=time,
            temporal=TemporalSpec.range(*days) if days else None,
            backend=backend,
            buffer_m=buffer,
            device=device,
            progress=not as_json,
        )
        _write(frame, out)
        failed = int((frame["status"] == "failed").sum())
        told: dict[str, object] = {"out": str(out), "rows": len(frame), "failed": failed}
        typer.echo(json.dumps(told, indent=2) if as_json else f"{len(frame):,} rows, {failed:,} failed")
        return
    made = trained.map(what, out, probabilities=probabilities, time=time, level=level)
    if polygons is not None:
        made.polygons(polygons)
    told = {"out": str(out), "classes": dict(enumerate(made.classes, start=1))}
    found = made.areas(reference, sample=sample) if areas or sample or reference else None
    if as_json:
        rows = None if found is None else json.loads(found.table.to_json(orient="records"))
        notes = [] if found is None else list(found.notes)
        typer.echo(json.dumps({**told, "areas": rows, "notes": notes}, indent=2))
        return
    OUT.print(str(found) if found else repr(made), soft_wrap=True)
    ERR.print(f"wrote {out}", soft_wrap=True)


@command(
    LABELS,
    "rs-embed suggest map todo.gpkg --head head.safetensors --count 30",
    "rs-embed suggest map start.gpkg --column cover --classes water,forest,field",
    "rs-embed suggest map more.gpkg --head head.safetensors --known labels.gpkg",
)
def suggest(
    what: Annotated[Path, typer.Argument(metavar="WHAT", help="Folder of a region, or a grid that was saved.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Points to label, .gpkg; QGIS offers the classes.")],
    *,
    head: Annotated[Path | None, typer.Option(help="The head to improve: where it is unsure comes first.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of points.")] = 20,
    apart: Annotated[float, typer.Option(min=0, help="Least distance between points, metres.")] = 0.0,
    known: Annotated[Path | None, typer.Option(help="Table of the labels that exist: points unlike them.")] = None,
    column: Annotated[
        str | None, typer.Option(help="Column to fill in. Default: the one of the head, or label.")
    ] = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,...", help="Classes to choose from in QGIS.")] = None,
    time: _Time = None,
    seed: Annotated[int, typer.Option(help="Seed of the random sample of tokens.")] = 0,
    as_json: Json = False,
) -> None:
    """Suggest places to label next: where a head is unsure, unlike each other, and unlike what is known.

    Fill in the column in QGIS, then fit again.
    """
    from rs_embed import load_head, suggest_labels

    found = suggest_labels(
        what,
        None if head is None else load_head(head),
        count=count,
        known=known,
        apart_m=apart,
        time=time,
        seed=seed,
        column=column,
        classes=classes.split(",") if classes else (),
        out=out,
    )
    if as_json:
        typer.echo(json.dumps({"out": str(out), "points": len(found)}, indent=2))
        return
    shown = [name for name in ("id", "predicted", "uncertainty") if name in found]
    rows = [dict(zip(shown, row, strict=True)) for row in found[shown].head(10).itertuples(index=False)]
    OUT.print(
        table([{name: f"{one:.3f}" if isinstance(one, float) else one for name, one in row.items()} for row in rows])
    )
    ERR.print(f"wrote {out}: {len(found)} points", soft_wrap=True)


def _is_region(path: Path) -> bool:
    from rs_embed.exports.unit import MAP

    return path.is_dir() and (path.name == MAP or any(any(path.glob(f"{depth}{MAP}")) for depth in ("", "*/", "*/*/")))


def _write(frame: "geopandas.GeoDataFrame", out: Path) -> None:
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".gpkg", ".geojson", ".parquet") or not out.parent.is_dir():
        raise StorageError(
            f"Expected a .csv, .gpkg, .geojson or .parquet in a folder that exists, got {str(out)!r}.",
            fix="choose such a name",
        )
    with storing(out.parent), replacing(out, durable=False) as part:
        if suffix == ".csv":
            frame.to_wkt().to_csv(part, index=False)
        elif suffix == ".parquet":
            frame.to_parquet(part)
        else:
            frame.to_file(part, layer=out.stem)


def _blocks(text: str) -> "Blocks":
    try:
        return cast("Blocks", text if text in ("auto", "random") else float(text))
    except ValueError:
        raise typer.BadParameter(f"--blocks takes metres, auto or random, got {text!r}") from None


def _facts(head: "Head") -> dict[str, object]:
    facts, validation = head.facts, head.validation
    scores = {} if validation is None else {name: list(value) for name, value in validation.scores.items()}
    return {
        "head": facts.head,
        "setting": dict(facts.setting),
        "model": facts.origin.model_id,
        "classes": dict(facts.support),
        "places": facts.places,
        "vectors": facts.vectors,
        "scores": scores,
        "notes": [] if validation is None else list(validation.notes),
    }
