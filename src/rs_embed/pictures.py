"""Pictures: a token grid as three principal components, a Sentinel-2 chip as true colour."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rs_embed.embedding import Embedding
from rs_embed.errors import BandMismatch, StorageError

if TYPE_CHECKING:
    from rs_embed.chip import Chip

STRETCH_PERCENT = (2.0, 98.0)


def plot_embedding(embedding: Embedding, path: Path | None = None) -> Figure:
    """See `Embedding.plot`."""
    title = embedding.meta.model_id + (f" ({note})" if (note := embedding.meta.weights_note) else "")
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    if embedding.is_grid:
        axes.imshow(pca_rgb(embedding.data), extent=_extent_km(embedding), interpolation="nearest")
        axes.set_xlabel("km east" if embedding.geobox is not None else "token")
        axes.set_ylabel("km north" if embedding.geobox is not None else "token")
    else:
        axes.bar(np.arange(embedding.data.size), embedding.data, width=1.0)
        axes.set_xlabel("dimension")
    if path is not None:
        save_figure(figure, path)
    return figure


def _extent_km(embedding: Embedding) -> tuple[float, float, float, float] | None:
    """West, east, south, north in kilometres from the south-west corner."""
    if embedding.geobox is None:
        return None
    box = embedding.geobox.boundingbox
    return 0.0, (box.right - box.left) / 1000, 0.0, (box.top - box.bottom) / 1000


def pca_rgb(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """First three principal components of a grid's tokens as colours.

    Args:
        grid: `[D, H, W]`; NaN tokens become white.

    Returns:
        `[H, W, 3]` in 0..1, each component stretched between its 2nd and 98th percentile. The sign of a component
        is free; it is chosen so that its largest weight is positive, so equal grids give equal pictures.
    """
    channels, height, width = grid.shape
    tokens = grid.reshape(channels, -1).T.astype(np.float64)
    valid = np.isfinite(tokens).all(axis=1)
    colours = np.ones((height * width, 3), np.float32)
    centred = tokens[valid] - tokens[valid].mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:3] * np.sign(axes[:3, np.abs(axes[:3]).argmax(axis=1)].diagonal())[:, None]
    parts = np.zeros((valid.sum(), 3))
    parts[:, : len(axes)] = centred @ axes.T
    colours[valid] = stretch(parts)
    return colours.reshape(height, width, 3)


def chip_rgb(chip: "Chip") -> NDArray[np.float32]:
    """True colour of a Sentinel-2 chip, `[H, W, 3]` in 0..1; nodata is white.

    Raises:
        BandMismatch: B4, B3 or B2 is missing.
    """
    if not {"B2", "B3", "B4"} <= set(chip.band_names):
        raise BandMismatch(
            f"Wanted B4, B3 and B2, found {', '.join(chip.band_names)}.",
            fix="plot another chip, or fetch those bands",
        )
    values = chip.select(("B4", "B3", "B2")).values[0]
    pixels = np.moveaxis(values, 0, -1).reshape(-1, 3)
    valid = np.isfinite(pixels).all(axis=1)
    colours: NDArray[np.float32] = np.ones_like(pixels)
    colours[valid] = stretch(pixels[valid])
    height, width = values.shape[1:]
    picture: NDArray[np.float32] = colours.reshape(height, width, 3)
    return picture


def stretch(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Each column of `[N, C]` from its 2nd..98th percentile to 0..1, clipped."""
    low, high = np.percentile(values, STRETCH_PERCENT, axis=0)
    scaled: NDArray[np.float32] = np.clip((values - low) / np.maximum(high - low, 1e-12), 0, 1).astype(np.float32)
    return scaled


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure.

    Raises:
        StorageError: Unknown suffix, or a folder that cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Wanted to write {str(path)!r}, found: {error}.", fix="use .png in a folder that exists"
        ) from error
