"""Nested cross-validation: heads are chosen and tuned inside the training places of each fold, and tested outside."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.optional import require
from rs_embed.learning.folds import Fold, Folds
from rs_embed.learning.footprints import on_sphere
from rs_embed.learning.heads import SEARCHED, Fitted, HeadName, Targets, fit_head, search
from rs_embed.learning.labels import Labels
from rs_embed.learning.scores import Predicted

HeadChoice = HeadName | Literal["auto"]
SHARES = (0.1, 0.25, 0.5)
"""Parts of the training blocks on which the learning curve is measured, beside the whole."""
_FEWEST = 5
"""Fewest places to train on for a point of the curve."""
_WAVES = 8
"""Wavelengths of the encoding of coordinates."""


@dataclass(frozen=True, eq=False)
class Validated:
    """What a model predicted when tested, and how it was trained."""

    found: Predicted
    heads: tuple[str, ...]
    """The head of each fold with its setting: "knn, k=5"."""
    curve: Mapping[int, Predicted]
    """Mean number of places trained on -> the predictions of the smaller training sets."""

    @property
    def head(self) -> str:
        """The head that most folds chose."""
        names = [one.partition(",")[0] for one in self.heads]
        return max(sorted(set(names)), key=names.count)


def cross_validate(
    x: NDArray[np.floating],
    labels: Labels,
    folds: Folds,
    head: HeadChoice = "auto",
    *,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> Validated:
    """Test vectors: train a head on each fold's training places, and predict the others.

    Args:
        x: Vectors `[N, D]`, finite.
        labels: The N labels.
        folds: Their folds.
        head: One head, or "auto": whichever does better inside the training places.
        seed: Of the choice of blocks for the learning curve.
        advance: Called after each fold.
    """
    targets, splits = Targets.of(labels), folds.splits()
    fitted = []
    for train, _ in splits:
        fitted.append(search(head, x[train], targets.rows(train), folds.inner(train)))
        advance()
    whole = _predicted(labels, _answers(x, targets, splits, fitted))
    curve: dict[int, Predicted] = {}
    for share in SHARES:
        parts = [_part(train, folds.block, share, seed) for train, _ in splits]
        if min(map(len, parts)) >= _FEWEST:
            smaller = [_again(one, x[part], targets.rows(part)) for one, part in zip(fitted, parts, strict=True)]
            count = round(float(np.mean([len(part) for part in parts])))
            curve[count] = _predicted(labels, _answers(x, targets, splits, smaller))
    curve[round(float(np.mean([len(train) for train, _ in splits])))] = whole
    return Validated(whole, tuple(map(_told, fitted)), curve)


def majority(labels: Labels, folds: Folds) -> Validated:
    """Predict what is usual in the training places: the largest class, the labels of most places, or the mean."""
    targets, splits = Targets.of(labels), folds.splits()
    answers = np.zeros((len(labels), targets.outputs))
    for train, test in splits:
        answers[test] = targets.rows(train).perfect().mean(axis=0)
    name = "mean" if labels.kind == "number" else "shares"
    return Validated(_predicted(labels, answers), (name,) * len(splits), {})


def coordinates(labels: Labels, footprint_m: float) -> NDArray[np.float64]:
    """Encode where places lie, `[N, 51]`: coordinates, and sines and cosines from twice the extent to two footprints.

    The encoding of two places is the more similar, the nearer they are; so every head can use it.
    """
    where = on_sphere(*labels.places.centres())
    where = where - where.mean(axis=0)
    widest = 4 * max(1.0, float(np.abs(where).max()))
    waves = np.geomspace(widest, min(widest, max(1.0, 2 * footprint_m)), _WAVES)
    angles = 2 * np.pi * where[:, :, None] / waves
    straight = (where * 4 / widest)[:, :, None]  # -1 to 1
    return np.concatenate([straight, np.sin(angles), np.cos(angles)], axis=2).reshape(len(where), -1)


def one_thread() -> AbstractContextManager[object]:
    """Keep the products of heads on one thread: they are small, and more threads wait for each other."""
    require("threadpoolctl", "ml")
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(limits=1)
    return limits


def _answers(
    x: NDArray[np.floating], targets: Targets, splits: list[Fold], fitted: list[Fitted]
) -> NDArray[np.float64]:
    answers = np.zeros((len(x), targets.outputs))
    for (_, test), one in zip(splits, fitted, strict=True):
        if targets.kind == "number":
            answers[test, 0] = one.predict(x[test])
        else:
            answers[test] = one.proba(x[test])
    return answers


def _predicted(labels: Labels, answers: NDArray[np.float64]) -> Predicted:
    return Predicted(labels.kind, labels.targets, answers)


def _part(train: NDArray[np.intp], block: NDArray[np.int64], share: float, seed: int) -> NDArray[np.intp]:
    """Return the places of a part of the training blocks; a smaller part lies inside a larger one."""
    blocks = np.random.default_rng(seed).permutation(np.unique(block[train]))
    kept = blocks[: max(1, round(share * len(blocks)))]
    return train[np.isin(block[train], kept)]


def _again(one: Fitted, x: NDArray[np.floating], targets: Targets) -> Fitted:
    return fit_head(one.head, x, targets, one.setting[SEARCHED[one.head][0]])


def _told(one: Fitted) -> str:
    return ", ".join([one.head, *(f"{name}={value:g}" for name, value in one.setting.items())])
