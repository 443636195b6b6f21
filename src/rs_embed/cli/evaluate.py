"""The command that says which model suits labels: evaluate."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rs_embed.cli.completion import complete_backend, complete_models
from rs_embed.cli.labels import LabelOptions, LabelTable
from rs_embed.cli.options import ACCEPT_HELP, BACKEND_HELP, LABELS, OUT, Json, command
from rs_embed.core.specs import Precision

if TYPE_CHECKING:
    from rs_embed.learning.folds import Blocks

_fold = partial(typer.Option, rich_help_panel="Folds")
_imagery = partial(typer.Option, rich_help_panel="Imagery and time")
_model = partial(typer.Option, rich_help_panel="Models")


@command(
    LABELS,
    "rs-embed evaluate labels.csv --label cover --models mosaiks_rcf --buffer 60 \\\n  --backend sample",
    "rs-embed evaluate fields.gpkg --label crop --year 2022 \\\n  --models galileo_1_0_nano,thor_1_0_tiny",
    "rs-embed evaluate plots.csv --label biomass --buffer 320 --groups farm \\\n"
    "  --models galileo_1_0_nano:layers=1,3,galileo_1_0_nano+mosaiks_rcf",
)
def evaluate(
    table: LabelTable,
    labels: LabelOptions,
    *,
    models: Annotated[
        str,
        _model(
            metavar="MODEL[,MODEL...]",
            help="Models: a,b. With knobs: a:layers=3,7:pooling=max. Side by side: a+b.",
            autocompletion=complete_models,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report, the JSON and the runs.")] = Path("evaluation"),
    groups: Annotated[
        str | None, _fold(metavar="COLUMN", help="Keep the places of one farm, region, ... together.")
    ] = None,
    blocks: Annotated[
        str, _fold(help="Side of the blocks, metres; auto: as far as labels are alike; random: none (too optimistic).")
    ] = "auto",
    folds: Annotated[int, _fold(min=2, max=100, help="Number of folds.")] = 5,
    head: Annotated[
        str, _fold(help="knn, logistic, ridge, or several joined by commas; auto chooses while training.")
    ] = "auto",
    seed: Annotated[int, _fold(help="Seed of everything that is drawn.")] = 0,
    backend: Annotated[str, _imagery(help=BACKEND_HELP, autocompletion=complete_backend)] = "auto",
    device: Annotated[str, _model(help="auto, cpu, cuda or cuda:0.")] = "auto",
    precision: Annotated[Precision, _model(help="bf16: faster, slightly less exact.")] = "fp32",
    accept_licence: Annotated[str | None, _model(metavar="ID[,ID...]", help=ACCEPT_HELP)] = None,
    random_controls: Annotated[
        bool, _model("--random-controls", help="Take models with random weights, as controls.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare models on your labels, beside four baselines.

    Scores are cross-validated in blocks that lie apart. Imagery is fetched once. Run the same command again to
    continue, or with further models to add them.
    """
    from rs_embed.learning.evaluate import evaluate as run
    from rs_embed.learning.variants import split_models

    found = run(
        split_models(models),
        labels.read(table),
        out=out,
        groups=groups,
        blocks=_blocks(blocks),
        folds=folds,
        head=head.split(","),  # type: ignore[arg-type]  # checked there
        backend=backend,
        device=device,
        precision=precision,
        accept_licence=accept_licence,
        random_controls=random_controls,
        seed=seed,
    )
    if as_json:
        typer.echo(json.dumps({**found.to_dict(), "report": str(out / "report.html")}))
    else:
        OUT.print(str(found), soft_wrap=True)
        OUT.print(f"\n{out / 'report.html'}: open it in a browser", soft_wrap=True)


def _blocks(text: str) -> "Blocks":
    words: dict[str, Blocks] = {"auto": "auto", "random": "random"}
    try:
        return words[text] if text in words else float(text)
    except ValueError:
        raise typer.BadParameter(f"--blocks takes metres, auto or random, got {text!r}") from None
