"""Scores of predictions, their uncertainty, and the difference between two models.

Uncertainty is that of the places: blocks, not places, are drawn again (a bootstrap), because neighbours are not
independent. Two models are compared over the same draws, so that what is hard for both does not blur the difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rs_embed.learning.labels import Kind, Targets

MAIN: Mapping[Kind, str] = {"classes": "balanced accuracy", "number": "R2", "multilabel": "mAP"}
"""The score that ranks models."""
DRAWS = 1000
"""Bootstrap draws: enough for two digits of an interval."""
_DRAWS_OF_RANKS = 200
"""The same for mAP, which has to be computed for each draw."""
_LOW, _HIGH = 0.025, 0.975


@dataclass(frozen=True)
class Interval:
    """A score, and the interval that holds 95 % of its bootstrap draws."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: NDArray[np.float64]) -> "Interval":
        """Make the interval; draws in which the score is not defined do not count."""
        known = draws[np.isfinite(draws)]
        low, high = np.quantile(known, (_LOW, _HIGH)) if len(known) else (np.nan, np.nan)
        return cls(float(value), float(low), float(high))

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """Return 1 if a difference is above 0 and -1 if it is below, beyond its interval; else 0.

        Draws may lie to one side of the value. So 0 has to be outside of the interval, and of `value ± half`.
        """
        if abs(self.value) <= self.half:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model predicted for each place when the place was in the test."""

    kind: Kind
    targets: Targets
    answers: NDArray[np.float64]
    """`[N, K]` probabilities of classes or labels, or `[N, 1]` numbers."""

    @property
    def decided(self) -> NDArray[np.generic]:
        """The most probable class, the labels above one half, or the number."""
        if self.kind == "classes":
            classes: NDArray[np.int64] = self.answers.argmax(axis=1)
            return classes
        return self.answers > 0.5 if self.kind == "multilabel" else self.answers[:, 0]

    def confusion(self) -> NDArray[np.int64]:
        """Return `[K, K]`: places of a true class (row) that were given a class (column)."""
        count = self.answers.shape[1]
        pairs = self.targets.astype(np.int64) * count + self.decided.astype(np.int64)
        return np.bincount(pairs, minlength=count * count).reshape(count, count)


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each block is taken in each bootstrap draw; the first draw takes each once: the data themselves."""

    block: NDArray[np.int64]
    """`[N]`."""
    taken: NDArray[np.float64]
    """`[1 + draws, B]`."""

    @classmethod
    def of(cls, block: NDArray[np.int64], seed: int = 0, draws: int = DRAWS) -> "Draws":
        """Draw blocks with replacement."""
        count = int(block.max()) + 1
        taken = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
        return cls(block, np.concatenate([np.ones((1, count)), taken]).astype(np.float64))

    def sums(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return `[1 + draws, M]`: the sums of `values [N, M]` over the places of each draw."""
        per_block = np.zeros((self.taken.shape[1], values.shape[1]))
        np.add.at(per_block, self.block, values)
        total: NDArray[np.float64] = self.taken @ per_block
        return total


Drawn = Mapping[str, NDArray[np.float64]]
"""Score -> its value in the data (first) and in each draw."""


def scores_of(found: Predicted, draws: Draws) -> dict[str, NDArray[np.float64]]:
    """Compute all scores of a kind of labels, in the data and in each draw; the first is the one of `MAIN`."""
    if found.kind == "number":
        return _of_numbers(found, draws)
    return _of_classes(found, draws) if found.kind == "classes" else _of_sets(found, draws)


def intervals(drawn: Drawn) -> dict[str, Interval]:
    """Return each score with its interval."""
    return {name: Interval.of(values[0], values[1:]) for name, values in drawn.items()}


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> Interval:
    """Return by how much a score is higher than another over the same draws."""
    return Interval.of(one[0] - other[0], (one - other)[1:])


def recalls(found: Predicted) -> NDArray[np.float64]:
    """Return the share of each class or label that was found, `[K]`; NaN where there is none."""
    truth, said = _flags(found)
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = (truth & said).sum(axis=0) / truth.sum(axis=0)
    return shares


def _flags(found: Predicted) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if found.kind == "multilabel":
        return found.targets.astype(bool), found.decided.astype(bool)
    classes = np.arange(found.answers.shape[1])
    return found.targets[:, None] == classes, found.decided[:, None] == classes


def _of_classes(found: Predicted, draws: Draws) -> dict[str, NDArray[np.float64]]:
    truth, said = _flags(found)
    right = draws.sums((truth & said).astype(np.float64))
    true, named = draws.sums(truth.astype(np.float64)), draws.sums(said.astype(np.float64))
    return {
        "balanced accuracy": _mean(right, true),
        "macro F1": _mean(2 * right, true + named, of=true > 0),
        "accuracy": right.sum(axis=1) / true.sum(axis=1),
    }


def _of_sets(found: Predicted, draws: Draws) -> dict[str, NDArray[np.float64]]:
    truth, said = _flags(found)
    right = draws.sums((truth & said).astype(np.float64))
    true, named = draws.sums(truth.astype(np.float64)), draws.sums(said.astype(np.float64))
    precision = np.stack(
        [_average_precision(truth[:, one], found.answers[:, one], draws) for one in range(truth.shape[1])], axis=1
    )
    return {
        "mAP": _mean(np.nan_to_num(precision), np.isfinite(precision).astype(np.float64)),
        "macro F1": _mean(2 * right, true + named, of=true > 0),
        "micro F1": 2 * right.sum(axis=1) / np.maximum((true + named).sum(axis=1), 1),
    }


def _average_precision(truth: NDArray[np.bool_], answers: NDArray[np.float64], draws: Draws) -> NDArray[np.float64]:
    """Return the average precision in the data and in each draw; NaN where a draw has no place with the label.

    Places of equal probability count as one step, as in scikit-learn.
    """
    order = np.argsort(-answers, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(answers[order]) != 0, True))
    hits = truth[order].astype(np.float64)
    found = np.full(1 + _DRAWS_OF_RANKS, np.nan)
    for number, taken in enumerate(draws.taken[: 1 + _DRAWS_OF_RANKS]):
        weight = taken[draws.block[order]]
        seen, right = np.cumsum(weight)[ends], np.cumsum(weight * hits)[ends]
        if right[-1] > 0:
            steps = np.diff(right, prepend=0.0)
            found[number] = float((steps * right / np.maximum(seen, 1e-12)).sum() / right[-1])
    return found


def _of_numbers(found: Predicted, draws: Draws) -> dict[str, NDArray[np.float64]]:
    truth = found.targets.astype(np.float64)
    centred = truth - truth.mean()  # for precision: R2 does not depend on it
    error = found.answers[:, 0] - truth
    columns = np.stack([np.ones_like(truth), centred, centred**2, error**2, np.abs(error)], axis=1)
    count, total, squares, errors, sizes = draws.sums(columns).T
    spread = squares - total**2 / count
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = np.where(spread > 0, 1 - errors / spread, np.nan)
    return {"R2": explained, "RMSE": np.sqrt(errors / count), "MAE": sizes / count}


def _mean(
    above: NDArray[np.float64], below: NDArray[np.float64], of: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return the mean ratio over the classes, `[draws]`, without those that a draw lacks."""
    counted = below > 0 if of is None else of
    ratios = np.divide(above, below, out=np.zeros_like(below), where=below > 0)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = (ratios * counted).sum(axis=1) / counted.sum(axis=1)
    return mean
