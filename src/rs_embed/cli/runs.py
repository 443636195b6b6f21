"""The commands that look at the folder of a long job: status, verify, compact, index, similar."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import rs_embed
from rs_embed.cli.completion import complete_model
from rs_embed.cli.export import RunFolder, Verify, box_or_file
from rs_embed.cli.options import ERR, MANY, OUT, Json, command
from rs_embed.cli.tables import table

_REASONS = 5
"""Kinds of errors shown for each model."""


@command(MANY, "rs-embed status run", "rs-embed status run --json")
def status(run: RunFolder, as_json: Json = False) -> None:
    """Show the progress of an export, finished or running, and why rows failed."""
    from rs_embed.exports.status import run_status

    found = run_status(run)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"folder": str(found.folder)}, indent=2))
        return
    rows = [
        {
            "model": one.model,
            "rows": one.rows,
            "ok": one.ok,
            "failed": one.failed,
            "missing": one.missing,
            "units": f"{one.finished} of {one.units}",
        }
        for one in found.models
    ]
    OUT.print(f"{found.folder}, started {found.created}", table(rows), sep="\n")
    for one in found.models:
        for reason in one.reasons[:_REASONS]:
            OUT.print(f"{one.model}: {reason.rows:,} failed at {reason.stage}: {reason.error}", soft_wrap=True)
    if found.in_use_by is not None:
        ERR.print(f"being written by {found.in_use_by}")
    elif any(one.failed or one.missing for one in found.models):
        ERR.print(f"To continue: rs-embed retry {found.folder}", soft_wrap=True)


@command(MANY, "rs-embed verify run", "rs-embed verify run --json")
def verify(run: RunFolder, *, as_json: Json = False) -> None:
    """Check every file of an export against its recorded checksum.

    Changes nothing. The exit code is 1 if a file is damaged.
    """
    report = rs_embed.verify_run(run)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"folder": str(report.folder), "ok": report.ok}, indent=2))
    else:
        typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


@command(MANY, "rs-embed compact run", "rs-embed compact run --out vectors --row-group-mb 64")
def compact(
    run: RunFolder,
    *,
    out: Annotated[Path | None, typer.Option(help="Output folder. Default: RUN/compact.")] = None,
    row_group_mb: Annotated[float, typer.Option(help="Vectors per file, in MB, at most.")] = 150.0,
    verify: Verify = False,
    as_json: Json = False,
) -> None:
    """Merge the files of a finished export into a few large ones.

    Run the same command again to continue after a crash.
    """
    report = rs_embed.compact_run(run, out, row_group_mb=row_group_mb, verify=verify)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"folder": str(report.folder)}, indent=2))
    else:
        typer.echo(str(report))


@command(MANY, "rs-embed index run", "rs-embed index run --model mosaiks_rcf")
def index(
    run: RunFolder,
    *,
    model: Annotated[
        str | None, typer.Option(help="Model, if the run has several.", autocompletion=complete_model)
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a search index, which makes `similar` fast on millions of rows. Needs the extra `search`."""
    report = rs_embed.open_run(run).build_index(model)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"folder": str(report.folder)}, indent=2))
    else:
        typer.echo(str(report))


@command(MANY, "rs-embed similar run --id north --top 5", "rs-embed similar run --id 'plot a' --json")
def similar(
    run: RunFolder,
    *,
    row_id: Annotated[str, typer.Option("--id", help="Id of the row to compare with.")],
    top: Annotated[int, typer.Option(min=1, help="Number of rows to list.")] = 10,
    model: Annotated[
        str | None, typer.Option(help="Model, if the run has several.", autocompletion=complete_model)
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Only rows in this place: W,S,E,N in degrees, or a file with one polygon."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Only rows with this value, one of A,B,C, or LOW..HIGH."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all vectors even if there is an index.")] = False,
    as_json: Json = False,
) -> None:
    """List the rows most similar to one row (cosine similarity)."""
    wanted = dict(_condition(text) for text in where or ())
    place = None if within is None else box_or_file(within)
    found = rs_embed.open_run(run).similar(row_id, top, model, within=place, where=wanted, exact=exact)
    if as_json:
        typer.echo(found.to_json(orient="records", date_format="iso", indent=2))
        return
    shown = found[["id", "similarity", "center_lon", "center_lat"]].to_dict("records")
    rows = [{**row, "similarity": f"{row['similarity']:.4f}"} for row in shown]
    if rows:
        OUT.print(table(rows))
    else:
        ERR.print("No other row has a vector.")


def _condition(text: str) -> tuple[str, object]:
    """`column=value` as `Run.similar` takes it; values are text, which it reads as the column has them."""
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise typer.BadParameter(f"expected COLUMN=VALUE, got {text!r}", param_hint="--where")
    low, dots, high = value.partition("..")
    if dots:
        return name, (low or None, high or None)
    return name, value.split(",") if "," in value else value
