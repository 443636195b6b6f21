"""Areas with their sampling error."""

import numpy as np
import pytest
from affine import Affine
from made_heads import CELL_M, MADE, points, truth
from odc.geo.geobox import GeoBox

from rs_embed.errors import SpecError
from rs_embed.learning.areas import cell_areas, estimated
from rs_embed.learning.labels import read_labels

PAPER = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
"""Olofsson et al. 2014, table 8: deforestation, forest gain, stable forest, stable non-forest; the map in rows."""
SHARES = np.array([200_000, 150_000, 3_200_000, 6_450_000]) / 10_000_000
TOTAL_HA = 10_000_000 * 30 * 30 / 10_000


def test_the_worked_example_of_the_paper_comes_out():
    found = estimated(SHARES, PAPER)
    half = 1.959964 * found.error * TOTAL_HA
    np.testing.assert_allclose(found.share * TOTAL_HA, [21_158, 11_686, 285_770, 581_386], atol=1)
    np.testing.assert_allclose(half, [6_158, 3_756, 15_510, 16_282], atol=5)
    np.testing.assert_allclose(found.users, [0.88, 0.73, 0.93, 0.96], atol=0.005)
    np.testing.assert_allclose(found.producers, [0.75, 0.85, 0.93, 0.96], atol=0.005)
    assert found.overall == pytest.approx(0.947, abs=0.001)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(0)
    truth_of, said = draw.random(100_000) < 0.3, np.zeros(100_000, bool)
    said = truth_of ^ (draw.random(100_000) < np.where(truth_of, 0.25, 0.1))
    shares = np.array([(~said).mean(), said.mean()])
    inside = 0
    for _ in range(400):
        some = draw.choice(100_000, 200, replace=False)
        matrix = np.bincount(said[some] * 2 + truth_of[some], minlength=4).reshape(2, 2)
        found = estimated(shares, matrix)
        inside += abs(found.share[1] - truth_of.mean()) <= 1.959964 * found.error[1]
    assert 0.91 < inside / 400 < 0.98


def test_cells_are_measured_on_the_ellipsoid():
    utm = GeoBox((10, 10), Affine(100, 0, 500_000, 0, -100, 5_300_000), "EPSG:32633")
    np.testing.assert_allclose(cell_areas(utm), 10_000 / 0.9996**2, rtol=1e-6)
    mercator = GeoBox((400, 10), Affine(1000, 0, 0, 0, -1000, 9_000_000), "EPSG:3857")
    areas = cell_areas(mercator)
    assert areas[0] < areas[-1] < 0.25e6 and len(areas) == 400  # at 60 degrees, a side is half as long
    degrees = GeoBox((3, 3), Affine(1, 0, 10, 0, -1, 2), "EPSG:4326")
    np.testing.assert_allclose(cell_areas(degrees)[1], 12_308.8e6, rtol=1e-3)


def reference(count=200, seed=5, skewed=False):
    draw = np.random.default_rng(seed)
    rows, cols = draw.integers(4, MADE.rows, count), draw.integers(0, MADE.columns, count)
    rows = rows // 4 + 4 if skewed else rows
    return read_labels(points(rows, cols, truth(rows, cols)), "cover", buffer_m=10)


def test_without_a_random_sample_no_area_is_estimated_and_the_table_says_why(head, region):
    found = head.map(region).areas()
    assert list(found.table) == ["class", "cells", "mapped_ha", "labels", "users_accuracy", "producers_accuracy"]
    assert found.table["cells"].sum() == MADE.rows * MADE.columns - 1
    np.testing.assert_allclose(found.table["mapped_ha"], found.table["cells"] * CELL_M**2 / 1e4, rtol=1e-3)
    assert "If the labels are a random sample" in str(found) and "counts of cells" in str(found)
    np.testing.assert_array_equal(found.table["labels"], list(head.facts.support.values()))


@pytest.mark.slow
def test_a_random_sample_corrects_the_areas_and_gives_intervals(head, region, tmp_path):
    whole = head.map(region, tmp_path / "cover.tif")
    rows, cols = np.indices((MADE.rows, MADE.columns))
    names, counts = np.unique(truth(rows, cols), return_counts=True)
    true_ha = dict(zip(names.tolist(), counts * CELL_M**2 / 1e4, strict=True))
    for found in (whole.areas(reference(), sample="random"), whole.areas(sample="random")):
        table = found.table.set_index("class")
        for name in names:
            row = table.loc[name]
            assert row.low_ha <= row.estimated_ha <= row.high_ha
            assert row.low_ha - 20 <= true_ha[name] <= row.high_ha + 20
        assert table["estimated_ha"].sum() == pytest.approx(table["mapped_ha"].sum())
        assert "random sample" in str(found) and "Olofsson" in str(found)
    assert "200 reference labels" in str(whole.areas(reference(), sample="stratified"))


def test_what_cannot_be_estimated_is_said(head, region):
    whole = head.map(region)
    few = reference(skewed=True)
    found = whole.areas(few.take(np.flatnonzero(few.targets == 0)[:5]), sample="random")
    assert found.table["estimated_ha"].isna().all() and "Fewer than two labels" in str(found)
    away = read_labels(points([5, 400, 6], [5, 5, 40], ["meadow", "water", "meadow"]), "cover", buffer_m=10)
    assert "1 reference labels lie outside" in str(whole.areas(away))
    other = read_labels(points([5, 6], [5, 5], ["meadow", "sea"]), "cover", buffer_m=10)
    with pytest.raises(SpecError, match="got sea"):
        whole.areas(other)
    with pytest.raises(SpecError, match="Expected sample to be one of random, stratified"):
        whole.areas(sample="clustered")
