"""Is it any good? What features of each model know, beside simple ones and random copies, on real pixels.

    python benchmarks/quality.py                     # all that there is; replaces its section of RESULTS.md
    python benchmarks/quality.py --only 'MOSAIKS*'   # some rows, print only

Every model's tokens are brought to cells of 80 m; the vector of a patch is the mean of its cells. Nothing is tuned on
what is tested: ridge regressions choose their penalty inside of the training part. A few minutes, one thread.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness import chip, replace_section, versions
from numpy.typing import NDArray
from quality_data import CACHE, CELL_PX, SEA, Scene, bundled, cells, majority, patches, terramesh
from quality_models import FEATURES, PAIRS, SEE_RADAR, Features
from quality_scores import (
    Groups,
    Numbers,
    by_chance,
    explained,
    held_out,
    interval,
    macro_f1,
    quadrants,
    retrieval,
    standardised,
)

HEADING = "Is it any good?"
FEW_CELLS = 20
"""A class of fewer cells is left out of a scene."""
GAP_CELLS = 2
"""Cells so near to a block are not learnt from."""
FOLDS = 6
"""Of passes."""


@dataclass(frozen=True, eq=False)
class Data:
    """What there is to be scored on."""

    patches: list[Scene]
    scenes: list[Scene]

    @property
    def passes(self) -> Groups:
        """Of each patch, a number."""
        return np.unique([one.satellite_pass for one in self.patches], return_inverse=True)[1]

    @property
    def labels(self) -> NDArray[np.bool_]:
        """`[patch, label]`."""
        names = sorted(set().union(*(one.labels for one in self.patches)))
        return np.array([[name in one.labels for name in names] for one in self.patches])

    @property
    def one_pass(self) -> NDArray[np.int64]:
        """The patches of BigEarthNet v2: of one tile and day, with a known place."""
        return np.array([i for i, one in enumerate(self.patches) if one.lon_lat is not None])

    @property
    def land(self) -> NDArray[np.int64]:
        """Patches that are not all sea, whose backscatter the wind decides."""
        return np.array([i for i, one in enumerate(self.patches) if one.labels != SEA])


@dataclass(frozen=True, eq=False)
class Scores:
    """Of one kind of features. What could not be had is `None`."""

    name: str
    dim: int
    precision: dict[str, Numbers]
    """By "raw" and "z", of each patch as a query; empty where the place of some is not known."""
    likeness: Numbers | None
    one_pass: float | None
    """Mean average precision among the patches of one pass, z."""
    land_cover: dict[str, float]
    radar: tuple[Numbers, Numbers] | None
    """Of each land patch: squares left, and squares about the mean of the training patches, `[patch, 2]`."""
    radar_within: dict[str, float]

    def retrieved(self, some: NDArray[np.int64]) -> float:
        """Mean average precision of these queries, z."""
        return float(np.nanmean(self.precision["z"][some]))

    def radar_r2(self, some: NDArray[np.int64]) -> float:
        """R2 over these land patches."""
        assert self.radar is not None
        left, about = (part[some].sum(axis=0) for part in self.radar)
        return float((1 - left / about).mean())


def scored(name: str, features: Features, data: Data, *, sees_radar: bool = False) -> Scores | None:
    """All scores of one kind of features; `None` where they cannot be had here.

    Args:
        sees_radar: Then it is not asked to predict it.
    """
    of_scenes = [features(scene) for scene in data.scenes]
    of_patches = [features(scene) for scene in data.patches]
    found = [one for one in (*of_scenes, *of_patches) if one is not None]
    if not found:
        return None
    within = [(scene, x) for scene, x in zip(data.scenes, of_scenes, strict=True) if x is not None]
    whole = bool(of_patches) and all(one is not None for one in of_patches)
    vectors = np.array([x.mean(axis=0) for x in of_patches if x is not None])
    single = data.one_pass
    one_pass = None
    if len(single) and all(of_patches[i] is not None for i in single):
        some = np.array([np.mean(of_patches[i], axis=0) for i in single])
        among = retrieval(standardised(some), data.labels[single], np.arange(len(single)))
        one_pass = float(np.nanmean(among.precision))
    ranked = {}
    if whole:
        ranked = {
            "raw": retrieval(vectors, data.labels, data.passes),
            "z": retrieval(standardised(vectors), data.labels, data.passes),
        }
    return Scores(
        name,
        found[0].shape[1],
        {form: one.precision for form, one in ranked.items()},
        ranked["z"].likeness if whole else None,
        one_pass,
        {scene.name: land_cover(x, scene) for scene, x in within if scene.classes is not None},
        radar_across([x for x in of_patches if x is not None], data) if whole and not sees_radar else None,
        {} if sees_radar else {scene.name: radar_within(x, scene) for scene, x in within},
    )


def land_cover(x: Numbers, scene: Scene) -> float:
    """Macro-F1 of a linear probe, each quadrant of the scene by the three others."""
    assert scene.classes is not None
    truth = majority(scene.classes)
    names, index, count = np.unique(truth, return_inverse=True, return_counts=True)
    kept = count[index] >= FEW_CELLS
    folds, near = quadrants(*_grid(scene), GAP_CELLS)
    one_hot = (truth[kept, None] == names[count >= FEW_CELLS]).astype(float)
    said, _ = held_out(x[kept], one_hot, folds[kept], lambda block: near(block)[kept])
    return macro_f1(one_hot.argmax(axis=1), said.argmax(axis=1))


def radar_within(x: Numbers, scene: Scene) -> float:
    """R2 of VV and VH of each cell, each quadrant of the scene by the three others."""
    assert scene.s1 is not None
    folds, near = quadrants(*_grid(scene), GAP_CELLS)
    y = cells(scene.s1)
    return explained(y, *held_out(x, y, folds, near, bounded=True))


def radar_across(of_patches: Sequence[Numbers], data: Data) -> tuple[Numbers, Numbers]:
    """Squares of the errors of VV and VH of each land patch, predicted from patches of other passes.

    Of a cell's deviation from the mean of its patch, by that of its features: angle and weather move whole patches.
    """
    land = data.land
    y = [cells(data.patches[i].s1) for i in land]  # type: ignore[arg-type]  # all patches have both
    y = [one - one.mean(axis=0) for one in y]
    owner = np.repeat(np.arange(len(land)), [len(one) for one in y])
    folds = np.unique(data.passes[land], return_inverse=True)[1] % FOLDS
    truth = np.concatenate(y)
    x = np.concatenate([of_patches[i] - of_patches[i].mean(axis=0) for i in land])
    said, mean = held_out(x, truth, folds[owner], bounded=True)
    squares = [(truth - said) ** 2, (truth - mean) ** 2]
    left, about = (np.array([one[owner == i].sum(axis=0) for i in range(len(land))]) for one in squares)
    return left, about


def _grid(scene: Scene) -> tuple[int, int]:
    return scene.s2.shape[1] // CELL_PX, scene.s2.shape[2] // CELL_PX


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def table(scores: Sequence[Scores], data: Data) -> list[str]:
    """One row for each kind of features."""
    scenes = [scene.name for scene in data.scenes]
    mapped = [scene.name for scene in data.scenes if scene.classes is not None]
    passes, land_passes = data.passes.tolist(), data.passes[data.land].tolist()
    head = ["features", "dim", "retrieval, raw", "retrieval, z (95 %)", "labels of the nearest", "one pass"]
    head += [f"land cover, {name}" for name in mapped] + ["radar across passes (95 %)"]
    head += [f"radar, {name}" for name in scenes]
    rows = [head, ["---"] * len(head)]
    for one in scores:
        row = [one.name, str(one.dim)]
        if one.precision:
            low, high = interval(passes, one.retrieved)
            row += [_number(float(np.nanmean(one.precision["raw"])))]
            row += [f"{np.nanmean(one.precision['z']):.2f} ({low:.2f} to {high:.2f})", _number(np.mean(one.likeness))]
        else:
            row += ["", "", ""]
        row += [_number(one.one_pass), *(_number(one.land_cover.get(name)) for name in mapped)]
        if one.radar is None:
            row += [""]
        else:
            low, high = interval(land_passes, one.radar_r2)
            row += [f"{one.radar_r2(np.arange(len(data.land))):.2f} ({low:.2f} to {high:.2f})"]
        rows.append([*row, *(_number(one.radar_within.get(name)) for name in scenes)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def comparisons(scores: Sequence[Scores], pairs: Sequence[tuple[str, str]], data: Data) -> list[str]:
    """Differences of two kinds of features on the same patches, with intervals of the difference."""
    by_name = {one.name: one for one in scores}
    passes, land_passes = data.passes.tolist(), data.passes[data.land].tolist()
    rows = ["| Difference | retrieval, z (95 %) | radar across passes (95 %) |", "| --- | --- | --- |"]
    for better, other in pairs:
        if better not in by_name or other not in by_name:
            continue
        one, two = by_name[better], by_name[other]
        if one.radar is None or two.radar is None:
            continue
        parts: list[tuple[Callable[[NDArray[np.int64]], float], list[int]]] = [
            (lambda some, a=one, b=two: a.retrieved(some) - b.retrieved(some), passes),
            (lambda some, a=one, b=two: a.radar_r2(some) - b.radar_r2(some), land_passes),
        ]
        shown = []
        for difference, groups in parts:
            low, high = interval(groups, difference)
            shown.append(f"{difference(np.arange(len(groups))):+.2f} ({low:+.2f} to {high:+.2f})")
        rows.append(f"| {better} minus {other} | " + " | ".join(shown) + " |")
    return rows


def chance_row(data: Data) -> str:
    """What retrieval gives for vectors that mean nothing."""
    single = data.one_pass
    over = by_chance(data.labels, data.passes)
    among = by_chance(data.labels[single], np.arange(len(single)))
    return (
        f"Chance: retrieval {np.nanmean(over.precision):.2f}, labels of the nearest {np.mean(over.likeness):.2f}, "
        f"one pass {np.nanmean(among.precision):.2f}; radar 0."
    )


def main() -> None:
    """Score what there is, print it, and replace the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="names of features, as the shell has it; then only printed")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where downloaded packages are kept")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    data = Data(patches(given.cache), [*terramesh(), bundled()])
    scores = []
    for name, features in FEATURES.items():
        if fnmatch(name, given.only):
            start = time.perf_counter()
            found = scored(name, features, data, sees_radar=name in SEE_RADAR)
            print(f"{name}: {'not to be had' if found is None else f'{time.perf_counter() - start:.0f} s'}", flush=True)
            scores += [] if found is None else [found]
    lines = table(scores, data)
    if data.patches:
        lines += ["", chance_row(data), "", *comparisons(scores, PAIRS, data)]
    about = (
        f"{date.today()}, {chip()}, {versions()}, by `python benchmarks/quality.py`, one thread. "
        f"{len(data.patches)} patches of {len(set(data.passes.tolist()))} passes, {len(data.scenes)} scenes. To "
        "read the columns, see [Is it any good?](../docs/quality.md)."
    )
    text = f"## {HEADING}\n\n{about}\n\n" + "\n".join(lines) + "\n"
    print(text)
    if given.only == "*":
        replace_section(HEADING, text)


if __name__ == "__main__":
    main()
