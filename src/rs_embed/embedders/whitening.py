"""Make filters from imagery: small image patches, decorrelated by ZCA whitening. This module does not import torch.

Source: Rolf et al. 2021, https://doi.org/10.1038/s41467-021-24638-z, and `normalize_patches` of the authors' code: each
piece is centred over all of its values and scaled to unit length; whitening is fitted on many pieces (100,000 there)
and applied twice, once for the filter and once for the image. The authors use RGB in 0..1. This module takes any bands,
standardised by the mean and standard deviation of the source imagery.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import InputError

KERNEL_PX = 3
ZCA_EPSILON = 1e-3
"""Added to the variance of every whitened direction; the authors' value."""
BIAS = -1.0
"""The authors' threshold of 1, with the sign used by torchgeo."""
MOST_PIECES = 200_000
MOST_VALUES = 50_000_000
"""Most values in all pieces that are whitened: 400 MB in float64."""
_CONSTANT = 1e-6
"""A band whose standard deviation is below this share of its mean counts as constant."""
Pixels = NDArray[np.float32] | NDArray[np.float64]
"""`[band, height, width]`; NaN is nodata."""
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Filters:
    """A filter bank, and the statistics by which images are standardised for it."""

    weight: NDArray[np.float16]
    """`[filter, band, 3, 3]`."""
    mean: Values
    """`[band]`: mean of all valid pixels."""
    std: Values
    chips: int
    pixels: int
    pieces: int
    """Number of pieces that were whitened."""

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return the tensors as they are stored."""
        return {
            # safetensors 0.8 writes a transposed array in the order of its memory, which mixes up its axes.
            "weight": np.ascontiguousarray(self.weight),
            "bias": np.full(len(self.weight), BIAS, np.float32),
            "mean": self.mean.astype(np.float32),
            "std": self.std.astype(np.float32),
        }


@dataclass(frozen=True, eq=False)
class _Sample:
    """Pieces and statistics of one chip."""

    count: int
    """Number of pixels at which every band is valid."""
    mean: Values
    squares: Values
    """`[band]`: the sum of squared deviations from `mean`."""
    pieces: NDArray[np.floating]
    """`[piece, band, 9]`, not standardised."""


def fit_filters(chips: Iterable[Pixels], bands: Sequence[str], *, about: int, filters: int, seed: int) -> Filters:
    """Fit a filter bank to imagery. Chips are read once, and a sample of their pieces is kept.

    Args:
        chips: Chips with the same bands and units.
        bands: Names of the bands, for messages.
        about: Expected number of chips, which determines how many pieces to take from each.
        filters: Number of filters.
        seed: Seed of the random sampling.

    Raises:
        InputError: There are fewer pieces without nodata than filters, or a band is constant.
    """
    most = max(1, min(MOST_PIECES, MOST_VALUES // (len(bands) * KERNEL_PX**2)) // max(1, about))
    samples = [_sample(chip, most, np.random.default_rng((seed, index))) for index, chip in enumerate(chips)]
    _require_pieces(sum(len(one.pieces) for one in samples), filters, len(samples))
    mean, std = _moments(samples, bands)
    raw = np.concatenate([one.pieces for one in samples])
    every = unit_pieces((raw - mean[:, None]) / std[:, None])
    every = every[every.any(axis=1)]  # a piece of one colour would be a filter of zeros
    _require_pieces(len(every), filters, len(samples))
    covariance = every.T @ every / len(every)
    drawn = every[np.random.default_rng(seed).choice(len(every), filters, replace=False)]
    # ZCA is (covariance + epsilon)^-1/2 and symmetric: applied twice it is one solution with the covariance.
    solved = np.linalg.solve(covariance + ZCA_EPSILON * np.eye(len(covariance)), drawn.T).T
    weight = solved.reshape(filters, len(bands), KERNEL_PX, KERNEL_PX).astype(np.float16)
    return Filters(weight, mean, std, len(samples), sum(one.count for one in samples), len(every))


def unit_pieces(pieces: Values) -> Values:
    """Centre each piece over all its values and scale it to unit length: `[piece, band, 9]` to `[piece, band * 9]`."""
    flat = pieces.reshape(len(pieces), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    unit: Values = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(min=1e-8)
    return unit


def _require_pieces(found: int, filters: int, chips: int) -> None:
    if found < filters:
        raise InputError(
            f"Expected at least {filters} pieces of {KERNEL_PX} x {KERNEL_PX} valid pixels that are not constant, got "
            f"{found} in {chips} chip(s).",
            fix=f"pass more imagery, or request fewer filters: filters={max(1, found // 2)}",
        )


def _sample(chip: Pixels, most: int, chance: np.random.Generator) -> _Sample:
    valid = np.asarray(np.isfinite(chip).all(axis=0))
    pixels = chip[:, valid].astype(np.float64)
    if not pixels.size:
        nothing = np.zeros(len(chip))
        return _Sample(0, nothing, nothing, np.empty((0, len(chip), KERNEL_PX**2), chip.dtype))
    mean = pixels.mean(axis=1)
    squares = ((pixels - mean[:, None]) ** 2).sum(axis=1)
    return _Sample(pixels.shape[1], mean, squares, _pieces(chip, valid, most, chance))


def _pieces(
    chip: NDArray[np.floating], valid: NDArray[np.bool_], most: int, chance: np.random.Generator
) -> NDArray[np.floating]:
    """Return the pieces without nodata, at most `most` of them."""
    shape = (KERNEL_PX, KERNEL_PX)
    if min(valid.shape) < KERNEL_PX:
        return np.empty((0, len(chip), KERNEL_PX**2), chip.dtype)
    whole = np.lib.stride_tricks.sliding_window_view(valid, shape).all(axis=(2, 3))
    rows, cols = np.nonzero(whole)
    if len(rows) > most:
        kept = np.sort(chance.choice(len(rows), most, replace=False))
        rows, cols = rows[kept], cols[kept]
    windows: NDArray[np.floating] = np.lib.stride_tricks.sliding_window_view(chip, shape, axis=(1, 2))[:, rows, cols]
    return windows.swapaxes(0, 1).reshape(len(rows), len(chip), KERNEL_PX**2)


def _moments(samples: Sequence[_Sample], bands: Sequence[str]) -> tuple[Values, Values]:
    """Compute mean and standard deviation of each band over the pixels of all chips.

    Raises:
        InputError: A band is constant.
    """
    count = sum(one.count for one in samples)
    mean: Values = np.sum([one.count * one.mean for one in samples], axis=0) / count
    squares = np.sum([one.squares + one.count * (one.mean - mean) ** 2 for one in samples], axis=0)
    std: Values = np.sqrt(squares / count)
    constant = [name for name, s, m in zip(bands, std, mean, strict=True) if s <= _CONSTANT * abs(m)]
    if constant:
        raise InputError(
            f"Expected bands that vary, got constant ones: {', '.join(constant)}.",
            fix="leave them out of the sensor's bands, or pass imagery of a larger area",
        )
    return mean, std
