"""`evaluate`: which model suits your labels? All models on the same blocks, beside four baselines."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.atomic import storing
from rs_embed.core.optional import require
from rs_embed.core.progress import progress_bar
from rs_embed.core.specs import Precision
from rs_embed.errors import ChoiceWarning, InputError, SensorNotOffered, SpecError, warn
from rs_embed.learning.baselines import MOSAIKS, channels_of, merged_inputs, statistics
from rs_embed.learning.crossval import HeadChoice, Validated, coordinates, cross_validate, majority, one_thread
from rs_embed.learning.evaluation import BANDS, FEW, MEAN, PLACE, USUAL, Evaluation, Role, Scored
from rs_embed.learning.folds import FOLDS, Blocks, Folds, make_folds, support_by_block
from rs_embed.learning.labels import Kind, Labels, read_labels
from rs_embed.learning.scores import Draws, scores_of
from rs_embed.learning.variants import Models, Part, Variant, variants_of
from rs_embed.learning.vectors import Computed, ImagerySource, Planned, compute, has_random_weights, planned
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
_UNAVAILABLE = (SensorNotOffered, InputError, SpecError)
"""Why a baseline cannot run: the imagery lacks its bands."""


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
    variants = variants_of(models)
    source = ImagerySource(backend or "auto", device, precision, accept_licence)
    job = _Job(labels, source, random_controls)
    wanted = job.rows(variants, imagery=backend is not None)
    folder = None if out is None else _made(Path(out).expanduser())
    with TemporaryDirectory() if folder is None else nullcontext(folder / "vectors") as runs:
        found = job.vectors(wanted, Path(runs), progress=progress)
    notes: list[str] = job.notes
    compared, labels = _comparable(found, labels, notes)
    cut = make_folds(labels, blocks=blocks, groups=groups, folds=folds, seed=seed)
    heads = (head,) if isinstance(head, str) else tuple(head)
    rows = _scored(compared, labels, cut, heads, seed, progress=progress)
    made = Evaluation(tuple(rows), labels, cut, (*cut.notes, *_of_labels(labels, cut), *notes), folder)
    if folder is not None:
        made.save(folder / "evaluation.json")
        made.report(folder / "report.html")
    return made


def _made(folder: Path) -> Path:
    """Make the folder of the report before anything is computed."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, eq=False)
class _Wanted:
    """A row whose vectors are to be computed."""

    name: str
    role: Role
    planned: tuple[Planned, ...] = ()
    own: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class _Found:
    """A row with its vectors."""

    name: str
    role: Role
    x: NDArray[np.floating]
    """`[N, D]`; NaN where a place failed."""
    computed: tuple[Computed, ...] = ()
    failures: int = 0

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which places have no vector, `[N]`."""
        lacking: NDArray[np.bool_] = np.isnan(self.x).any(axis=1)
        return lacking


class _Job:
    """The part of an evaluation that computes vectors."""

    def __init__(self, labels: Labels, source: ImagerySource, random_controls: bool) -> None:
        self.labels, self.source, self._controls = labels, source, random_controls
        self.notes: list[str] = []
        self._planned: dict[str, Planned] = {}

    def rows(self, variants: Sequence[Variant], *, imagery: bool) -> list[_Wanted]:
        """Plan what is compared, and the baselines that need imagery."""
        found = [self._row(one) for one in variants]
        if not imagery:
            if any(one.planned for one in found):
                raise SpecError("Expected vectors of your own without a backend, got models.", fix="set `backend`")
            self.notes.append("No imagery is fetched, so there are no band statistics and no MOSAIKS.")
            return found
        mosaiks = self._baseline(MOSAIKS, [variants_of(MOSAIKS)[0].parts[0]])
        own = {part.key for one in found for part in one.planned if len(one.planned) == 1}
        if mosaiks is not None and mosaiks.planned[0].key not in own:
            found.append(mosaiks)
        plans = [one.plan.model for one in self._planned.values()]
        inputs = [(modality, sensor, model.knobs) for model in plans for modality, sensor in model.inputs]
        bands = self._baseline(BANDS, merged_inputs(inputs))
        return [*found, *([] if bands is None else [bands])]

    def _row(self, variant: Variant) -> _Wanted:
        if variant.own is not None:
            if len(variant.own) != len(self.labels):
                raise SpecError(
                    f"Expected {len(self.labels):,} vectors of {variant.name!r}, one for each labelled place, "
                    f"got {len(variant.own):,}.",
                    fix="leave out the rows without a label",
                )
            return _Wanted(variant.name, "model", own=variant.own)
        plans = tuple(map(self._plan, variant.parts))
        random = [one.part.card.id for one in plans if has_random_weights(one.plan)]
        if random and not self._controls:
            raise SpecError(
                f"Expected trained weights, got random ones for {', '.join(random)}.",
                why="their scores say nothing of the model",
                fix="leave out pretrained=False, or set random_controls=True to have them as controls",
            )
        return _Wanted(variant.name, "control" if random else "model", plans)

    def _plan(self, part: Part) -> Planned:
        found = planned(part, self.labels.places, self.source)
        return self._planned.setdefault(found.key, found)

    def _baseline(self, name: str, parts: Sequence[Part]) -> _Wanted | None:
        """Plan a baseline of all the parts that can run; a note says why if none can."""
        plans, errors = [], ["there is no imagery"]
        for part in parts:
            try:
                plans.append(self._plan(part))
            except _UNAVAILABLE as error:
                errors.append(error.headline)
        if plans:
            return _Wanted(name, "baseline", tuple(plans))
        self.notes.append(f"The baseline {name} cannot run here: {errors[-1]}")
        return None

    def vectors(self, wanted: Sequence[_Wanted], folder: Path, *, progress: bool) -> list[_Found]:
        """Compute the vectors of all rows."""
        plans = list({one.key: one for row in wanted for one in row.planned}.values())
        done = compute(plans, self.labels.places, folder, self.source, progress=progress) if plans else []
        by_key = {one.key: computed for one, computed in zip(plans, done, strict=True)}
        return [self._joined(row, [by_key[one.key] for one in row.planned]) for row in wanted]

    def _joined(self, row: _Wanted, computed: Sequence[Computed]) -> _Found:
        if row.own is not None:
            return _Found(row.name, row.role, row.own)
        if row.name == BANDS and row.role == "baseline":
            each = [_filled(statistics(one.vectors, channels_of(one.part.card))) for one in computed]
            together = np.concatenate(each, axis=1)
            lost = np.all([np.isnan(one.vectors).any(axis=1) for one in computed], axis=0)
            together[lost] = np.nan
            return _Found(row.name, row.role, together, tuple(computed))
        random = [one.part.card.id for one in computed if one.is_random]
        if random and not self._controls:  # of a card whose weights are always random
            raise SpecError(
                f"Expected trained weights, got random ones for {', '.join(random)}.",
                fix="set random_controls=True to have them as controls",
            )
        role: Role = "control" if random else row.role
        return _Found(row.name, role, np.concatenate([one.vectors for one in computed], axis=1), tuple(computed))


def _filled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace rows of NaN by the mean of the others: one kind of imagery is missing there."""
    known = np.isfinite(x).all(axis=1)
    filled = np.tile(x[known].mean(axis=0) if known.any() else np.zeros(x.shape[1]), (len(x), 1))
    filled[known] = x[known]
    return filled


def _comparable(found: Sequence[_Found], labels: Labels, notes: list[str]) -> tuple[list[_Found], Labels]:
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


def _failures(one: _Found, *, left_out: bool) -> str:
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
    found: Sequence[_Found],
    labels: Labels,
    folds: Folds,
    heads: Sequence[HeadChoice],
    seed: int,
    *,
    progress: bool,
) -> list[Scored]:
    """Cross-validate all rows, and the baselines that need no imagery; models first, then by score."""
    draws = Draws.of(folds.block, seed)

    def scored(one: _Found, validated: Validated) -> Scored:
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

    place = _Found(PLACE, "baseline", coordinates(labels, float(np.median(folds.footprints.side_m))))
    usual = _Found(MEAN if labels.kind == "number" else USUAL, "baseline", np.empty((len(labels), 0)))
    rows = [scored(usual, majority(labels, folds))]
    total = (len(found) + 1) * len(heads) * folds.count
    with one_thread(), progress_bar(total, shown=progress, label="cross-validation", unit="folds") as advance:
        for one in (*found, place):
            for head in heads:
                validated = cross_validate(one.x, labels, folds, head, seed=seed, advance=lambda: advance(1, 0))
                rows.append(scored(one, validated))
    return sorted(rows, key=lambda row: (_ORDER[row.role], -row.main.value))


_ORDER: Mapping[Role, int] = {"model": 0, "control": 1, "baseline": 2}
