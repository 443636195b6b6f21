"""The scores of `benchmarks/quality.py` on made-up data whose answer is known by hand."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        import quality
        import quality_data
        import quality_scores

        yield quality, quality_data, quality_scores


@pytest.fixture
def quality(modules):
    return modules[0]


@pytest.fixture
def data(modules):
    return modules[1]


@pytest.fixture
def scores(modules):
    return modules[2]


def test_average_precision_is_the_mean_precision_at_each_hit(scores):
    assert scores.average_precision(np.array([True, False, True, False])) == pytest.approx((1 + 2 / 3) / 2)
    assert scores.average_precision(np.array([False, True])) == pytest.approx(1 / 2)
    assert np.isnan(scores.average_precision(np.array([False, False])))


def test_jaccard_is_what_two_share_of_all_that_they_have(scores):
    labels = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    found = scores.jaccard(labels)
    np.testing.assert_allclose(found[0], [1, 1 / 3, 0, 0])
    np.testing.assert_allclose(found[1, 2], 1 / 2)


def test_the_nearest_are_of_other_passes_only(scores):
    vectors = np.array([[1, 0], [1, 0.01], [1, 0.5], [0, 1]])
    ranked = scores.ranking(vectors, np.array([0, 0, 1, 2]))
    assert [order.tolist() for order in ranked] == [[2, 3], [2, 3], [1, 0, 3], [2, 1, 0]]


def test_retrieval_of_vectors_that_tell_the_labels_is_perfect_and_of_others_by_chance(scores):
    labels = np.eye(3, dtype=bool)[np.arange(12) % 3]
    groups = np.arange(12)
    perfect = scores.retrieval(labels.astype(float), labels, groups)
    np.testing.assert_allclose(perfect.precision, 1)
    np.testing.assert_allclose(perfect.likeness, 1)
    assert np.mean(scores.by_chance(labels, groups, draws=50).likeness) == pytest.approx(3 / 11, abs=0.05)


def test_standardised_columns_have_mean_0_and_std_1_and_constant_ones_are_0(scores):
    values = np.random.default_rng(0).normal(5, 3, (50, 2))
    found = scores.standardised(np.hstack([values, np.full((50, 1), 7.0)]))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), [1, 1, 0], atol=1e-12)


def test_a_linear_truth_is_found_on_folds_held_out_and_noise_is_not(scores):
    chance = np.random.default_rng(0)
    x = chance.uniform(-1, 1, (400, 5))
    y = x @ chance.normal(size=(5, 2)) + 3
    folds = np.arange(400) % 4
    assert scores.explained(y, *scores.held_out(x, y, folds)) > 0.999
    noise = chance.normal(size=(400, 2))
    assert abs(scores.explained(noise, *scores.held_out(x, noise, folds))) < 0.1


def test_predictions_may_be_kept_within_what_was_learnt(scores):
    x = np.random.default_rng(0).normal(size=(300, 1))
    y, folds = 5 * x, np.repeat([0, 1, 2], 100)
    x[0] = 3 * x[100:].max()
    free, kept = (scores.held_out(x, y, folds, bounded=bounded)[0] for bounded in (False, True))
    assert free[0, 0] > kept[0, 0] == pytest.approx(np.percentile(y[100:], 99))


def test_what_is_near_a_fold_is_not_learnt_from(scores):
    x = np.arange(8.0)[:, None]
    y = np.array([[0.0], [0], [0], [0], [9], [9], [0], [0]])
    folds = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    _, means = scores.held_out(x, y, folds, near=lambda fold: folds == (fold + 1) % 4)
    np.testing.assert_allclose(means[:, 0], [4.5, 4.5, 0, 0, 0, 0, 4.5, 4.5])


def test_f1_is_the_mean_over_the_classes_that_there_are(scores):
    truth, said = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    assert scores.macro_f1(truth, said) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_quadrants_are_four_and_their_margin_is_around_them(scores):
    blocks, near = scores.quadrants(6, 4, gap=1)
    np.testing.assert_array_equal(
        blocks.reshape(6, 4)[[0, 2, 3, 5]][:, [0, 1, 2, 3]][:, ::3], [[0, 1], [0, 1], [2, 3], [2, 3]]
    )
    expected = np.zeros((6, 4), bool)
    expected[2:, 1:] = True
    np.testing.assert_array_equal(near(3).reshape(6, 4), expected)


def test_an_interval_draws_whole_passes(scores):
    values = np.array([0.0] * 90 + [1.0] * 10)
    one_pass_each = scores.interval(range(100), lambda some: values[some].mean())
    two_passes = scores.interval([0] * 90 + [1] * 10, lambda some: values[some].mean())
    assert one_pass_each[1] - one_pass_each[0] < 0.15
    assert two_passes == (0, 1)  # two passes tell next to nothing
    assert scores.interval(range(100), lambda some: values[some].mean()) == one_pass_each


def test_cells_are_means_and_majorities_row_by_row(data):
    values = np.arange(2 * 4 * 6).reshape(2, 4, 6)
    found = data.cells(values, 2)
    np.testing.assert_allclose(found[:, 0], [3.5, 5.5, 7.5, 15.5, 17.5, 19.5])
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 24)
    classes = np.array([[1, 1, 2, 3], [1, 2, 3, 3]])
    np.testing.assert_array_equal(data.majority(classes, 2), [1, 3])


def test_names_of_patches_tell_their_pass(data):
    names = ["S2B_MSIL2A_20170906T101019_27_42", "S2B_MSIL2A_20170906T101020_74_19", "S2A_MSIL2A_20180413T95032_90_7"]
    passes = [data._pass(name) for name in names]
    assert passes[0] == passes[1] == "S2B_20170906T10" and passes[2] == "S2A_20180413T09"
    assert data._day(names[2]) == date(2018, 4, 13)


def made_up(data, seed: int, labels: frozenset[str], place: tuple[float, float] | None):
    """Radar that follows one optical band, and land cover that follows another."""
    chance = np.random.default_rng(seed)
    coarse = chance.uniform(0, 3000, (12, 8, 8))
    s2 = np.kron(coarse, np.ones((8, 8))).astype(np.float32)
    classes = np.kron((coarse[5] > 1500).astype(np.int64) + 1, np.ones((8, 8), np.int64))
    return data.Scene(f"s{seed}", f"p{seed // 2}", date(2020, 6, 1), s2, s2[:2] / 300 - 20, labels, classes, place)


def test_features_that_hold_the_answer_score_well_and_those_that_hold_none_do_not(quality, data):
    kinds = [frozenset({"forest", "water"}), frozenset({"town"})]
    patches = [made_up(data, i, kinds[i % 2], (12.0 + i, 47.0) if i < 6 else None) for i in range(16)]
    for patch in patches[1::2]:
        patch.s2[7:] += 6000
    made = quality.Data(patches, [made_up(data, 99, frozenset(), (12.0, 47.0))])
    told = quality.scored("pixels", lambda scene: data.cells(scene.s2), made)
    assert np.nanmean(told.precision["z"]) > 0.9
    assert told.radar_r2(np.arange(16)) > 0.9 and told.radar_within["s99"] > 0.9
    assert told.land_cover["s99"] > 0.8
    noise = np.random.default_rng(0)
    blind = quality.scored("noise", lambda scene: noise.normal(size=(64, 6)), made)
    assert abs(blind.radar_r2(np.arange(16))) < 0.3
    assert np.nanmean(blind.precision["z"]) < 0.8
    assert quality.scored("radar too", lambda scene: data.cells(scene.s2), made, sees_radar=True).radar is None
    rows = quality.table([told, blind], made)
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    (_, _, row) = quality.comparisons([told, blind], [("pixels", "noise"), ("pixels", "none")], made)
    assert row.startswith("| pixels minus noise | +")


def test_features_without_a_place_are_left_out_of_what_needs_all_patches(quality, data):
    kinds = [frozenset({"a"}), frozenset({"b"})]
    patches = [made_up(data, i, kinds[i % 2], (12.0 + i, 47.0) if i < 8 else None) for i in range(12)]
    made = quality.Data(patches, [])
    placed = quality.scored(
        "place", lambda scene: None if scene.lon_lat is None else np.full((64, 1), scene.lon_lat[0]), made
    )
    assert placed.precision == {} and placed.radar is None and placed.one_pass is not None
    assert quality.scored("none", lambda scene: None, made) is None
