"""The command line. Nothing heavy is imported before a command runs, so `--help` is quick."""

import atexit
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

import rs_embed
import rs_embed.cli.change
import rs_embed.cli.evaluate
import rs_embed.cli.explore
import rs_embed.cli.export
import rs_embed.cli.fit
import rs_embed.cli.generate
import rs_embed.cli.heads
import rs_embed.cli.region
import rs_embed.cli.runs  # the nine add their commands to `app`
from rs_embed.cli.completion import complete_model
from rs_embed.cli.options import (
    ERR,
    ONE,
    ORDER,
    OUT,
    START,
    Json,
    Model,
    ModelOptions,
    Request,
    app,
    command,
)
from rs_embed.cli.tables import finite, table
from rs_embed.core.display import parameters_text
from rs_embed.core.progress import watched
from rs_embed.core.signals import sigterm_as_interrupt
from rs_embed.core.specs import ModelOrder
from rs_embed.errors import RSEmbedWarning

__all__ = ["app", "main"]

T = TypeVar("T")
SIGINT_CODE, SIGTERM_CODE = 130, 143
"""Exit codes of a process that a signal stopped: 128 plus its number, as shells and schedulers expect."""
_Pattern = Annotated[
    str,
    typer.Argument(
        metavar="FILTER", help="Part of a name, or a pattern: galileo, 'thor*'.", autocompletion=complete_model
    ),
]
_output = partial(typer.Option, rich_help_panel="Model and output")
_Picture = Annotated[Path | None, _output(help="Save a picture, .png.")]


def main() -> None:
    """The command `rs-embed`. Ctrl-C ends it with 130, SIGTERM with 143, each in the same way."""
    python_style = warnings.formatwarning

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, RSEmbedWarning):
            return f"warning: {message}\n"
        return python_style(message, category, filename, lineno, line)

    warnings.formatwarning = one_line
    with sigterm_as_interrupt() as heard:
        try:
            app(prog_name="rs-embed")
        except KeyboardInterrupt:  # a second one, while the first was being obeyed
            _leave(SIGTERM_CODE if heard.sigterm else SIGINT_CODE)
        except SystemExit as end:
            if end.code == SIGINT_CODE:
                _leave(SIGTERM_CODE if heard.sigterm else SIGINT_CODE)
            raise


def _leave(code: int) -> NoReturn:
    """End at once: Python would first take torch apart, for a second or more, beside threads that hang in GDAL."""
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it any more
                stream.flush()
    finally:
        os._exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rs_embed {rs_embed.__version__}")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


@command(
    START,
    "rs-embed models",
    "rs-embed models galileo",
    "rs-embed models --sensor s2 --licence permissive --no-extra --max-size 100M",
    "rs-embed models --for scene.tif --licence permissive",
    "rs-embed models --sort params --json",
)
def models(
    pattern: _Pattern = "*",
    *,
    sensor: Annotated[
        str | None, typer.Option(help="Models that can take this sensor: s2, s1, landsat, location, ...")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="permissive, conditions, non-commercial, gated, unknown, or an id such as MIT.")
    ] = None,
    no_extra: Annotated[bool, typer.Option("--no-extra", help="Only models that need no extra.")] = False,
    max_size: Annotated[str | None, typer.Option(metavar="SIZE", help="Largest download: 100M, 1.5G.")] = None,
    sort: Annotated[
        ModelOrder, typer.Option(metavar="ORDER", help="catalogue, id, params, dim, licence or size.")
    ] = "catalogue",
    raster: Annotated[
        str | None,
        typer.Option("--for", metavar="RASTER", help="Which of them can run on this raster, or backend, and why not."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models: id, sensors, number of parameters, length of a vector, download and licence."""
    from rs_embed.cli.models_table import models_table
    from rs_embed.embedders.catalog import get_card
    from rs_embed.embedders.choosing import megabytes

    wildcard = any(character in pattern for character in "*?[")
    ids = rs_embed.list_models(
        pattern if wildcard else f"*{pattern}*",
        sensor=sensor,
        licence=licence,
        no_extra=no_extra,
        max_mb=None if max_size is None else megabytes(max_size),
        sort=sort,
    )
    if raster is not None:
        found = rs_embed.recommend_model(backend=raster, models=ids)
        typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    elif as_json:
        typer.echo(json.dumps([rs_embed.describe_model(model_id) for model_id in ids], indent=2))
    elif ids:
        OUT.print(models_table([get_card(model_id) for model_id in ids]))
    else:
        what = f"No model matches {pattern!r}" if pattern != "*" else "No model fits"
        ERR.print(f"{what}; `rs-embed models` lists all.")


@command(START, "rs-embed describe galileo", "rs-embed describe mosaiks_rcf --json")
def describe(model: Model, as_json: Json = False) -> None:
    """Show one model: inputs, outputs, knobs, licence and citation."""
    found = rs_embed.describe_model(model)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    names = (
        *("id", "title", "kind", "type", "model_key", "aliases", "parameters", "dim", "input_prep"),
        *("default_backend", "weights", "licence", "citation"),
    )
    facts = {**found, "parameters": parameters_text(found["parameters_m"])}
    OUT.print(table([{"fact": name.replace("_", " "), "value": facts[name]} for name in names]))
    modalities = [{**modality, "units": sorted(set(modality["units"]))} for modality in found["modalities"]]
    if modalities:
        OUT.print(table(modalities, ("name", "collection", "bands", "units", "scale_m", "image_px")))
    OUT.print(table(found["knobs"]))


@command(
    ONE,
    "rs-embed embed mosaiks_rcf --backend sample --output grid --out grid.tif",
    "rs-embed embed galileo --lon 12.94 --lat 47.77 --buffer 500 --year 2022",
    "rs-embed embed thor --raster scene.tif --unit dn --offset -1000 --json",
)
def embed(
    request: Request,
    options: ModelOptions,
    *,
    out: Annotated[Path | None, _output(help="Output file: .npz or .nc; for grids also .tif or .zarr.")] = None,
    picture: _Picture = None,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")] = False,
) -> None:
    """Embed one place: a vector, or a georeferenced map that opens in QGIS."""
    if dry_run:
        plan = _call(rs_embed.plan_embedding, request, options)
        typer.echo(json.dumps(plan.to_dict(), indent=2) if as_json else str(plan))
        return
    from rs_embed.cli.tables import embedding_row, source_line
    from rs_embed.formats.files import check_path

    if out is not None:
        check_path(out, options.output_spec().kind)
    started = time.perf_counter()
    with watched():
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
        backend=request.imagery(),
        modality=request.modality,
        bands=request.chosen_bands(),
        **options.keywords(),
    )


@command(ONE, "rs-embed inspect thor --backend sample", "rs-embed inspect thor --raster scene.tif --picture chip.png")
def inspect(
    request: Request,
    *,
    picture: Annotated[Path | None, typer.Option(help="Save a picture of the chip, .png.")] = None,
    as_json: Json = False,
) -> None:
    """Show the pixels that a model would get, and how they differ from its training data."""
    where, when, imagery = request.spatial(), request.temporal(), request.imagery()
    bands = request.chosen_bands()
    report = rs_embed.inspect_chip(request.model, where, when, imagery, modality=request.modality, bands=bands)
    if as_json:
        chips = {name: {"chip": chip.describe(), "notes": chip.source.notes} for name, chip in report.chips.items()}
        rows = [{**asdict(band), "unit": str(band.unit), "sigma": band.sigma} for band in report.bands]
        typer.echo(json.dumps(finite({"chips": chips, "bands": rows}), indent=2))
    else:
        typer.echo(str(report))
    if picture is not None:
        from rs_embed.embedding.plot import save_figure, side_by_side, true_colour

        save_figure(side_by_side([true_colour(next(iter(report.chips.values())))]), picture)
        ERR.print(f"wrote {picture}", soft_wrap=True)


@command(START, "rs-embed demo", "rs-embed demo --out /tmp/demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"), as_json: Json = False
) -> None:
    """Embed the bundled sample scene with a baseline and a trained model, and save a page, pictures and files."""
    from rs_embed.cli.demo import run_demo

    raise typer.Exit(run_demo(out, OUT, as_json=as_json))


@command(START, "rs-embed doctor", "rs-embed doctor --json")
def doctor(as_json: Json = False) -> None:
    """Check versions, weights, credentials, disk and GPU, and say what works."""
    from rs_embed.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(OUT, as_json=as_json))


app.registered_commands.sort(key=lambda one: ORDER.index(str(one.name)))
