"""What cross-validation says of labels whose truth is known: leakage tests."""

import numpy as np
import pytest
from made_labels import labelled, patches, plain

from rs_embed.learning.crossval import coordinates, cross_validate, majority
from rs_embed.learning.folds import make_folds
from rs_embed.learning.footprints import on_sphere
from rs_embed.learning.scores import MAIN, Draws, intervals, scores_of

pytestmark = pytest.mark.slow


def main_score(validated, folds):
    drawn = scores_of(validated.found, Draws.of(folds.block))
    return intervals(drawn)[MAIN[validated.found.kind]]


def vectors_of(labels, signal, seed=0, dim=16):
    """Vectors that hold the class with some noise."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(len(labels.classes), dim))
    return signal * directions[labels.targets] + rng.normal(size=(len(labels), dim))


def test_vectors_that_hold_the_class_score_high_and_noise_like_chance():
    frame = plain(300)
    labels = labelled(frame, patches(frame, 8))
    folds = make_folds(labels)

    assert main_score(cross_validate(vectors_of(labels, 1.5), labels, folds), folds).low > 0.8
    noise = main_score(cross_validate(vectors_of(labels, 0), labels, folds), folds)
    assert noise.low < 1 / 3 < noise.high


def test_labels_shuffled_between_blocks_score_like_chance_although_vectors_know_the_block():
    """The vectors know the place, and so the label of its neighbours. In blocks this is worth nothing."""
    frame = plain(500)
    block_km = 10
    labels = labelled(frame, patches(frame, block_km))
    place = vectors_of(
        labelled(
            frame,
            [f"{a}{b}" for a, b in zip((frame.lon * 7.16).astype(int), (frame.lat * 11.1).astype(int), strict=True)],
        ),
        3,
        dim=32,
    )

    apart, mixed = make_folds(labels), make_folds(labels, blocks="random")
    honest = main_score(cross_validate(place, labels, apart), apart)
    fooled = main_score(cross_validate(place, labels, mixed), mixed)
    assert honest.low < 1 / 3 + 0.1 and fooled.value > honest.high + 0.1


def test_labels_shuffled_within_blocks_score_like_chance():
    frame = plain(400)
    truth = labelled(frame, patches(frame, 20))
    vectors = vectors_of(truth, 2)
    folds = make_folds(truth)
    rng, shuffled = np.random.default_rng(0), np.array(["abc"[one] for one in truth.targets])
    for block in np.unique(folds.block):
        inside = np.flatnonzero(folds.block == block)
        shuffled[inside] = rng.choice(["a", "b", "c"], len(inside))
    labels = labelled(frame, shuffled)

    score = main_score(cross_validate(vectors, labels, folds), folds)
    assert score.low <= 1 / 3 <= score.high + 0.02


def test_coordinates_alone_explain_labels_that_cluster_more_widely_than_the_blocks():
    frame = plain(400)
    clustered = labelled(frame, np.where(frame.lon > frame.lon.median(), "east", "west"))
    folds = make_folds(clustered, blocks=10_000)
    for head, encoded in coordinates(clustered).items():
        assert main_score(cross_validate(encoded, clustered, folds, head), folds).low > 0.85

    scattered = labelled(frame, np.random.default_rng(3).choice(["a", "b"], 400))
    folds = make_folds(scattered, blocks=10_000)
    for head, encoded in coordinates(scattered).items():
        assert main_score(cross_validate(encoded, scattered, folds, head), folds).low < 0.55


def test_the_nearest_places_have_the_most_similar_coordinates():
    labels = labelled(plain(60), list("ab") * 30)
    encoded, where = coordinates(labels)["knn"].astype(np.float32), on_sphere(*labels.places.centres())
    unit = encoded / np.linalg.norm(encoded, axis=1, keepdims=True)
    likeness, distance = unit @ unit.T, np.linalg.norm(where[:, None] - where, axis=2)
    nearest, most_alike = (np.argsort(one, axis=1)[:, 1] for one in (distance, -likeness))
    assert (nearest == most_alike).mean() > 0.9


def test_the_majority_has_the_score_of_chance():
    frame = plain(200)
    labels = labelled(frame, np.where(np.arange(200) % 10 < 7, "common", "rare"))
    folds = make_folds(labels)
    assert main_score(majority(labels, folds), folds).value == 0.5

    numbers = labelled(frame, np.random.default_rng(0).normal(size=200))
    folds = make_folds(numbers)
    assert -0.2 < main_score(majority(numbers, folds), folds).value <= 0


@pytest.mark.parametrize("kind", ["number", "multilabel"])
def test_numbers_and_several_labels_are_learnt(kind):
    frame, rng = plain(200), np.random.default_rng(0)
    x = rng.normal(size=(200, 8))
    if kind == "number":
        labels = labelled(frame, x[:, 0] * 2 + x[:, 1] + rng.normal(size=200) * 0.1)
    else:
        labels = labelled(frame, [["even"] * int(row[0] > 0) + ["odd"] * int(row[1] > 0.5) for row in x])
    folds = make_folds(labels)

    assert labels.kind == kind and main_score(cross_validate(x, labels, folds), folds).low > 0.8


def test_the_learning_curve_rises_and_ends_at_the_score():
    frame = plain(240)
    labels = labelled(frame, patches(frame, 5))
    folds = make_folds(labels)
    validated = cross_validate(vectors_of(labels, 0.6), labels, folds, "logistic")

    scores = [
        scores_of(one, Draws.of(folds.block, draws=1))["balanced accuracy"][0] for one in validated.curve.values()
    ]
    assert scores[0] + 0.05 < scores[-1] == main_score(validated, folds).value
    assert list(validated.curve) == sorted(validated.curve) and validated.head == "logistic"
