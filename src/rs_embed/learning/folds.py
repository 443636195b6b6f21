"""Cut labels into folds that lie apart, so that a score says how a model does where it has not been trained.

Neighbours are alike. If one is in training and the other in the test, a model is rewarded for remembering the place.
Here places are cut into square blocks as wide as labels stay alike, or into the groups of a column. Overlapping
footprints are kept in one block; where they chain across blocks, training leaves out what overlaps the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.checks import require_number, require_whole, short
from rs_embed.core.optional import require
from rs_embed.errors import SpecError
from rs_embed.learning.autocorrelation import Variogram, variogram
from rs_embed.learning.footprints import EARTH_M, Footprints, connected
from rs_embed.learning.labels import Labels

Blocks = float | Literal["auto", "random"]
"""Side of the blocks, metres; "auto" measures it; "random" ignores where places lie."""
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Indices of the places to train on, and of those to test on."""
FOLDS, INNER = 5, 3
_PER_FOLD = 2
"""Least number of blocks per fold that an automatic size leaves."""
_CHAIN = 0.1
"""Share of the places above which overlapping footprints are no cluster but a chain."""
_BINS = 5
"""Numbers are sorted into so many bins of equal count, to give each fold all of their range."""


@dataclass(frozen=True, eq=False)
class Folds:
    """Which places are tested together. `make_folds` makes them."""

    fold: NDArray[np.int64]
    """`[N]`: the fold in which a place is tested."""
    block: NDArray[np.int64]
    """`[N]`: the block that it belongs to; blocks are never cut."""
    how: Literal["blocks", "groups", "random"]
    block_m: float | None
    """Side of a block, metres; `None` for groups and random folds."""
    variogram: Variogram
    """How labels differ with distance."""
    notes: tuple[str, ...]
    """Why the folds are as they are, a sentence each."""
    footprints: Footprints
    strata: NDArray[np.float64] = field(repr=False)
    """`[N, S]`: what every fold should have its share of."""
    guarded: bool = False
    """Whether places that overlap the test are left out of training."""

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def splits(self) -> list[Fold]:
        """Return the places to train on and those to test on, for each fold."""
        return self._splits(self.fold, np.arange(len(self.fold)))

    def inner(self, train: NDArray[np.intp], count: int = INNER) -> list[Fold]:
        """Cut training places again, by the same blocks; the indices are into `train`. Empty if they are one block."""
        blocks = np.unique(self.block[train], return_inverse=True)[1]
        count = min(count, int(blocks.max()) + 1)
        if count < 2:
            return []
        fold = np.full(len(self.fold), -1, np.int64)
        fold[train] = _dealt(blocks, self.strata[train], count)
        at = np.full(len(self.fold), -1, np.intp)
        at[train] = np.arange(len(train))
        return [(at[one], at[other]) for one, other in self._splits(fold, train) if len(one)]

    def _splits(self, fold: NDArray[np.int64], among: NDArray[np.intp]) -> list[Fold]:
        count = int(fold.max()) + 1
        beside = self.footprints.beside(fold, count) if self.guarded else np.zeros((count, len(fold)), bool)
        mine = fold[among]
        return [(among[(mine != one) & ~beside[one, among]], among[mine == one]) for one in range(count)]


def make_folds(
    labels: Labels, *, blocks: Blocks = "auto", groups: str | None = None, folds: int = FOLDS, seed: int = 0
) -> Folds:
    """Cut labels into folds of blocks or groups.

    Args:
        labels: The labels.
        blocks: Side of the square blocks, metres. "auto" takes the distance up to which labels are alike, but at least
            two footprints, and small enough for two blocks per fold. "random" puts places into folds at random, which
            is too optimistic wherever neighbours are alike; overlapping places stay together even then.
        groups: A column of the table instead: places of one farm, scene or region are never in training and test.
        folds: Number of folds; fewer if there are fewer blocks.
        seed: Of random folds.

    Raises:
        SpecError: There are fewer than two blocks or groups, or the column does not exist.
        MissingDependency: scikit-learn or shapely is not installed.
    """
    require("sklearn", "ml")
    require_whole("folds", folds, 2, 100)
    footprints, curve = Footprints(labels.places), variogram(labels)
    notes: list[str] = []
    block_m: float | None = None
    how: Literal["blocks", "groups", "random"] = "blocks"
    cluster = footprints.clusters()
    if groups is not None:
        how, block = "groups", _groups(labels, groups)
        notes.append(f"Folds keep the {block.max() + 1:,} groups of {groups!r} together.")
    elif blocks == "random":
        how, block = "random", np.arange(len(labels))
        notes.append("Folds are random: neighbours lie in training and test, so scores are too optimistic.")
    else:
        block_m, why = _side(footprints, curve, blocks, folds)
        block = _squares(footprints, block_m)
        notes.append(why)
    block, chained = _merged(block, cluster, how)
    notes += _overlaps(footprints, cluster, chained)
    found = int(block.max()) + 1
    if found < 2:
        raise SpecError(
            "Expected at least two blocks that do not overlap, got one.",
            places=len(labels),
            fix="add places farther away, choose smaller blocks, or a smaller buffer_m",
        )
    if found < folds:
        notes.append(f"There are only {found} blocks, so there are {found} folds.")
    strata = _strata(labels)
    if how == "random":
        order = np.random.default_rng(seed).permutation(found)
        fold = _dealt(order[block], np.ones((len(block), 1)), min(folds, found))
    else:
        fold = _dealt(block, strata, min(folds, found))
    made = Folds(fold, block, how, block_m, curve, tuple(notes), footprints, strata, guarded=chained > 0)
    _require_training(made)
    return made


def _groups(labels: Labels, name: str) -> NDArray[np.int64]:
    kept = labels.places.kept
    if name not in kept:
        raise SpecError(
            f"Expected a column {short(name)} of groups, got a table without one of that name.",
            columns=", ".join(kept) or None,
            fix="groups=<one of them>",
        )
    texts = [str(kept[name][row]) for row in range(len(labels))]
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)


def _side(footprints: Footprints, curve: Variogram, blocks: Blocks, folds: int) -> tuple[float, str]:
    """Return the side of the blocks, metres, and why."""
    if blocks != "auto":
        side = require_number("blocks", blocks, 1, 2e7)
        return side, f"Blocks are {length(side)} wide, as requested."
    least = 2 * float(np.median(footprints.side_m))
    wanted = max(curve.range_m or 0.0, least)
    side = wanted
    while side > 1 and _squares(footprints, side).max() + 1 < _PER_FOLD * folds:
        side *= 0.8
    alike = (
        f"Labels are alike up to about {length(curve.range_m)}" if curve.range_m else "Labels show no trend in space"
    )
    if side < wanted:
        return side, (
            f"{alike}, but blocks of {length(wanted)} would be fewer than {_PER_FOLD * folds}: they are {length(side)} "
            "wide, and scores may be too optimistic."
        )
    two = " (two footprints)" if wanted == least else ""
    return side, f"{alike}: blocks are {length(side)} wide{two}."


def _squares(footprints: Footprints, side_m: float) -> NDArray[np.int64]:
    """Number the blocks of a grid of squares: rows of equal latitude, cut where they are so wide."""
    row = np.floor(np.radians(footprints.lat) * EARTH_M / side_m)
    width = np.cos((row + 0.5) * side_m / EARTH_M).clip(1e-6) * EARTH_M
    col = np.floor(np.radians(footprints.lon) * width / side_m)
    return np.unique(np.stack([row, col], axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _overlaps(footprints: Footprints, cluster: NDArray[np.int64], chained: int) -> list[str]:
    """Say what lies on top of what, and what was done about it."""
    doubled, sizes = footprints.duplicates(), np.bincount(cluster)
    together = int(sizes[sizes > 1].sum()) - chained
    notes = []
    if doubled:
        notes.append(f"{doubled:,} places lie where another one lies (duplicates).")
    if together:
        notes.append(f"{together:,} of {len(cluster):,} places overlap another one: they are in one block with it.")
    if chained:
        notes.append(
            f"{chained:,} of {len(cluster):,} places form chains of overlapping footprints, too long for one block: "
            "training leaves out every place that overlaps the test."
        )
    return notes


def _merged(block: NDArray[np.int64], cluster: NDArray[np.int64], how: str) -> tuple[NDArray[np.int64], int]:
    """Put overlapping places into one block; return the blocks, and how many places are in chains that are too long."""
    sizes = np.bincount(cluster)
    across = np.bincount(np.unique(np.stack([cluster, block]), axis=1)[0])
    chained = ((sizes > max(2, _CHAIN * len(cluster))) & (across > 1))[cluster]
    if how == "groups":
        size, whole = int(block.max()) + 1, ~chained
        block = connected(block[whole], size + cluster[whole], size + len(sizes))[block]
    else:
        first = np.unique(cluster, return_index=True)[1]
        block = np.where(chained, block, block[first][cluster])
    return np.unique(block, return_inverse=True)[1].astype(np.int64), int(chained.sum())


def _strata(labels: Labels) -> NDArray[np.float64]:
    """Return `[N, S]`: classes, labels or bins of numbers, as 0 and 1."""
    if labels.kind == "multilabel":
        return labels.targets.astype(np.float64)
    if labels.kind == "classes":
        return np.eye(len(labels.classes))[labels.targets.astype(np.int64)]
    edges = np.quantile(labels.targets, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.eye(_BINS)[np.searchsorted(edges, labels.targets)]


def _dealt(block: NDArray[np.int64], strata: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Deal blocks to folds, the largest first, each to where it evens out the shares of classes and of places most."""
    number = int(block.max()) + 1
    size = np.bincount(block, minlength=number).astype(np.float64)
    content = np.stack([np.bincount(block, column, number) for column in strata.T] + [size], axis=1)
    content = content / np.maximum(content.sum(axis=0), 1)
    held = np.zeros((count, content.shape[1]))
    fold = np.zeros(number, np.int64)
    for one in np.lexsort((np.arange(number), -size)).tolist():
        # Adding to fold f raises the sum of squares by 2 held[f] . content + constant.
        fold[one] = int(np.argmin(held @ content[one]))
        held[fold[one]] += content[one]
    return fold[block]


def _require_training(made: Folds) -> None:
    for train, test in made.splits():
        if len(train) < 2 or len(test) < 1:
            raise SpecError(
                f"Expected places to train on that do not overlap the test, got {len(train)}.",
                fix="choose a smaller buffer_m or larger blocks, or add places farther away",
            )


def length(metres: float | None) -> str:
    """Write a length."""
    if metres is None:
        return "-"
    return f"{metres / 1000:,.3g} km" if metres >= 1000 else f"{metres:,.0f} m"


def support_by_block(labels: Labels, folds: Folds) -> dict[str, int]:
    """Count the blocks in which each class occurs."""
    if labels.kind == "number":
        return {}
    strata = _strata(labels)
    counts: Sequence[int] = [len(np.unique(folds.block[column > 0])) for column in strata.T]
    return dict(zip(labels.classes, counts, strict=True))
