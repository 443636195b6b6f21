"""`evaluate`: which model suits your labels? All models on the same blocks, beside four baselines."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rs_embed.core.atomic import storing
from rs_embed.core.checks import require_choice
from rs_embed.core.optional import require
from rs_embed.core.progress import progress_bar
from rs_embed.core.specs import Precision
from rs_embed.errors import ChoiceWarning, SpecError, warn
from rs_embed.learning.crossval import HeadChoice, Validated, coordinates, cross_validate, majority, one_thread
from rs_embed.learning.evaluation import FEW, MEAN, PLACE, USUAL, Evaluation, Role, Scored
from rs_embed.learning.folds import FOLDS, Blocks, Folds, make_folds, support_by_block
from rs_embed.learning.heads import HEADS
from rs_embed.learning.labels import Kind, Labels, read_labels
from rs_embed.learning.rows import Comparison, ComputedRow
from rs_embed.learning.scores import Draws, scores_of
from rs_embed.learning.variants import Models, variants_of
from rs_embed.learning.vectors import ImagerySource
from rs_embed.pipeline.request import AcceptLicence, Backend
from rs_embed.places import Given, Temporal

_MOST_FAILED = 0.2
"""Share of places without a vector above which a model is left out of the comparison."""
_RARE = 10
"""Places of a class below which its recall says little."""
_IMBALANCE = 0.7
"""Share of the largest class above which accuracy is flattering."""
_SHOWN = 5
"""Largest number of items that a note names."""


def evaluate(
    models: Models,
    labels: "Given | Labels",
    label: str | Sequence[str] | None = None,
    *,
    out: str | Path | None = "evaluation",
    kind: Kind | None = None,
    temporal: Temporal = None,
    buffer_m: float | str | None = None,
    groups: str | None = None,
    blocks: Blocks = "auto",
    folds: int = FOLDS,
    head: HeadChoice | Sequence[HeadChoice] = "auto",
    backend: Backend | None = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    accept_licence: AcceptLicence = None,
    random_controls: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Compare models on your labels: scores with intervals, what can be told apart, and what each costs.

    Imagery is fetched once for all models. Their vectors are kept as runs in `out`, so a call that was stopped goes on,
    and a later call with further models computes only theirs. Heads are tuned inside the training places of spatially
    separate folds. Four baselines are always there: the majority (or the mean), band statistics with indices, MOSAIKS,
    and the coordinates alone.

    Args:
        models: Ids, cards, or either with knobs: `("thor", {"layers": [5, 11]})`; also `pooling`, `modality` and
            `input_prep`. "a+b" puts vectors side by side; "thor:layers=5,11" adds knobs. A mapping gives names, and
            takes vectors `[N, D]` of your own, one row per labelled place.
        labels: A table with a column of labels, or what `read_labels` returns.
        label: The column, or several columns of 0 and 1.
        out: Folder of the report, the JSON and the runs; `None` writes no report and keeps the runs in a temporary
            folder.
        kind: See `read_labels`.
        temporal: One window for all rows or one per row, if the table has no dates.
        buffer_m: Half the side of the square around a point, metres, or the name of the column that holds it.
        groups: A column whose groups are kept together, instead of blocks.
        blocks: Side of the blocks, metres; "auto" measures how far labels stay alike; "random" gives random folds,
            whose scores are too optimistic.
        folds: Number of folds.
        head: "knn", "logistic" (classes) or "ridge" (numbers); "auto" chooses inside the training places. Several give
            one row each.
        backend: Where imagery comes from; `None` fetches nothing, for vectors of your own.
        device: Where the models run.
        precision: In which the models run.
        accept_licence: Ids of licences that you accept.
        random_controls: Take models with random weights, as controls. They are refused otherwise.
        seed: Of everything that is drawn.
        progress: Show bars on a terminal.

    Returns:
        The comparison: `print` it.

    Raises:
        SpecError: Labels, models or folds are invalid, or weights are random.
        RSEmbedError: A model cannot run; see `export_embeddings`.
        MissingDependency: The extras `ml` and `export` are not installed.
    """
    require("sklearn", "ml")
    if not isinstance(labels, Labels):
        if label is None:
            raise SpecError("Expected the column of the labels, got none.", fix='for example label="crop"')
        labels = read_labels(labels, label, kind=kind, temporal=temporal, buffer_m=buffer_m)
    elif (label, kind, temporal, buffer_m) != (None, None, None, None):
        raise SpecError("Expected labels alone, got options for reading them.", fix="pass them to read_labels")
    heads = (head,) if isinstance(head, str) else tuple(head)
    for one in heads:
        require_choice("head", one, ("auto", *HEADS[labels.kind]))
    make_folds(labels, blocks=blocks, groups=groups, folds=folds, seed=seed)  # what is wrong is said at once
    variants = variants_of(models)
    source = ImagerySource(backend or "auto", device, precision, accept_licence)
    job = Comparison(labels, source, random_controls)
    wanted = job.rows(variants, imagery=backend is not None)
    folder = None if out is None else _folder(Path(out).expanduser())
    with TemporaryDirectory() if folder is None else nullcontext(folder / "vectors") as runs:
        found = job.vectors(wanted, Path(runs), progress=progress)
    notes: list[str] = job.notes
    compared, labels = _comparable(found, labels, notes)
    cut = make_folds(labels, blocks=blocks, groups=groups, folds=folds, seed=seed)
    rows = _scored(compared, labels, cut, heads, seed, progress=progress)
    made = Evaluation(tuple(rows), labels, cut, (*cut.notes, *_of_labels(labels, cut), *notes), folder)
    if folder is not None:
        made.save(folder / "evaluation.json")
        made.report(folder / "report.html")
    return made


def _folder(folder: Path) -> Path:
    """Make the folder of the report before anything is computed."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _comparable(found: Sequence[ComputedRow], labels: Labels, notes: list[str]) -> tuple[list[ComputedRow], Labels]:
    """Return the rows that have most places, and the labels of the places that all of these rows have."""
    usable = [one for one in found if one.failed.mean() <= _MOST_FAILED]
    notes += [_failures(one, left_out=one not in usable) for one in found if one.failed.any()]
    if not any(one.role != "baseline" for one in usable):
        raise SpecError(
            "Expected vectors of a model for most places, got none.",
            notes="\n".join(notes),
            fix="look at `failures()` of the runs, and mend the cause",
        )
    kept = np.flatnonzero(np.stack([one.failed for one in usable]).sum(axis=0) == 0)
    if len(kept) < len(labels):
        notes.append(f"Scores are of the {len(kept):,} of {len(labels):,} places for which all rows have a vector.")
    return [replace(one, x=one.x[kept], failures=int(one.failed.sum())) for one in usable], labels.take(kept)


def _failures(one: ComputedRow, *, left_out: bool) -> str:
    errors = {text for computed in one.computed for text in computed.errors.values()}
    shown = "; ".join(sorted(errors)[:2]) or "not finite"
    what = ": it is left out of the comparison" if left_out else ""
    return f"{one.name} has no vector for {int(one.failed.sum()):,} of {len(one.x):,} places{what} ({shown})."


def _of_labels(labels: Labels, folds: Folds) -> list[str]:
    """Say what the labels themselves do to the scores."""
    notes = []
    if len(labels) < FEW:
        text = f"Fewer than {FEW} labels ({len(labels)}): scores and intervals say little."
        warn(text, ChoiceWarning)
        notes.append(text)
    support, blocks = labels.support(), support_by_block(labels, folds)
    rare = [f"{name} {count}" for name, count in support.items() if 0 < count < _RARE]
    if rare:
        notes.append(f"Few places of a class, whose recall says little: {_listed(rare)}.")
    lone = [name for name, count in blocks.items() if count == 1]
    if lone:
        notes.append(f"Classes of one block, which no fold can both train on and test: {_listed(lone)}.")
    if labels.kind == "classes" and support and max(support.values()) > _IMBALANCE * len(labels):
        largest = max(support, key=lambda name: support[name])
        share = support[largest] / len(labels)
        notes.append(f"{share:.0%} of the places are {largest}: accuracy flatters, balanced accuracy does not.")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _scored(
    found: Sequence[ComputedRow],
    labels: Labels,
    folds: Folds,
    heads: Sequence[HeadChoice],
    seed: int,
    *,
    progress: bool,
) -> list[Scored]:
    """Cross-validate all rows, and the baselines that need no imagery; models first, then by score."""
    draws = Draws.of(folds.block, seed)

    def scored(one: ComputedRow, validated: Validated) -> Scored:
        return Scored(
            one.name,
            one.role,
            validated,
            scores_of(validated.found, draws),
            one.x.shape[1],
            tuple(each.cost for each in one.computed),
            tuple(each.weights for each in one.computed),
            tuple(f"{each.run}/{each.folder}" for each in one.computed),
            one.failures,
        )

    usual = ComputedRow(MEAN if labels.kind == "number" else USUAL, "baseline", np.empty((len(labels), 0)))
    rows = [scored(usual, majority(labels, folds))]
    runs = [(one, head) for one in found for head in heads]
    runs += [(ComputedRow(PLACE, "baseline", x), head) for head, x in coordinates(labels).items()]
    total = len(runs) * folds.count
    with one_thread(), progress_bar(total, shown=progress, label="cross-validation", unit="folds") as advance:
        for one, head in runs:
            validated = cross_validate(one.x, labels, folds, head, seed=seed, advance=lambda: advance(1, 0))
            rows.append(scored(one, validated))
    worse = min((row for row in rows if row.name == PLACE), key=lambda row: row.main.value)
    rows.remove(worse)  # the baseline is the better of the two ways
    return sorted(rows, key=lambda row: (_ORDER[row.role], -row.main.value))


_ORDER: Mapping[Role, int] = {"model": 0, "control": 1, "baseline": 2}
