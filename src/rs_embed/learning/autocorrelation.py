"""How far labels stay alike: the difference between two labels as a function of their distance (a variogram)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.optional import require
from rs_embed.learning.footprints import EARTH_M, on_sphere
from rs_embed.learning.labels import Labels

_SAMPLE = 1500
"""Places of which all pairs are looked at; with them, each place and its nearest ones."""
_NEAREST = 8
_BINS = 12
_LEAST_PAIRS = 30
"""Fewest pairs in a bin of distances that counts."""
_SILL = 0.95
"""Share of the overall difference at which labels count as unrelated."""


@dataclass(frozen=True, eq=False)
class Variogram:
    """Labels differ by so much at such a distance; 1 is the difference of two places chosen at random."""

    distance_m: NDArray[np.float64]
    """`[B]`: mean distance of the pairs in a bin, metres."""
    difference: NDArray[np.float64]
    """`[B]`."""
    range_m: float | None
    """Distance at which the difference reaches 95 %; `None` if labels that are near are not alike."""


def variogram(labels: Labels, seed: int = 0) -> Variogram:
    """Measure how the difference between labels grows with distance.

    The difference is 0 or 1 for classes, the share of labels that differ for several, and the square of the difference
    between ranks for numbers.

    Args:
        labels: The labels.
        seed: Of the choice of pairs.

    Raises:
        MissingDependency: scikit-learn (with scipy) is not installed.
    """
    require("scipy", "ml")
    one, other, within = _pairs(labels, seed)
    where, values = on_sphere(*labels.places.centres()), _values(labels)
    straight = np.linalg.norm(where[one] - where[other], axis=1)
    distance = 2 * EARTH_M * np.arcsin(np.clip(straight / (2 * EARTH_M), 0, 1))
    difference = np.square(values[one] - values[other]).mean(axis=1)
    far = distance > 0
    sill = float(difference[within & far].mean()) if (within & far).any() else 0.0
    if sill <= 0:
        return Variogram(np.empty(0), np.empty(0), None)
    edges = np.geomspace(distance[far].min(), distance[far].max() / 2, _BINS + 1) if far.any() else np.empty(0)
    bins = np.searchsorted(edges, distance)  # bin 0 holds what lies at one place, the last what is too far
    middles, means = [], []
    for number in range(1, len(edges)):
        inside = (bins == number) & far
        if inside.sum() >= _LEAST_PAIRS:
            middles.append(float(distance[inside].mean()))
            means.append(float(difference[inside].mean()) / sill)
    middle, mean = np.array(middles), np.array(means)
    return Variogram(middle, mean, _range(middle, mean))


def _range(distance: NDArray[np.float64], difference: NDArray[np.float64]) -> float | None:
    if len(distance) == 0 or difference[0] >= _SILL:
        return None
    above = np.flatnonzero(difference >= _SILL)
    if len(above) == 0:
        return float(distance[-1])
    at = int(above[0])
    share = (_SILL - difference[at - 1]) / (difference[at] - difference[at - 1])
    return float(distance[at - 1] * (distance[at] / distance[at - 1]) ** share)


def _pairs(labels: Labels, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return pairs of places, and which of them are of the random sample."""
    from scipy.spatial import cKDTree

    count = len(labels)
    sample = np.sort(np.random.default_rng(seed).permutation(count)[:_SAMPLE])
    first, second = np.triu_indices(len(sample), 1)
    where = on_sphere(*labels.places.centres())
    near = cKDTree(where).query(where, min(_NEAREST + 1, count))[1].reshape(count, -1)[:, 1:]
    one = np.concatenate([sample[first], np.repeat(np.arange(count), near.shape[1])])
    other = np.concatenate([sample[second], near.reshape(-1)])
    return one, other, np.arange(len(one)) < len(first)


def _values(labels: Labels) -> NDArray[np.float64]:
    """Return `[N, K]`, in which the mean square of the difference of two rows says how much two labels differ."""
    if labels.kind == "classes":
        return np.eye(len(labels.classes))[labels.targets.astype(np.int64)]
    if labels.kind == "multilabel":
        return labels.targets.astype(np.float64)
    order = np.unique(labels.targets, return_inverse=True)[1]
    ranks: NDArray[np.float64] = (np.cumsum(np.bincount(order)) - np.bincount(order) / 2)[order]
    return ranks[:, None]
