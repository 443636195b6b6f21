"""The area of each class of a map, with its sampling error."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.checks import require_choice
from rs_embed.core.geo import project
from rs_embed.embedding.points import cells_of
from rs_embed.errors import SpecError
from rs_embed.exports.results.map_level import Cells, ground
from rs_embed.learning.labels import Labels, read_labels
from rs_embed.learning.sampling import with_size
from rs_embed.places import Given

if TYPE_CHECKING:
    import pandas as pd

    from rs_embed.learning.class_map import ClassMap

Sample = Literal["random", "stratified"]
"""How labels were placed: at random in the area, or at random within each class of the map."""
_Z95 = 1.959964
"""Half the width of a 95 % confidence interval, standard errors."""
_M2_PER_HA = 10_000.0
_NODES = 129
"""Rows at which the area of a cell is computed; between them it is interpolated."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Areas and accuracies from an error matrix, each `[K]`, as shares of the whole area."""

    share: NDArray[np.float64]
    """Estimated share of each class."""
    error: NDArray[np.float64]
    """Its standard error."""
    users: NDArray[np.float64]
    """User's accuracy: the share of what the map calls a class that is of that class."""
    producers: NDArray[np.float64]
    """Producer's accuracy: the share of the area of a class that the map calls so."""
    overall: float


@dataclass(frozen=True, eq=False)
class Areas:
    """The area of each class. `print` it for a table with notes."""

    table: "pd.DataFrame"
    """One row per class: `class`, `cells`, `mapped_ha`, `labels` (reference labels of the class), `users_accuracy`,
    `producers_accuracy`, and, for a random sample, `estimated_ha` with `low_ha` and `high_ha`, its 95 % interval."""
    notes: tuple[str, ...]
    """What the numbers mean, and what they do not."""

    def __str__(self) -> str:
        text = self.table.to_string(
            index=False, float_format=lambda value: f"{value:,.3g}" if value < 1 else f"{value:,.1f}"
        )
        return "\n".join([text, *(f"- {note}" for note in self.notes)])

    __repr__ = __str__


def areas_of(whole: "ClassMap", reference: "Given | Labels | None", sample: Sample | None) -> Areas:
    """See `ClassMap.areas`."""
    import pandas as pd

    if sample is not None:
        require_choice("sample", sample, get_args(Sample))
    if whole.facts.kind != "classes":
        raise SpecError(f"Expected a map of classes, got one of kind {whole.facts.kind!r}.", fix="fit classes")
    cells, mapped_m2 = measured(whole)
    matrix, notes = _matrix(whole, reference)
    if reference is None and sample is not None and whole.facts.vectors != whole.facts.places:
        notes.append("Some labels are polygons. Each counts once, whatever its size; a random sample has points.")
    shares = mapped_m2 / mapped_m2.sum() if mapped_m2.sum() else mapped_m2
    table = {"class": list(whole.classes), "cells": cells, "mapped_ha": mapped_m2 / _M2_PER_HA}
    if matrix is not None:
        notes += _few(whole.classes, shares, matrix)
        found = estimated(shares, matrix)
        table |= {"labels": matrix.sum(axis=0)}
        if sample is None:  # accuracies of the labels alone: they say nothing of the area
            with np.errstate(invalid="ignore"):
                users = matrix.diagonal() / matrix.sum(axis=1)
                producers = matrix.diagonal() / matrix.sum(axis=0)
            table |= {"users_accuracy": users, "producers_accuracy": producers}
            notes.append(
                "The areas are counts of cells, which take the errors of the map for truth. Accuracies are shares of "
                "the labels. If the labels are a random sample of this area, pass sample='random' for estimates of "
                "the true areas with confidence intervals; otherwise none can be given."
            )
        else:
            estimate, half = (
                found.share * mapped_m2.sum() / _M2_PER_HA,
                _Z95 * found.error * mapped_m2.sum() / _M2_PER_HA,
            )
            table |= {"estimated_ha": estimate, "low_ha": np.maximum(0, estimate - half), "high_ha": estimate + half}
            table |= {"users_accuracy": found.users, "producers_accuracy": found.producers}
            notes.append(
                f"Estimated areas correct the counts by the error matrix (Olofsson et al. 2014), with 95 % intervals; "
                f"overall accuracy by area {found.overall:.3f}. They hold if the labels are a {sample} sample of the "
                "area of this map, and were true on the ground."
            )
    return Areas(pd.DataFrame(table), tuple(notes))


def estimated(shares: NDArray[np.float64], matrix: NDArray[np.integer]) -> Estimate:
    """Estimate the area of each class from a sample of labels, stratified by the classes of the map.

    Args:
        shares: `[K]`: share of the map that each class covers; they add up to 1.
        matrix: `[K, K]`: labels of a class of the map (row) that truly are of a class (column). A class that covers
            a part of the map needs at least two labels, else its errors, and so all estimates, are unknown (NaN).

    Source: Olofsson et al. 2014, https://doi.org/10.1016/j.rse.2014.02.015, equations 1 to 11.
    """
    counts = matrix.sum(axis=1).astype(np.float64)
    known = (counts >= 2) | (shares == 0)
    within = np.divide(matrix, counts[:, None], out=np.zeros(matrix.shape), where=counts[:, None] > 0)
    within[~known] = np.nan
    joint = shares[:, None] * within
    spread = np.square(shares)[:, None] * within * (1 - within) / np.maximum(counts - 1, 1)[:, None]
    truth = joint.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        users = np.where(counts > 0, within.diagonal(), np.nan)
        producers = joint.diagonal() / truth
    return Estimate(truth, np.sqrt(spread.sum(axis=0)), users, producers, float(joint.diagonal().sum()))


def measured(whole: "ClassMap") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the number of cells and the area of each class, square metres on the ellipsoid, `[K]`."""
    count = len(whole.classes) + 1
    cells, area = np.zeros(count, np.int64), np.zeros(count)
    cell_m2 = cell_areas(whole.geobox)
    for strip in whole.strips():
        codes = whole.read(strip)[0].astype(np.int64)
        row = np.broadcast_to(np.arange(strip.height)[:, None], codes.shape)
        counts = np.bincount((row * count + codes).ravel(), minlength=strip.height * count).reshape(-1, count)
        cells += counts.sum(axis=0)
        area += cell_m2[strip.rows] @ counts
    return cells[1:], area[1:]


def cell_areas(geobox: GeoBox) -> NDArray[np.float64]:
    """Return the area of the middle cell of each row on the WGS 84 ellipsoid, square metres, `[H]`."""
    from pyproj import Geod

    height, width = geobox.shape
    nodes = np.unique(np.linspace(0, height - 1, min(height, _NODES)).round().astype(int))
    rows = nodes[:, None] + np.array([0, 0, 1, 1])
    cols = width // 2 + np.array([0, 1, 1, 0]) + np.zeros_like(rows)
    lon, lat = project(*ground(geobox, rows, cols), str(geobox.crs), "EPSG:4326")
    geod = Geod(ellps="WGS84")
    areas = [abs(geod.polygon_area_perimeter(*corners)[0]) for corners in zip(lon, lat, strict=True)]
    return np.interp(np.arange(height), nodes, areas)


def codes_at(whole: "ClassMap", lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the code of the class under each point, 0 outside of the map and on nodata."""
    rows, cols = cells_of(whole.geobox, lon, lat)
    return np.array(
        [
            int(whole.read(Cells(row, col, 1, 1))[0, 0, 0]) if row >= 0 else 0
            for row, col in zip(rows.tolist(), cols.tolist(), strict=True)
        ],
        np.int64,
    )


def _matrix(whole: "ClassMap", reference: "Given | Labels | None") -> tuple[NDArray[np.int64] | None, list[str]]:
    """Return the error matrix, map classes in rows and true classes in columns, and what it is made of."""
    if reference is None:
        validation = whole.facts.validation
        if validation is None or validation.confusion is None:
            return None, ["The head was not scored, so errors are not known; pass labels as reference."]
        return np.array(validation.confusion, np.int64).T, [
            "The error matrix is that of the head's own labels, each predicted by a head that was not trained near it. "
            "The map is made by a head trained on all of them, which is likely a little better."
        ]
    if not isinstance(reference, Labels):
        table, half_m = with_size(reference, 1.0)
        reference = read_labels(table, whole.facts.column, kind="classes", buffer_m=half_m)
    wrong = set(reference.classes) - set(whole.classes)
    if reference.kind != "classes" or wrong:
        got = ", ".join(sorted(wrong)) or reference.kind
        raise SpecError(
            f"Expected labels of the classes {', '.join(whole.classes)}, got {got}.", fix="use the same names"
        )
    number = {name: at for at, name in enumerate(whole.classes)}
    truth = np.array([number[name] for name in reference.classes], np.int64)[reference.targets.astype(np.int64)]
    mapped = codes_at(whole, *reference.places.centres())
    there = mapped > 0
    count = len(whole.classes)
    pairs = (mapped[there] - 1) * count + truth[there]
    notes = [f"The error matrix compares the map with {int(there.sum()):,} reference labels."]
    if not there.all():
        notes.append(f"{int((~there).sum()):,} reference labels lie outside of the map or on nodata.")
    return np.bincount(pairs, minlength=count * count).reshape(count, count), notes


def _few(classes: tuple[str, ...], shares: NDArray[np.float64], matrix: NDArray[np.int64]) -> list[str]:
    few = [
        name for name, share, count in zip(classes, shares, matrix.sum(axis=1), strict=True) if share > 0 and count < 2
    ]
    if not few:
        return []
    return [f"Fewer than two labels lie where the map shows {', '.join(few)}: areas cannot be estimated."]
