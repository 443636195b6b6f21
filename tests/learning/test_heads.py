"""What heads learn and predict, held against scikit-learn's own classes."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from rs_embed.errors import SpecError
from rs_embed.learning.heads import HEADS, SEARCHED, UNSEARCHED, Targets, fit_head, search

DIM, CLASSES = 12, 4


def made(count=120, seed=0):
    """Vectors around one centre per class, a number and three labels that follow from them."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, CLASSES, count)
    centres = np.random.default_rng(7).standard_normal((CLASSES, DIM))
    x = (centres[y] + draw.standard_normal((count, DIM))) * np.linspace(0.1, 30, DIM) + 5
    slope = np.random.default_rng(8).standard_normal(DIM)
    number = (x / np.linspace(0.1, 30, DIM)) @ slope + 100 + 0.1 * draw.standard_normal(count)
    labels = np.stack([y == 0, (y == 1) | (x[:, 0] > 5), x[:, 1] > 7], axis=1)
    return x.astype(np.float32), y, number, labels


def folds(count, parts=4):
    of = np.arange(count) % parts
    return [(np.flatnonzero(of != part), np.flatnonzero(of == part)) for part in range(parts)]


def standardised(model):
    return make_pipeline(StandardScaler(), model)


def test_logistic_predicts_what_scikit_learn_predicts():
    x, y, _, _ = made()
    other, _, _, _ = made(seed=1)
    head = fit_head("logistic", x, Targets("classes", y, CLASSES), 0.1)
    theirs = standardised(LogisticRegression(C=0.1, max_iter=500)).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(head.proba(other), theirs.predict_proba(other.astype(np.float64)), atol=1e-9)
    np.testing.assert_array_equal(head.predict(other), theirs.predict(other))
    assert head.arrays["weights"].shape == (CLASSES, DIM)


def test_logistic_of_two_of_three_classes_never_predicts_the_third():
    x, y, _, _ = made()
    two = y < 2
    head = fit_head("logistic", x[two], Targets("classes", y[two] * 2, 3), 1.0)
    theirs = standardised(LogisticRegression(C=1.0, max_iter=500)).fit(x[two].astype(np.float64), y[two] * 2)
    np.testing.assert_allclose(head.proba(x)[:, [0, 2]], theirs.predict_proba(x.astype(np.float64)), atol=1e-9)
    assert (head.proba(x)[:, 1] == 0).all()


def test_logistic_of_one_class_is_sure_of_it():
    x, _, _, _ = made(20)
    head = fit_head("logistic", x, Targets("classes", np.ones(20, np.int64), 3), 1.0)
    np.testing.assert_array_equal(head.proba(x), np.tile([0.0, 1.0, 0.0], (20, 1)))


def test_logistic_of_several_labels_is_one_model_per_label():
    x, _, _, labels = made()
    labels = np.column_stack([labels, np.ones(len(x), bool), np.zeros(len(x), bool)])
    head = fit_head("logistic", x, Targets("multilabel", labels, 5), 0.1)
    for label in range(3):
        theirs = standardised(LogisticRegression(C=0.1, max_iter=500)).fit(x.astype(np.float64), labels[:, label])
        np.testing.assert_allclose(head.proba(x)[:, label], theirs.predict_proba(x.astype(np.float64))[:, 1], atol=1e-9)
        np.testing.assert_array_equal(head.predict(x)[:, label], theirs.predict(x.astype(np.float64)))
    assert (head.proba(x)[:, 3:] == [1, 0]).all()


@pytest.mark.parametrize("count", [120, 9])
def test_ridge_predicts_what_scikit_learn_predicts(count):
    x, _, number, _ = made(count)
    other, _, _, _ = made(seed=1)
    head = fit_head("ridge", x, Targets("number", number, 1), 10.0)
    theirs = standardised(Ridge(alpha=10.0)).fit(x.astype(np.float64), number)
    np.testing.assert_allclose(head.predict(other), theirs.predict(other.astype(np.float64)), rtol=1e-9)


@pytest.mark.parametrize("k", [1, 5])
def test_knn_predicts_what_scikit_learn_predicts(k):
    x, y, number, labels = made()
    other, _, _, _ = made(seed=1)
    for kind, targets, outputs in (("classes", y, CLASSES), ("multilabel", labels, 3)):
        head = fit_head("knn", x, Targets(kind, targets, outputs), k)
        theirs = make_pipeline(Normalizer(), KNeighborsClassifier(k)).fit(x.astype(np.float64), targets)
        shares = theirs.predict_proba(other.astype(np.float64))
        shares = shares if kind == "classes" else np.stack([one[:, 1] for one in shares], axis=1)
        np.testing.assert_allclose(head.proba(other), shares)
        np.testing.assert_array_equal(head.predict(other), theirs.predict(other.astype(np.float64)))
    head = fit_head("knn", x, Targets("number", number, 1), k)
    theirs = make_pipeline(Normalizer(), KNeighborsRegressor(k)).fit(x.astype(np.float64), number)
    np.testing.assert_allclose(head.predict(other), theirs.predict(other.astype(np.float64)))


def test_knn_has_no_more_neighbours_than_vectors():
    x, y, _, _ = made(3)
    assert fit_head("knn", x, Targets("classes", y, CLASSES), 20).setting == {"k": 3}


def test_constant_features_and_zero_vectors_do_no_harm():
    x, y, number, _ = made()
    x[:, 3], x[:, 4] = 0, 0.1  # the mean of float32 0.1 is not exactly 0.1
    for name, kind, targets, outputs in (
        ("logistic", "classes", y, CLASSES),
        ("ridge", "number", number, 1),
        ("knn", "classes", y, CLASSES),
    ):
        head = fit_head(name, x, Targets(kind, targets, outputs), UNSEARCHED[name])
        assert np.isfinite(head.predict(np.zeros((2, DIM)))).all()
        if name != "knn":
            assert head.arrays["scale"][3] == head.arrays["scale"][4] == 1


@pytest.mark.parametrize("head", ["knn", "logistic"])
def test_a_search_finds_the_value_with_the_smallest_error(head):
    x, y, _, _ = made()
    parts, targets = folds(len(x)), Targets("classes", y, CLASSES)
    name, values = SEARCHED[head]
    errors = {}
    for value in values:
        squares = []
        for train, test in parts:
            proba = fit_head(head, x[train], targets.rows(train), value).proba(x[test])
            squares.append(np.square(proba - np.eye(CLASSES)[y[test]]))
        errors[value] = np.concatenate(squares).mean()
    found = search(head, x, targets, parts)
    assert found.setting == {name: min(errors, key=errors.get)}
    again = fit_head(head, x, targets, found.setting[name])
    np.testing.assert_array_equal(found.proba(x), again.proba(x))


def test_ridge_search_regularises_noise_and_trusts_a_clear_relation():
    x, _, number, _ = made()
    clear = search("ridge", x, Targets("number", number, 1), folds(len(x)))
    draw = np.random.default_rng(0).standard_normal(len(x))
    noise = search("ridge", x, Targets("number", draw, 1), folds(len(x)))
    assert clear.setting["alpha"] < 10 < 1e4 <= noise.setting["alpha"]


def test_auto_takes_the_head_that_fits_the_shape_of_the_data():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((200, 2)).astype(np.float32)
    rings = (np.arctan2(x[:, 1], x[:, 0]) // (np.pi / 4)).astype(int) % 2  # sectors: no line parts them
    line = (x @ [1, 2] > 0.5).astype(int)
    assert search("auto", x, Targets("classes", rings, 2), folds(200)).head == "knn"
    assert search("auto", x, Targets("classes", line, 2), folds(200)).head == "logistic"


def test_without_folds_the_setting_is_the_documented_one():
    x, y, number, _ = made()
    assert search("auto", x, Targets("classes", y, CLASSES), []).setting == {"C": UNSEARCHED["logistic"]}
    assert search("auto", x, Targets("number", number, 1), []).setting == {"alpha": UNSEARCHED["ridge"]}


def test_what_a_head_cannot_take_is_refused():
    x, y, number, _ = made()
    head = fit_head("logistic", x, Targets("classes", y, CLASSES), 1.0)
    with pytest.raises(SpecError, match=r"Expected vectors \[N, 12\], got the shape \(120, 5\)"):
        head.predict(x[:, :5])
    with pytest.raises(SpecError, match="without NaN"):
        head.predict(np.where(np.arange(DIM) == 1, np.nan, x))
    with pytest.raises(SpecError, match="one of auto, ridge, knn, got 'logistic'"):
        search("logistic", x, Targets("number", number, 1), [])
    with pytest.raises(SpecError, match="one for numbers"):
        fit_head("ridge", x, Targets("number", number, 1), 1.0).proba(x)
    assert set(HEADS) == {"classes", "number", "multilabel"}
