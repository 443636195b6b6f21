"""Scores of features by what they know: retrieval of labelled patches, linear probes on blocks held out, intervals.

Plain numpy. A group is a satellite pass, or a block of a scene: what is like a test because it was acquired with it is
never among what it is compared with, and intervals draw whole passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
Groups = NDArray[np.int64]
ALPHAS = 10.0 ** np.arange(-4, 3)
"""Of ridge regression, in units of the variance of a standardised feature."""
FAR = 3.0
"""Features are clipped at so many standard deviations: else one snowy patch outweighs all others."""
ENOUGH_LABELS = 0.5
"""Two patches are alike if they share so much of all labels that they have (Jaccard)."""
NEAREST = 3
DRAWS = 2000


def standardised(values: Numbers, like: Numbers | None = None) -> Numbers:
    """Each column with mean 0 and standard deviation 1 in `like`, or in itself; a constant one becomes 0."""
    like = values if like is None else like
    spread = like.std(axis=0)
    scaled: Numbers = (values - like.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)
    return scaled


def jaccard(labels: Flags) -> Numbers:
    """`[n, n]`: labels shared by two patches, by labels that either has."""
    both = labels.astype(float) @ labels.T
    count = labels.sum(axis=1)
    alike: Numbers = both / np.maximum(count[:, None] + count - both, 1)
    return alike


def ranking(vectors: Numbers, groups: Groups) -> list[NDArray[np.int64]]:
    """For each vector the others of other groups, nearest by cosine first; ties in their order."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = np.round(unit @ unit.T, 12)
    found = []
    for row, group in zip(cosine, groups, strict=True):
        others = np.flatnonzero(groups != group)
        found.append(others[np.argsort(-row[others], kind="stable")])
    return found


def average_precision(relevant: Flags) -> float:
    """Of what was ranked, best first; NaN where nothing is relevant."""
    hits = np.flatnonzero(relevant)
    return float((np.arange(1, len(hits) + 1) / (hits + 1)).mean()) if len(hits) else float("nan")


@dataclass(frozen=True)
class Retrieval:
    """Of each patch as a query."""

    precision: Numbers
    """`[n]`: average precision; NaN where no patch of another pass is alike."""
    likeness: Numbers
    """`[n]`: mean label Jaccard of the nearest."""


def retrieval(vectors: Numbers, labels: Flags, groups: Groups) -> Retrieval:
    """How well the nearest patches of other groups share labels."""
    alike = jaccard(labels)
    ranked = ranking(vectors, groups)
    precision = [average_precision(alike[query, order] >= ENOUGH_LABELS) for query, order in enumerate(ranked)]
    likeness = [alike[query, order[:NEAREST]].mean() for query, order in enumerate(ranked)]
    return Retrieval(np.array(precision), np.array(likeness))


def by_chance(labels: Flags, groups: Groups, draws: int = 200) -> Retrieval:
    """The same for vectors that mean nothing."""
    chance = np.random.default_rng(0)
    found = [retrieval(chance.normal(size=(len(labels), 8)), labels, groups) for _ in range(draws)]
    return Retrieval(
        np.mean([one.precision for one in found], axis=0), np.mean([one.likeness for one in found], axis=0)
    )


class Ridge:
    """Ridge regression for every `alpha` at once, on standardised features, clipped."""

    def __init__(self, x: Numbers, y: Numbers) -> None:
        self._x, self._mean = x, y.mean(axis=0)
        scaled = standardised(x).clip(-FAR, FAR)
        self._values, self._directions = np.linalg.eigh(scaled.T @ scaled / len(x))
        self._target = self._directions.T @ (scaled.T @ (y - self._mean) / len(x))

    def predict(self, x: Numbers, alpha: float) -> Numbers:
        """`[n, target]`."""
        weights = self._directions @ (self._target / (self._values.clip(0)[:, None] + alpha))
        found: Numbers = standardised(x, like=self._x).clip(-FAR, FAR) @ weights + self._mean
        return found


def held_out(
    x: Numbers, y: Numbers, folds: Groups, near: Callable[[int], Flags] | None = None, *, bounded: bool = False
) -> tuple[Numbers, Numbers]:
    """Predictions of each fold by a ridge regression of the others, whose `alpha` is chosen among those others.

    Args:
        x: `[n, feature]`.
        y: `[n, target]`.
        folds: `[n]`.
        near: Of a fold, which rows are too near to it to be learnt from.
        bounded: Whether predictions are kept within what 98 % of the training rows have.

    Returns:
        Predictions, and the means of the training rows that they are to be better than, both `[n, target]`.
    """
    found, means = np.empty_like(y), np.empty_like(y)
    for fold in np.unique(folds):
        test = folds == fold
        train = ~test if near is None else ~test & ~near(int(fold))
        alpha = _best_alpha(x[train], y[train], folds[train])
        found[test] = Ridge(x[train], y[train]).predict(x[test], alpha)
        if bounded:
            found[test] = found[test].clip(*np.percentile(y[train], [1, 99], axis=0))
        means[test] = y[train].mean(axis=0)
    return found, means


def _best_alpha(x: Numbers, y: Numbers, folds: Groups) -> float:
    errors = np.zeros(len(ALPHAS))
    for fold in np.unique(folds):
        test = folds == fold
        fitted = Ridge(x[~test], y[~test])
        errors += [((fitted.predict(x[test], alpha) - y[test]) ** 2).sum() for alpha in ALPHAS]
    return float(ALPHAS[errors.argmin()])


def macro_f1(truth: NDArray[np.int64], said: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that there are."""
    scores = []
    for one in np.unique(truth):
        right = ((truth == one) & (said == one)).sum()
        scores.append(2 * right / ((truth == one).sum() + (said == one).sum()))
    return float(np.mean(scores))


def explained(y: Numbers, said: Numbers, mean: Numbers) -> float:
    """R2: the share of the squares about the mean of the training rows that is explained, averaged over targets."""
    return float((1 - ((y - said) ** 2).sum(axis=0) / ((y - mean) ** 2).sum(axis=0)).mean())


def quadrants(rows: int, cols: int, gap: int) -> tuple[Groups, Callable[[int], Flags]]:
    """Four blocks of a grid, `[rows * cols]`, and of each which cells are within `gap` cells of it."""
    row, col = np.divmod(np.arange(rows * cols), cols)
    blocks = 2 * (row >= rows // 2) + (col >= cols // 2)

    def near(block: int) -> Flags:
        south, east = divmod(block, 2)
        first, last = (rows // 2, rows - 1) if south else (0, rows // 2 - 1)
        left, right = (cols // 2, cols - 1) if east else (0, cols // 2 - 1)
        beside: Flags = (row >= first - gap) & (row <= last + gap) & (col >= left - gap) & (col <= right + gap)
        return beside

    return blocks, near


def interval(
    groups: Sequence[object], score: Callable[[NDArray[np.int64]], float], draws: int = DRAWS
) -> tuple[float, float]:
    """95 % of the scores when whole groups are drawn with replacement.

    Args:
        groups: Of each item.
        score: Of the items of these indices, some of them several times.
    """
    names = sorted(set(groups), key=str)
    members = [np.array([i for i, group in enumerate(groups) if group == name]) for name in names]
    chance = np.random.default_rng(0)
    drawn = [chance.integers(0, len(members), len(members)) for _ in range(draws)]
    scores = [score(np.concatenate([members[one] for one in some])) for some in drawn]
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)
