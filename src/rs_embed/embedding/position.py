"""Position offsets of tokens, stored with a grid in a compact form and subtracted on request."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PositionMeans:
    """Position offsets and the windows of a grid.

    The offset of a position in the window is the mean token there, less the mean of all tokens.
    """

    values: NDArray[np.float32]
    """Offsets of one window, `[D, h, w]`, in cells of the grid."""
    rows: tuple[int, ...]
    """First grid row of each row of windows."""
    cols: tuple[int, ...]
    """First grid column of each column of windows."""
    windows: int
    """Number of windows averaged: the smallest over all positions."""

    def field(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the offsets of every cell of the grid, `[D, H, W]`, with windows blended as in stitching.

        Args:
            shape: Rows and columns of the grid.
        """
        dim, height, width = self.values.shape
        weights = _tent(height)[:, None] * _tent(width)
        total = np.zeros((dim, self.rows[-1] + height, self.cols[-1] + width), np.float32)
        whole = np.zeros(total.shape[1:], np.float32)
        weighted = self.values * weights
        for row in self.rows:
            for col in self.cols:
                total[:, row : row + height, col : col + width] += weighted
                whole[row : row + height, col : col + width] += weights
        total /= whole
        return total[:, : shape[0], : shape[1]]


def _tent(length: int) -> NDArray[np.float32]:
    """Return the stitching weights along one side, which fall towards the edges of a window."""
    ramp = np.arange(length, dtype=np.float32)
    tent: NDArray[np.float32] = np.minimum(ramp + 0.5, length - ramp - 0.5)
    return tent
