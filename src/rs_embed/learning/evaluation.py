"""The result of `evaluate`: scores with intervals, comparisons, costs, and what must be known to read them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from rs_embed.core import display
from rs_embed.core.atomic import replacing, storing
from rs_embed.learning.baselines import MOSAIKS
from rs_embed.learning.crossval import Validated
from rs_embed.learning.folds import Folds
from rs_embed.learning.labels import Labels
from rs_embed.learning.scores import MAIN, Drawn, Interval, difference, intervals, recalls
from rs_embed.learning.vectors import Cost

Role = Literal["model", "baseline", "control"]
"""A control has random weights."""
BANDS, PLACE, USUAL, MEAN = "band statistics", "coordinates alone", "majority", "mean"
"""Names of baselines; the mean is the one of numbers."""
FEW = 30
"""Labels below which a score says little."""
_HEADS = {"knn": "kNN"}
_DEARER, _NOTICED_S = 2.0, 0.05
"""Time that is worth a word: a multiple of another, and seconds a place."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One row of the comparison: a model, several side by side, or a baseline."""

    name: str
    role: Role
    validated: Validated
    drawn: Drawn = field(repr=False)
    """Score -> its value, then one for each bootstrap draw."""
    dim: int = 0
    """Length of the vector; 0 for the majority."""
    costs: tuple[Cost, ...] = ()
    """Of each model in it; empty for what costs nothing, or for vectors of your own."""
    weights: tuple[str, ...] = ()
    """Identity of the weights."""
    run: tuple[str, ...] = ()
    """Folders of the runs that hold the vectors."""
    failed: int = 0
    """Places without a vector."""

    @property
    def head(self) -> str:
        """The head that most folds chose; empty for the majority."""
        return _HEADS.get(self.validated.head, self.validated.head) if self.dim else ""

    @property
    def title(self) -> str:
        """Name and head; of a baseline, the name."""
        if self.role == "baseline":
            return self.name
        return f"{self.name}{' (random weights)' if self.role == 'control' else ''} + {self.head}"

    @property
    def scores(self) -> dict[str, Interval]:
        """Every score with its interval; the first ranks."""
        return intervals(self.drawn)

    @property
    def main(self) -> Interval:
        """The score that ranks."""
        return self.scores[MAIN[self.validated.found.kind]]

    @property
    def seconds(self) -> float | None:
        """Seconds a place; `None` if one of its models was not timed, or nothing runs."""
        each = [one.seconds for one in self.costs]
        return None if not each or None in each else math.fsum(one for one in each if one is not None)

    @property
    def imagery_mb(self) -> float | None:
        """MB of pixels a place; `None` if nothing is fetched."""
        return math.fsum(one.imagery_mb for one in self.costs) if self.costs else None

    @property
    def download(self) -> str:
        """Size of the weights; "-" if there are none."""
        return " + ".join(dict.fromkeys(one.download for one in self.costs if one.licence_id)) or "-"

    @property
    def licence(self) -> str:
        """Ids of the licences of the weights."""
        return ", ".join(dict.fromkeys(one.licence_id for one in self.costs if one.licence_id)) or "-"

    def above(self, other: "Scored") -> Interval:
        """Return by how much its main score is higher, over the same draws."""
        name = MAIN[self.validated.found.kind]
        return difference(self.drawn[name], other.drawn[name])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How models do on your labels. Print it for a table; `report.html` in the folder shows more."""

    rows: tuple[Scored, ...]
    """Models, then baselines, each with the best first."""
    labels: Labels
    """The labels that were scored."""
    folds: Folds
    notes: tuple[str, ...]
    """What must be known to read the scores: folds, places left out, baselines that cannot run, few labels."""
    folder: Path | None = None
    """Where `report.html`, `evaluation.json` and the runs are."""

    @property
    def metric(self) -> str:
        """The score that ranks."""
        return MAIN[self.labels.kind]

    @property
    def best(self) -> Scored:
        """The model with the highest score; of baselines only, the best of them."""
        return next((one for one in self.rows if one.role == "model"), self.rows[0])

    @property
    def usual(self) -> Scored:
        """The baseline that looks at nothing: the majority, or the mean."""
        return next(one for one in self.rows if one.name in (USUAL, MEAN))

    def __getitem__(self, name: str) -> Scored:
        found = next((one for one in self.rows if name in (one.name, one.title)), None)
        if found is None:
            raise KeyError(f"{name!r} is none of {', '.join(one.name for one in self.rows)}")
        return found

    @property
    def sentences(self) -> list[str]:
        """What can be told apart, and what it costs."""
        return _sentences(self)

    @property
    def conclusion(self) -> str:
        """The comparison in sentences."""
        return " ".join(_sentences(self))

    def __str__(self) -> str:
        return "\n".join([*_table(self), "", *_sentences(self), "", *(f"- {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return f"Evaluation({len(self.labels):,} places, {self.metric}: {self.best.title} {self.best.main})"

    def _repr_html_(self) -> str:
        return display.safely(self, _html)

    def to_dict(self) -> dict[str, JsonValue]:
        """Return everything but the vectors as plain data for `json.dumps`; NaN is `None`."""
        return _plain(self)

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON; an existing file is replaced.

        Raises:
            StorageError: It cannot be written.
        """
        target = Path(path).expanduser()
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        with storing(target.parent), replacing(target) as part:
            part.write_text(text, "utf-8")
        return target

    def report(self, path: str | Path = "report.html") -> Path:
        """Write one HTML file with the table, pictures, confusion and folds. It needs no network.

        Raises:
            StorageError: The path does not end in .html, or cannot be written.
        """
        from rs_embed.learning.report import write_report

        return write_report(self, path)


COLUMNS = ("", "head", "score", "above bands", "s/place", "MB/place", "download", "licence")


def cells_of(one: Scored, bands: Scored | None) -> tuple[str, ...]:
    """Return the texts of one row, for `COLUMNS`."""
    above = "-" if bands is None or one is bands else plus_minus(one.above(bands))
    seconds = "-" if one.seconds is None else f"{one.seconds:.2g}"
    imagery = "-" if one.imagery_mb is None else f"{one.imagery_mb:.2g}"
    name = f"{one.name} (random weights)" if one.role == "control" else one.name
    return name, one.head or "-", str(one.main), above, seconds, imagery, one.download, one.licence


def plus_minus(gap: Interval) -> str:
    """Write a difference with half its interval."""
    return f"{gap.value:+.3f} ± {gap.half:.3f}"


def bands_of(evaluation: Evaluation) -> Scored | None:
    """Return the row of band statistics, if they could run."""
    return next((one for one in evaluation.rows if one.name == BANDS), None)


def _table(evaluation: Evaluation) -> list[str]:
    bands = bands_of(evaluation)
    header = (*COLUMNS[:2], evaluation.metric, *COLUMNS[3:])
    rows = [header, *(cells_of(one, bands) for one in evaluation.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    first = next((at for at, one in enumerate(evaluation.rows) if one.role == "baseline"), 0)
    rule = "-" * max(map(len, lines))
    return [lines[0], rule, *lines[1 : first + 1], *([rule] if first else []), *lines[first + 1 :]]


def _sentences(evaluation: Evaluation) -> list[str]:
    """Say what can be told apart, and what it costs."""
    best, metric = evaluation.best, evaluation.metric
    who = "Of the baselines, " if best.role == "baseline" else ""
    of = "" if who else " of the models"
    said = [f"{who}{best.title} has the highest {metric}{of}, {best.main}."]
    usual = evaluation.usual
    learnt = best.above(usual).sign > 0
    if not learnt:
        said.append(f"It is not better than the {usual.name}: nothing can be said of these labels.")
    for name in (BANDS, MOSAIKS, PLACE):
        other = next((one for one in evaluation.rows if one.name == name and one.role == "baseline"), None)
        if other is None or other is best or (name == MOSAIKS and other.main.value < best.main.value):
            continue
        place = name == PLACE and learnt and best.above(other).sign <= 0
        why = ": where a place lies explains these labels as well as its imagery does" if place else ""
        said.append(f"It is {_compared(best, other)}{why}.")
    others = [one for one in evaluation.rows if one is not best and one.role != "baseline"]
    return said + [f"{one.title} is {_compared(one, best, 'it')}{_dearer(one, best)}." for one in others]


def _compared(one: Scored, other: Scored, name: str | None = None) -> str:
    gap, name = one.above(other), name or other.title
    if gap.sign > 0:
        return f"better than {name} by {gap.value:.2f} ± {gap.half:.2f}"
    if gap.sign < 0:
        return f"worse than {name} by {-gap.value:.2f} ± {gap.half:.2f}"
    return f"not distinguishable from {name} ({gap.value:+.2f} ± {gap.half:.2f})"


def _dearer(one: Scored, other: Scored) -> str:
    """Compare the seconds of two models."""
    if not one.seconds or not other.seconds:
        return ""
    times = one.seconds / other.seconds
    if max(one.seconds, other.seconds) < _NOTICED_S or 1 / _DEARER < times < _DEARER:
        return ""
    return f" and costs {times:.2g} times as much" if times > 1 else f" and costs {times:.0%} of its time"


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _interval(one: Interval) -> dict[str, JsonValue]:
    return {"value": _number(one.value), "low": _number(one.low), "high": _number(one.high)}


def _row(one: Scored, evaluation: Evaluation) -> dict[str, JsonValue]:
    bands, classes = bands_of(evaluation), evaluation.labels.classes
    found = one.validated.found
    shares: Mapping[str, JsonValue] = {}
    if classes:
        shares = {name: _number(share) for name, share in zip(classes, recalls(found).tolist(), strict=True)}
    return {
        "name": one.name,
        "role": one.role,
        "heads": list(one.validated.heads) if one.dim else [],
        "scores": {name: _interval(score) for name, score in one.scores.items()},
        "above_band_statistics": None if bands is None or one is bands else _interval(one.above(bands)),
        "above_best": None if one is evaluation.best else _interval(one.above(evaluation.best)),
        "recall": dict(shares),
        "confusion": found.confusion().tolist() if found.kind == "classes" else None,
        "learning_curve": [[places, _interval(score)] for places, score in curve_of(one, evaluation.folds)],
        "dim": one.dim,
        "seconds_per_place": _number(one.seconds),
        "imagery_mb_per_place": _number(one.imagery_mb),
        "download": [cost.download for cost in one.costs],
        "licence": [cost.licence_id for cost in one.costs],
        "weights": list(one.weights),
        "runs": list(one.run),
        "failed": one.failed,
    }


def curve_of(one: Scored, folds: Folds) -> list[tuple[int, Interval]]:
    """Return the main score for each number of places trained on."""
    from rs_embed.learning.scores import Draws, scores_of

    name, draws = MAIN[one.validated.found.kind], Draws.of(folds.block, draws=200)
    curve: Sequence[tuple[int, Drawn]] = [(n, scores_of(found, draws)) for n, found in one.validated.curve.items()]
    return [(places, intervals(drawn)[name]) for places, drawn in curve]


def _plain(evaluation: Evaluation) -> dict[str, JsonValue]:
    from rs_embed.learning.folds import support_by_block

    folds, labels = evaluation.folds, evaluation.labels
    blocks = support_by_block(labels, folds)
    curve = folds.variogram
    return {
        "labels": {
            "column": labels.column,
            "kind": labels.kind,
            "places": len(labels),
            "classes": {name: {"places": count, "blocks": blocks[name]} for name, count in labels.support().items()},
        },
        "metric": evaluation.metric,
        "rows": [_row(one, evaluation) for one in evaluation.rows],
        "folds": {
            "how": folds.how,
            "count": folds.count,
            "blocks": int(folds.block.max()) + 1,
            "block_m": _number(folds.block_m),
            "range_m": _number(curve.range_m),
            "variogram": [[round(a, 1), round(b, 4)] for a, b in zip(curve.distance_m, curve.difference, strict=True)],
        },
        "conclusion": evaluation.conclusion,
        "notes": list(evaluation.notes),
    }


def _html(evaluation: Evaluation) -> str:
    bands = bands_of(evaluation)
    header = ("", "head", evaluation.metric, *COLUMNS[3:])
    below = display.rows(header, [cells_of(one, bands) for one in evaluation.rows])
    facts = {"Labels": repr(evaluation.labels), "Conclusion": evaluation.conclusion}
    facts |= {"Report": None if evaluation.folder is None else evaluation.folder / "report.html"}  # type: ignore[dict-item]
    warning = next((note for note in evaluation.notes if note.startswith("Fewer than")), None)
    return display.card("Evaluation", f"{len(evaluation.labels):,} places", facts, warning=warning, below=below)
