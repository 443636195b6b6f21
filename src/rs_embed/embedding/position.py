"""What tokens carry of their place in the window: kept beside a grid in a compact form, and taken out of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PositionMeans:
    """The mean token of each place in a window, less the mean of all, and where the windows of a grid lie."""

    values: NDArray[np.float32]
    """`[D, h, w]`: one window, in cells of the grid."""
    rows: tuple[int, ...]
    """First row of the grid that each row of windows has."""
    cols: tuple[int, ...]
    """First column of each column of windows."""
    windows: int
    """Over how many the means were taken: the fewest that any place has."""

    def field(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """`[D, H, W]`: what the windows, blended as those of the grid are, put into each cell.

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
    """Weights that fall off towards the edges of a window, as windows are stitched with."""
    ramp = np.arange(length, dtype=np.float32)
    tent: NDArray[np.float32] = np.minimum(ramp + 0.5, length - ramp - 0.5)
    return tent
