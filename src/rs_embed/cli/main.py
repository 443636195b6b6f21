"""The command line. Nothing heavy is imported before a command runs, so `--help` is quick."""

import atexit
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

import rs_embed
import rs_embed.cli.export
import rs_embed.cli.fit
import rs_embed.cli.generate
import rs_embed.cli.runs  # the four add their commands to `app`
from rs_embed.cli.options import ERR, OUT, Json, Model, ModelOptions, Request, app, command
from rs_embed.cli.tables import table
from rs_embed.core.signals import sigterm_as_interrupt
from rs_embed.errors import RSEmbedWarning

if TYPE_CHECKING:
    from rs_embed.embedders.describe import ModelDescription

__all__ = ["app", "main"]

T = TypeVar("T")
SIGINT_CODE, SIGTERM_CODE = 130, 143
"""Exit codes of a process that a signal stopped: 128 plus its number, as shells and schedulers expect."""
_Pattern = Annotated[str, typer.Argument(metavar="[PATTERN]", help="Such as 'thor*'.")]
_Picture = Annotated[Path | None, typer.Option(help="Save a picture (.png).")]


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
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """What holds for all commands."""


def _readable(model: "ModelDescription") -> dict[str, object]:
    names = [modality["name"] for modality in model["modalities"]] or model["place_modalities"]
    return {**model, "modalities": names, "parameters": f"{model['parameters_m']:g} million"}


@command("rs-embed models", "rs-embed models 'thor*' --json")
def models(pattern: _Pattern = "*", as_json: Json = False) -> None:
    """List the models."""
    found = [rs_embed.describe_model(model_id) for model_id in rs_embed.list_models(pattern)]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif found:
        shown = ("id", "kind", "parameters", "dim", "modalities", "licence", "aliases")
        OUT.print(table([_readable(model) for model in found], shown))
    else:
        ERR.print(f"No model matches {pattern!r}; `rs-embed models` lists all.")


@command("rs-embed describe thor", "rs-embed describe mosaiks_rcf --json")
def describe(model: Model, as_json: Json = False) -> None:
    """Show what a model takes, gives and lets you turn, with its licence and citation."""
    found = rs_embed.describe_model(model)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    names = (
        *("id", "title", "kind", "type", "model_key", "aliases", "parameters", "dim", "input_prep"),
        *("default_backend", "weights", "licence", "citation"),
    )
    facts = _readable(found)
    OUT.print(table([{"fact": name.replace("_", " "), "value": facts[name]} for name in names]))
    modalities = [{**modality, "units": sorted(set(modality["units"]))} for modality in found["modalities"]]
    OUT.print(table(modalities, ("name", "collection", "bands", "units", "scale_m", "image_px")))
    OUT.print(table(found["knobs"]))


@command(
    "rs-embed embed mosaiks_rcf --backend sample --output grid --out grid.tif --picture grid.png",
    "rs-embed embed galileo_1_0_nano --lon 12.94 --lat 47.77 --buffer 500 --backend sample --set patch_size=4",
    "rs-embed embed thor --raster scene.tif --unit dn --offset -1000 --input-prep tile --json",
)
def embed(
    request: Request,
    options: ModelOptions,
    *,
    out: Annotated[Path | None, typer.Option(help="Write it: .npz or .nc; of grids also .tif or .zarr.")] = None,
    picture: _Picture = None,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")] = False,
) -> None:
    """Embed one place: a vector, or a map that opens in QGIS."""
    if dry_run:
        typer.echo(str(_call(rs_embed.plan_embedding, request, options)))
        return
    from rs_embed.cli.tables import embedding_row, source_line
    from rs_embed.formats.files import check_path

    if out is not None:
        check_path(out, options.output_spec().kind)
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
        backend=request.imagery(),
        modality=request.modality,
        bands=request.chosen_bands(),
        **options.keywords(),
    )


@command("rs-embed inspect thor --backend sample --picture chip.png", "rs-embed inspect thor --raster scene.tif")
def inspect(request: Request, picture: _Picture = None) -> None:
    """Show the pixels that a model would get, and how far they are from those it was trained on."""
    where, when, imagery = request.spatial(), request.temporal(), request.imagery()
    bands = request.chosen_bands()
    report = rs_embed.inspect_chip(request.model, where, when, imagery, modality=request.modality, bands=bands)
    typer.echo(str(report))
    if picture is not None:
        from rs_embed.embedding.plot import save_figure, side_by_side, true_colour

        save_figure(side_by_side([true_colour(next(iter(report.chips.values())))]), picture)
        ERR.print(f"wrote {picture}", soft_wrap=True)


@command("rs-embed demo", "rs-embed demo --out /tmp/demo")
def demo(out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo")) -> None:
    """Run a baseline and a trained model on the scene that comes with the package, and draw what they see."""
    from rs_embed.cli.demo import run_demo

    raise typer.Exit(run_demo(out, OUT))


@command("rs-embed doctor", "rs-embed doctor --json")
def doctor(as_json: Json = False) -> None:
    """Check this machine and the Earth Engine account, and say what is wrong."""
    from rs_embed.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(OUT, as_json=as_json))
