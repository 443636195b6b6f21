"""The first three principal components of tokens, as colours."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

STRETCH_PERCENT = (2.0, 98.0)
_SUBSPACE, _ITERATIONS = 8, 20
"""Width and steps of the subspace iteration: an exact SVD of a map takes ten times as long and looks the same."""


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of some tokens, and the stretch that turns them into colours.

    The sign of a component is arbitrary. It is chosen so that the largest weight is positive, so that equal tokens give
    equal pictures.
    """

    mean: NDArray[np.float32]
    """`[D]`."""
    axes: NDArray[np.float64]
    """`[K, D]`, K up to 3, largest variance first."""
    low: NDArray[np.float32]
    """`[3]`: the 2nd percentile of each component, which becomes 0."""
    high: NDArray[np.float32]
    """`[3]`: the 98th percentile of each component, which becomes 1."""
    shares: tuple[float, ...]
    """Share of the variance of each component, 0 to 1."""

    @classmethod
    def fit(cls, tokens: NDArray[np.float32]) -> Self:
        """Compute the components of tokens `[N, D]`, all with a value; N is at least 1."""
        mean = tokens.mean(axis=0)
        centred = tokens.astype(np.float64) - mean
        axes = _principal_axes(centred)
        parts = _projected(centred, axes)
        low, high = np.percentile(parts, STRETCH_PERCENT, axis=0)
        whole = max(float(np.square(centred).sum()), np.finfo(np.float64).tiny)
        shares = tuple(float(part) / whole for part in np.square(centred @ axes.T).sum(axis=0))
        return cls(mean, axes, low, high, shares)

    def colours(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return red, green, blue and opacity `[..., 4]` in 0..1 of tokens `[..., D]`; NaN becomes transparent."""
        valid = np.isfinite(tokens).all(axis=-1)
        colours = np.ones((*valid.shape, 4), np.float32)
        colours[~valid, 3] = 0
        parts = _projected(tokens[valid].astype(np.float64) - self.mean, self.axes)
        colours[valid, :3] = stretched(parts, self.low, self.high)
        return colours


def pca_rgb(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first three principal components of a grid's tokens as colours.

    Args:
        grid: `[D, H, W]`; NaN tokens become transparent.

    Returns:
        `[H, W, 4]` in 0..1: red, green, blue and opacity, each component stretched between its 2nd and 98th
        percentile.
    """
    tokens = np.moveaxis(grid, 0, -1)
    valid = np.isfinite(tokens).all(axis=-1)
    if not valid.any():
        return np.full((*valid.shape, 4), (1, 1, 1, 0), np.float32)
    return Components.fit(tokens[valid]).colours(tokens)


def stretched(
    values: NDArray[np.float32], low: NDArray[np.floating], high: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Scale channels (the last axis) from `low`..`high` to 0..1."""
    within: NDArray[np.floating] = np.clip((values - low) / np.maximum(high - low, 1e-12), 0, 1)
    return within


def stretched_colours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch each of three channels from its 2nd to 98th percentile to 0..1.

    Args:
        values: `[H, W, 3]`.

    Returns:
        `[H, W, 4]`: red, green, blue and opacity; NaN becomes transparent.
    """
    valid = np.isfinite(values).all(axis=-1)
    colours = np.ones((*valid.shape, 4), np.float32)
    colours[~valid, 3] = 0
    if valid.any():
        low, high = np.percentile(values[valid], STRETCH_PERCENT, axis=0)
        colours[valid, :3] = stretched(values[valid], low, high)
    return colours


def _projected(centred: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float32]:
    """Component values `[N, 3]`; 0 for missing components."""
    parts = np.zeros((len(centred), 3), np.float32)
    parts[:, : len(axes)] = centred @ axes.T
    return parts


def _principal_axes(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Up to 3 components `[K, D]`, largest variance first, by subspace iteration from a fixed start."""
    basis = np.random.default_rng(0).standard_normal((centred.shape[1], min(_SUBSPACE, *centred.shape)))
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, _, turn = np.linalg.svd(centred @ basis, full_matrices=False)
    axes = (basis @ turn.T).T[:3]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1))
    turned: NDArray[np.float64] = axes * signs
    return turned
