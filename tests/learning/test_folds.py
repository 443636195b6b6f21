"""Folds lie apart: neither neighbours, nor duplicates, nor overlapping footprints are in training and test."""

import numpy as np
import pandas as pd
import pytest
from made_labels import DEGREE_KM, labelled, patches, plain

from rs_embed.errors import SpecError
from rs_embed.learning.folds import make_folds, support_by_block
from rs_embed.learning.footprints import Footprints


def every_pair_apart(folds):
    """Whether no place of a training set overlaps one of its test set, in the outer and the inner folds."""
    pairs = np.concatenate(list(folds.footprints.pairs()), axis=1)
    sets = list(folds.splits())
    sets += [(train[one], train[other]) for train, _ in folds.splits() for one, other in folds.inner(train)]
    return all(not (np.isin(pairs[0], train) & np.isin(pairs[1], test)).any() for train, test in sets)


def test_blocks_are_as_wide_as_labels_are_alike():
    frame = plain(800)
    wide, narrow = (make_folds(labelled(frame, patches(frame, size_km))) for size_km in (12, 4))

    assert 6_000 < wide.variogram.range_m < 20_000 and narrow.variogram.range_m < wide.variogram.range_m
    assert wide.block_m == wide.variogram.range_m and "Labels are alike up to about" in wide.notes[0]
    # A place of another fold is never in the same block.
    assert all(not set(wide.block[train]) & set(wide.block[test]) for train, test in wide.splits())


def test_labels_without_a_trend_get_blocks_of_two_footprints():
    frame = plain(600, buffer_m=100)
    folds = make_folds(labelled(frame, np.random.default_rng(5).choice(["a", "b"], 600)))

    assert folds.variogram.range_m is None and folds.block_m == 400
    assert folds.notes[0] == "Labels show no trend in space: blocks are 400 m wide (two footprints)."


def test_labels_that_are_alike_everywhere_get_smaller_blocks_and_a_sentence():
    frame = plain(300)
    folds = make_folds(labelled(frame, frame.lat.to_numpy() + 0.001))

    assert folds.block.max() + 1 >= 10 and "too optimistic" in folds.notes[0]


def test_folds_have_equal_shares_of_the_classes_and_each_place_is_tested_once():
    frame = plain(900)
    labels = labelled(frame, patches(frame, 5))
    folds = make_folds(labels)

    tested = np.concatenate([test for _, test in folds.splits()])
    assert sorted(tested.tolist()) == list(range(900)) and folds.count == 5
    counts = np.array([np.bincount(labels.targets[test], minlength=3) for _, test in folds.splits()])
    assert (np.abs(counts / labels.targets.size - counts.sum(axis=0) / labels.targets.size / 5) < 0.03).all()
    assert all(blocks > 5 for blocks in support_by_block(labels, folds).values())


def test_places_of_one_group_stay_together_and_groups_that_overlap_are_one():
    frame = plain(60, side_km=60).assign(farm=[f"farm {at % 12}" for at in range(60)])
    frame.loc[1, ["lon", "lat"]] = frame.loc[0, ["lon", "lat"]] + 0.001  # farms 0 and 1 now overlap

    folds = make_folds(labelled(frame, patches(frame, 10)), groups="farm")
    assert folds.how == "groups" and "12 groups of 'farm'" in folds.notes[0]
    assert folds.block.max() + 1 == 11 and folds.fold[0] == folds.fold[1] == folds.fold[12]
    with pytest.raises(SpecError, match="a column 'field' of groups"):
        make_folds(labelled(frame, patches(frame, 10)), groups="field")


def test_duplicates_and_overlapping_footprints_are_found_and_kept_in_one_block():
    frame = plain(200, buffer_m=100)
    doubled = pd.concat([frame, frame.iloc[:7]], ignore_index=True)
    labels = labelled(doubled, patches(doubled, 5))

    for blocks in ("auto", 1000.0, "random"):
        folds = make_folds(labels, blocks=blocks)
        assert any("7 places lie where another one lies" in note for note in folds.notes)
        assert (folds.fold[:7] == folds.fold[200:]).all() and every_pair_apart(folds)
    assert "scores are too optimistic" in folds.notes[0]


def test_a_chain_of_footprints_leaves_its_neighbours_out_of_training():
    """Every 100 m a footprint of 640 m: one block of all would be no cross-validation."""
    frame = plain(120, buffer_m=320)
    frame["lon"], frame["lat"] = 7 + np.arange(120) * 0.1 / (DEGREE_KM * np.cos(np.radians(50))), 50.0
    folds = make_folds(labelled(frame, np.repeat(["a", "b", "a", "b"], 30)), blocks=2000)

    assert "120 of 120 places form chains" in folds.notes[-1] and folds.guarded and every_pair_apart(folds)
    assert all(0 < 120 - len(train) - len(test) < 40 for train, test in folds.splits())


def test_tiles_that_only_touch_do_not_overlap():
    lon, lat = np.meshgrid(7 + np.arange(6) * 0.01, 50 + np.arange(6) * 0.01)
    side_m = 0.01 * DEGREE_KM * 1000
    frame = pd.DataFrame({"lon": lon.ravel(), "lat": lat.ravel(), "buffer_m": side_m * np.cos(np.radians(50)) / 2})
    labels = labelled(frame, np.tile(["a", "b"], 18))

    assert sum(pairs.shape[1] for pairs in Footprints(labels.places).pairs()) == 0


def test_one_place_alone_cannot_be_cross_validated():
    frame = plain(10, side_km=0.05, buffer_m=500)
    with pytest.raises(SpecError, match="two blocks|train on"):
        make_folds(labelled(frame, list("ababababab")))


def test_fewer_blocks_than_folds_are_said():
    frame = pd.concat([plain(20, side_km=1, seed=at).assign(lon=7 + at, region=str(at)) for at in range(3)])
    folds = make_folds(labelled(frame, np.tile(["a", "b"], 30)), groups="region")

    assert folds.count == 3 and "There are only 3 blocks, so there are 3 folds." in folds.notes
