"""Heads: small models that turn vectors into classes, numbers or several labels at once.

scikit-learn trains them; what they learnt is plain arrays, and predictions need numpy only.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import require_choice
from rs_embed.core.optional import require
from rs_embed.errors import SpecError
from rs_embed.learning.labels import Kind, Labels

HeadName = Literal["knn", "logistic", "ridge"]
Fold: TypeAlias = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Indices of the rows to train on, and of those to test on."""
Setting: TypeAlias = Mapping[str, float]

HEADS: Mapping[Kind, tuple[HeadName, ...]] = {
    "classes": ("logistic", "knn"),
    "number": ("ridge", "knn"),
    "multilabel": ("logistic", "knn"),
}
"""Kind of labels -> the heads that suit it."""
SEARCHED: Mapping[HeadName, tuple[str, tuple[float, ...]]] = {
    "knn": ("k", (20, 10, 5, 3, 1)),
    "logistic": ("C", (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)),
    "ridge": ("alpha", (1e5, 1e4, 1e3, 1e2, 10.0, 1.0, 0.1)),
}
"""Head -> its setting and the values tried, those with the smoothest predictions first.

`C` and `alpha` are those of scikit-learn."""
UNSEARCHED: Mapping[HeadName, float] = {"knn": 5, "logistic": 1e-2, "ridge": 1e2}
"""The setting without folds to search in."""
_PATIENCE = 2
"""A search over `C` ends after so many values in a row that are worse than the best: large values are slow to fit."""
_ITERATIONS = 500
_PIECE = 8_000_000
"""Similarities computed at once: 64 MB."""


class Targets(NamedTuple):
    """What a head is trained to predict."""

    kind: Kind
    values: NDArray[np.generic]
    """Index of the class, int64 `[N]`; numbers, float64 `[N]`; or labels, bool `[N, K]`."""
    outputs: int
    """K: the number of classes or labels, also of those that no row has; 1 for numbers."""

    @classmethod
    def of(cls, labels: Labels) -> Self:
        """Return the targets of labels."""
        return cls(labels.kind, labels.targets, max(1, len(labels.classes)))

    def rows(self, which: NDArray[np.intp]) -> Self:
        """Return the targets of some rows."""
        return self._replace(values=self.values[which])

    def perfect(self) -> NDArray[np.float64]:
        """Return what a perfect prediction would be, `[N, K]`: 1 for the class or labels of a row, or the number."""
        if self.kind == "classes":
            return np.eye(self.outputs)[self.values.astype(np.int64)]
        return self.values.astype(np.float64).reshape(len(self.values), self.outputs)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained head.

    `arrays` of logistic and ridge: `mean [D]` and `scale [D]` of the features, `weights [K, D]`, `bias [K]`, float64.
    Of knn: `vectors [N, D]` of length 1 and `targets`, as they were given to `fit_head`.
    """

    head: HeadName
    kind: Kind
    outputs: int
    """K: the number of classes or labels; 1 for a number."""
    setting: Setting
    """For example `{"C": 0.01}`."""
    arrays: Mapping[str, NDArray[np.generic]]

    @property
    def dim(self) -> int:
        """D, the length of the vectors."""
        return int(self.arrays["vectors" if self.head == "knn" else "weights"].shape[1])

    def proba(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of each class or label.

        Args:
            vectors: `[N, D]`, without NaN.

        Returns:
            `[N, K]`, 0 to 1. Rows of classes add up to 1; labels are independent of each other. For knn, the shares of
            the `k` most similar vectors.

        Raises:
            SpecError: The vectors have another length or are not finite, or the head predicts numbers.
        """
        if self.kind == "number":
            raise SpecError("Expected a head for classes, got one for numbers.", fix="use predict")
        raw = self._raw(vectors)
        if self.head == "knn":
            return raw
        return _softmax(raw) if self.kind == "classes" else _sigmoid(raw)

    def predict(self, vectors: NDArray[np.floating]) -> NDArray[np.generic]:
        """Return the most probable class, int64 `[N]`; numbers, float64 `[N]`; or labels, bool `[N, K]`.

        Args:
            vectors: `[N, D]`, without NaN.

        Raises:
            SpecError: The vectors have another length or are not finite.
        """
        if self.kind == "number":
            return self._raw(vectors)[:, 0]
        return decided(self.proba(vectors), self.kind)

    def answers(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what `proba` gives, or numbers as `[N, 1]`."""
        return self._raw(vectors) if self.kind == "number" else self.proba(vectors)

    def _raw(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        x = np.asarray(vectors, np.float64)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise SpecError(f"Expected vectors [N, {self.dim}], got the shape {x.shape}.", fix="one row per place")
        if not np.isfinite(x).all():
            raise SpecError("Expected vectors without NaN, got some.", fix="leave out the places without a vector")
        if self.head == "knn":
            targets = Targets(self.kind, self.arrays["targets"], self.outputs)
            return _shares(targets, _nearest(self._floats("vectors"), unit(x), int(self.setting["k"])))
        mean, scale, weights, bias = (self._floats(name) for name in ("mean", "scale", "weights", "bias"))
        return (x - mean) / scale @ weights.T + bias

    def _floats(self, name: str) -> NDArray[np.float64]:
        return self.arrays[name].astype(np.float64)


def decided(proba: NDArray[np.float64], kind: Kind) -> NDArray[np.generic]:
    """Return the most probable class of each row, the first of equals; or the labels above one half."""
    return proba.argmax(axis=1) if kind == "classes" else proba > 0.5


def fit_head(head: HeadName, x: NDArray[np.floating], targets: Targets, value: float) -> Fitted:
    """Train a head with a given setting.

    Args:
        head: One of `HEADS[targets.kind]`.
        x: Vectors `[N, D]`, finite.
        targets: The targets of the N rows.
        value: The setting: `k`, `C` or `alpha`.

    Raises:
        SpecError: The head does not suit the targets.
        MissingDependency: scikit-learn is not installed.
    """
    require_choice("head", head, HEADS[targets.kind])
    name = SEARCHED[head][0]
    if head == "knn":
        value = min(int(value), len(x))
        arrays = {"vectors": unit(x).astype(np.float32), "targets": targets.values}
        return Fitted(head, targets.kind, targets.outputs, {name: value}, arrays)
    standard, mean, scale = _standardised(x)
    if head == "ridge":
        ((weights, bias),) = _ridge_path(standard, targets, (value,))
    else:
        ((weights, bias),) = _logistic_path(standard, targets, (value,), tol=1e-4)
    linear = {"mean": mean, "scale": scale, "weights": weights, "bias": bias}
    return Fitted(head, targets.kind, targets.outputs, {name: value}, linear)


def search(
    head: HeadName | Literal["auto"], x: NDArray[np.floating], targets: Targets, folds: Sequence[Fold]
) -> Fitted:
    """Train a head on all rows, with the setting that predicts best in the folds.

    The best is the one with the smallest mean squared error: of numbers, or of the probabilities of all classes or
    labels (the Brier score). Of equals, it is the smoother one.

    Args:
        head: One of `HEADS[targets.kind]`; "auto" tries all of them.
        x: Vectors `[N, D]`, finite.
        targets: The targets of the N rows.
        folds: Which rows to train and to test on. Without folds, the setting is the one of `UNSEARCHED`.

    Raises:
        SpecError: The head does not suit the targets.
        MissingDependency: scikit-learn is not installed.
    """
    suited = HEADS[targets.kind]
    require_choice("head", head, ("auto", *suited))
    heads = suited if head == "auto" else (head,)
    if not folds:
        return fit_head(heads[0], x, targets, UNSEARCHED[heads[0]])
    _, best, value = min((_searched(one, x, targets, folds) for one in heads), key=lambda found: found[0])
    return fit_head(best, x, targets, value)


def _searched(
    head: HeadName, x: NDArray[np.floating], targets: Targets, folds: Sequence[Fold]
) -> tuple[float, HeadName, float]:
    """Return the smallest error of a head, the head, and the setting that has it."""
    wanted, values = targets.perfect(), SEARCHED[head][1]
    paths = [_path(head, x[train], targets.rows(train), x[test]) for train, test in folds]
    errors: list[float] = []
    for _ in values:
        squares = [np.square(next(path) - wanted[test]) for path, (_, test) in zip(paths, folds, strict=True)]
        errors.append(float(np.concatenate(squares).mean()))
        if head == "logistic" and len(errors) - 1 - int(np.argmin(errors)) >= _PATIENCE:
            break
    best = int(np.argmin(errors))
    return errors[best], head, values[best]


def _path(
    head: HeadName, x: NDArray[np.floating], targets: Targets, tested: NDArray[np.floating]
) -> Iterator[NDArray[np.float64]]:
    """Yield the predictions `[M, K]` of one fold for each value of the setting."""
    values = SEARCHED[head][1]
    if head == "knn":
        near = _nearest(unit(x), unit(tested), min(int(max(values)), len(x)))
        for value in values:
            yield _shares(targets, near[:, : int(value)])
        return
    standard, mean, scale = _standardised(x)
    others = (tested - mean) / scale
    if head == "ridge":
        for weights, bias in _ridge_path(standard, targets, values):
            yield others @ weights.T + bias
        return
    turned = _softmax if targets.kind == "classes" else _sigmoid
    for weights, bias in _logistic_path(standard.astype(np.float32), targets, values, tol=1e-3):
        yield turned(others @ weights.T + bias)


def _standardised(
    x: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return features of mean 0 and standard deviation 1, the mean and the scale; constant features become 0."""
    values = np.asarray(x, np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale[scale <= 10 * np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    scale[scale == 0] = 1.0
    return (values - mean) / scale, mean, scale


def _ridge_path(
    x: NDArray[np.float64], targets: Targets, values: Sequence[float]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield weights `[1, D]` and bias `[1]` for each penalty; one decomposition serves all of them."""
    y = targets.values.astype(np.float64)
    centre = y.mean()
    wide = x.shape[1] > len(x)
    powers, axes = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    turned = axes.T @ (y - centre if wide else x.T @ (y - centre))
    for value in values:
        solved = axes @ (turned / (np.maximum(powers, 0) + value))
        yield (x.T @ solved if wide else solved)[None], np.array([centre])


def _logistic_path(
    x: NDArray[np.floating], targets: Targets, values: Sequence[float], *, tol: float
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield weights `[K, D]` and bias `[K]` for each value of C (ascending), each from the solution before it.

    A class that is not among the targets gets a bias of -inf. A label that all rows have, or none, gets +inf or -inf.
    """
    require("sklearn", "ml")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    kind, outputs = targets.kind, targets.outputs
    columns = np.atleast_2d(targets.values.T.astype(np.int64))  # one of classes, or one of 0 and 1 for each label
    solvers: list[Any] = [LogisticRegression(warm_start=True, tol=tol, max_iter=_ITERATIONS) for _ in columns]
    for value in values:
        weights, bias = np.zeros((outputs, x.shape[1])), np.full(outputs, -math.inf)
        for label, (solver, column) in enumerate(zip(solvers, columns, strict=True)):
            known = np.unique(column)
            if len(known) == 1:
                if kind == "classes":
                    bias[known] = 0.0
                else:
                    bias[label] = math.inf if known[0] else -math.inf
                continue
            with warnings.catch_warnings():  # after so many steps only the last digits still change
                warnings.simplefilter("ignore", ConvergenceWarning)
                solver.set_params(C=value).fit(x, column)
            if kind == "multilabel":
                weights[label], bias[label] = solver.coef_[0], solver.intercept_[0]
            elif len(known) == 2:
                weights[known[1]], bias[known] = solver.coef_[0], (0.0, solver.intercept_[0])
            else:
                weights[known], bias[known] = solver.coef_, solver.intercept_
        yield weights, bias


def unit(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return vectors of length 1; zeros stay zeros."""
    values = np.asarray(x, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    turned: NDArray[np.float64] = values / np.where(lengths == 0, 1, lengths)
    return turned


def _nearest(known: NDArray[np.float64], x: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Return the indices `[M, k]` of the most similar of the `known [N, D]`, most similar first."""
    found = np.empty((len(x), k), np.intp)
    step = max(1, _PIECE // len(known))
    for start in range(0, len(x), step):
        distance = -(x[start : start + step] @ known.T)
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        order = np.lexsort((near, np.take_along_axis(distance, near, axis=1)), axis=1)
        found[start : start + step] = np.take_along_axis(near, order, axis=1)
    return found


def _shares(targets: Targets, near: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the mean target of neighbours `[M, k]`: the share of each class or label, or the mean number, `[M, K]`."""
    if targets.kind != "classes":
        means: NDArray[np.float64] = targets.perfect()[near].mean(axis=1)
        return means
    classes = targets.values[near]
    shares: NDArray[np.float64] = np.stack([(classes == one).mean(axis=1) for one in range(targets.outputs)], axis=1)
    return shares


def _softmax(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    proba: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return proba


def _sigmoid(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    proba: NDArray[np.float64] = (1 + np.tanh(raw / 2)) / 2
    return proba
