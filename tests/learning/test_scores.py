"""Scores equal scikit-learn's; their intervals draw blocks, and two models are compared over the same draws."""

import numpy as np
import pytest
from sklearn import metrics

from rs_embed.learning.scores import DRAWS, Draws, Interval, Predicted, difference, intervals, recalls, scores_of

N = 240


def predicted(kind, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    if kind == "number":
        targets = rng.normal(5, 2, N)
        return Predicted(kind, targets, (targets + rng.normal(0, noise, N))[:, None])
    if kind == "classes":
        targets = rng.choice(4, N, p=[0.6, 0.25, 0.1, 0.05])
        answers = np.eye(4)[targets] + noise * rng.random((N, 4)) * 1.5
        return Predicted(kind, targets, answers / answers.sum(axis=1, keepdims=True))
    targets = rng.random((N, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]
    return Predicted(kind, targets, np.round(np.clip(targets * 0.4 + noise * rng.random((N, 5)) * 0.6, 0, 1), 1))


def blocks(count=24):
    return np.arange(N) // (N // count)


@pytest.mark.parametrize("kind", ["classes", "number", "multilabel"])
def test_scores_equal_scikit_learns(kind):
    found = predicted(kind)
    mine = {name: values[0] for name, values in scores_of(found, Draws.of(blocks())).items()}
    truth, said = found.targets, found.decided
    wanted = {
        "classes": lambda: {
            "balanced accuracy": metrics.balanced_accuracy_score(truth, said),
            "macro F1": metrics.f1_score(truth, said, average="macro"),
            "accuracy": metrics.accuracy_score(truth, said),
        },
        "number": lambda: {
            "R2": metrics.r2_score(truth, said),
            "RMSE": metrics.root_mean_squared_error(truth, said),
            "MAE": metrics.mean_absolute_error(truth, said),
        },
        "multilabel": lambda: {
            "mAP": metrics.average_precision_score(truth, found.answers, average="macro"),
            "macro F1": metrics.f1_score(truth, said, average="macro", zero_division=0),
            "micro F1": metrics.f1_score(truth, said, average="micro"),
        },
    }[kind]()
    assert mine == pytest.approx(wanted, rel=1e-9) and list(mine) == list(wanted)


@pytest.mark.parametrize("kind", ["classes", "number", "multilabel"])
def test_a_draw_is_the_score_of_the_blocks_that_it_took(kind):
    found, draws = predicted(kind), Draws.of(blocks(), seed=3)
    taken = np.repeat(np.arange(N), draws.taken[7].astype(int)[blocks()])
    again = Predicted(kind, found.targets[taken], found.answers[taken])

    drawn = {name: values[7] for name, values in scores_of(found, draws).items()}
    alone = {name: values[0] for name, values in scores_of(again, Draws.of(np.zeros(len(taken), int))).items()}
    assert drawn == pytest.approx(alone, rel=1e-9)


def test_the_interval_of_an_accuracy_is_as_wide_as_theory_says_and_grows_with_the_blocks():
    rng = np.random.default_rng(1)
    right = rng.random(N) < 0.7
    found = Predicted("classes", np.zeros(N, int), np.eye(2)[np.where(right, 0, 1)])
    alone = intervals(scores_of(found, Draws.of(np.arange(N))))["accuracy"]
    assert alone.half == pytest.approx(1.96 * np.sqrt(0.7 * 0.3 / N), rel=0.15)

    same = Predicted("classes", np.zeros(N, int), np.eye(2)[np.where(np.repeat(right[:24], 10), 0, 1)])
    assert intervals(scores_of(same, Draws.of(blocks())))["accuracy"].half > 2 * alone.half


def test_a_small_difference_between_two_models_shows_where_their_intervals_overlap():
    """One is right wherever the other is, and in one more place of each block."""
    right = np.random.default_rng(2).random(N) < 0.6
    better = right | (np.arange(N) % 10 == 0)
    draws = Draws.of(blocks())
    one, other = (
        scores_of(Predicted("classes", np.zeros(N, int), np.eye(2)[np.where(answers, 0, 1)]), draws)["accuracy"]
        for answers in (better, right)
    )
    gap = difference(one, other)
    assert gap.low > 0 and intervals({"a": one})["a"].low < intervals({"a": other})["a"].high
    assert difference(one, one).half == 0 and len(one) == DRAWS + 1


def test_a_difference_counts_only_if_both_of_its_intervals_leave_out_0():
    assert [Interval(*one).sign for one in ((0.1, 0.05, 0.2), (-0.1, -0.2, -0.05), (0.1, -0.05, 0.2))] == [1, -1, 0]
    assert Interval(-0.06, -0.18, -0.01).sign == 0  # ± 0.085
    assert Interval(0.1, np.nan, np.nan).sign == 0


def test_a_class_that_is_never_found_has_a_recall_of_zero_and_one_without_places_none():
    found = Predicted("classes", np.array([0, 0, 1]), np.array([[0.9, 0.1, 0.0]] * 3))

    np.testing.assert_array_equal(recalls(found), [1, 0, np.nan])
    np.testing.assert_array_equal(found.confusion(), [[2, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert scores_of(found, Draws.of(np.arange(3)))["balanced accuracy"][0] == 0.5
