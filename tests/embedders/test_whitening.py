"""Filters made of imagery: the method by its definition, and what is drawn and counted."""

import numpy as np
import pytest
import safetensors.numpy

from rs_embed.embedders import whitening
from rs_embed.embedders.whitening import fit_filters, unit_pieces
from rs_embed.errors import InputError

TWELVE = tuple(f"b{index}" for index in range(12))


def random_chip(seed: int = 0, bands: int = 12, side: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 3000, size=(bands, side, side))


def test_a_fitted_bank_survives_its_file():
    tensors = fit_filters([random_chip(0), random_chip(1)], TWELVE, about=2, filters=512, seed=0).tensors()
    stored = safetensors.numpy.load(safetensors.numpy.save(tensors))
    for name, values in tensors.items():
        np.testing.assert_array_equal(stored[name], values)


def test_filters_are_pieces_whitened_twice():
    chip = random_chip()
    found = fit_filters([chip], TWELVE, about=1, filters=324, seed=0)  # all the pieces there are, in some order
    weight = found.weight.reshape(324, -1).astype(np.float64)
    standardised = (chip - chip.mean(axis=(1, 2), keepdims=True)) / chip.std(axis=(1, 2), keepdims=True)
    windows = np.lib.stride_tricks.sliding_window_view(standardised, (3, 3), axis=(1, 2))
    every = unit_pieces(windows.transpose(1, 2, 0, 3, 4).reshape(324, 12, 9))
    variances, directions = np.linalg.eigh(every.T @ every / len(every))
    zca = directions @ np.diag((variances + 1e-3) ** -0.5) @ directions.T
    order = np.random.default_rng(0).choice(324, 324, replace=False)
    np.testing.assert_allclose(weight, (every @ zca @ zca.T)[order], rtol=2e-3, atol=0.1)


def test_mean_and_std_are_those_of_all_valid_pixels_together():
    chips = [random_chip(0, 2), random_chip(1, 2, side=30) + 4000]
    chips[0][1, :5] = np.nan  # in one band: these pixels count in none
    found = fit_filters(chips, ("a", "b"), about=2, filters=8, seed=0)
    every = np.concatenate([chips[0][:, 5:].reshape(2, -1), chips[1].reshape(2, -1)], axis=1)
    np.testing.assert_allclose(found.mean, every.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, every.std(axis=1), rtol=1e-12)
    assert (found.chips, found.pixels, found.pieces) == (2, every.shape[1], 13 * 18 + 28 * 28)


def test_of_many_pieces_as_many_are_taken_of_each_chip(monkeypatch):
    monkeypatch.setattr(whitening, "MOST_PIECES", 100)
    chips = [random_chip(seed, 3) for seed in range(4)]
    one, again, other = (fit_filters(chips, "abc", about=4, filters=50, seed=seed) for seed in (3, 3, 4))
    assert one.pieces == 100
    np.testing.assert_array_equal(one.weight, again.weight)
    assert (one.weight != other.weight).any()
    np.testing.assert_array_equal(one.mean, other.mean)  # statistics are of all pixels, whatever is drawn


def test_pieces_of_one_colour_are_no_filters():
    chip = np.full((1, 12, 12), 7.0)
    chip[0, :4] = np.random.default_rng(0).uniform(0, 14, (4, 12))
    found = fit_filters([chip], "a", about=1, filters=40, seed=0)
    assert found.pieces < 100
    assert (np.abs(found.weight).max(axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("chips", "names"),
    [
        ([np.full((2, 20, 20), np.nan)], "got 0"),
        ([], "got 0"),
        ([random_chip(0, 2, side=5)], "got 9"),
        ([random_chip(0, 2) * [[[1]], [[0]]] + 5], "constant ones: nir"),
    ],
)
def test_what_makes_no_filters_is_refused(chips, names):
    with pytest.raises(InputError, match=names):
        fit_filters(chips, ("red", "nir"), about=1, filters=64, seed=0)
