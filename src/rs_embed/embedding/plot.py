"""Pictures: a token grid as three principal components, a Sentinel-2 chip in true colour, panels side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.optional import require
from rs_embed.embedding.components import pca_rgb, stretched_colours
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.similarity import cosine, token_state
from rs_embed.errors import BandMismatch, StorageError

require("matplotlib", extra="plot")  # before the imports, whose error would not say how to install it
from matplotlib import colormaps  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: E402

if TYPE_CHECKING:
    from rs_embed.core.chip import Chip

NODATA_GREY = "0.88"
"""Grey behind transparent pixels, so that nodata differs from every colour of the picture."""


@dataclass(frozen=True)
class Panel:
    """A picture with its title and georeference."""

    title: str
    image: NDArray[np.float32]
    """`[H, W, 3]` from 0 to 1, or `[H, W, 4]` with opacity."""
    geobox: GeoBox | None

    @property
    def unit(self) -> str:
        """The unit of the axes."""
        return "px" if self.geobox is None else "km"

    def edges(self) -> tuple[float, float, float, float]:
        """Return the west, east, south and north edges in `unit`."""
        if self.geobox is None:
            height, width = self.image.shape[:2]
            return 0.0, width, 0.0, height
        box = self.geobox.boundingbox
        return box.left / 1000, box.right / 1000, box.bottom / 1000, box.top / 1000


def true_colour(chip: "Chip") -> Panel:
    """Render a Sentinel-2 chip in true colour; nodata is transparent.

    Raises:
        BandMismatch: B4, B3 or B2 is missing.
    """
    if not {"B2", "B3", "B4"} <= set(chip.band_names):
        raise BandMismatch(
            f"Expected B4, B3 and B2, got {', '.join(chip.band_names)}.",
            fix="plot another chip, or fetch those bands",
        )
    values = chip.select(("B4", "B3", "B2")).values[0]
    days = ", ".join(f"{time:%d %B %Y}" for time in chip.times if time is not None)
    return Panel(f"Sentinel-2, true colour\n{days}", stretched_colours(np.moveaxis(values, 0, -1)), chip.geobox)


def principal_components(grid: Embedding, *, raw: bool = False) -> Panel:
    """Render a token grid in the colours of its first three principal components; see `Embedding.plot`."""
    shown = grid if raw else grid.debiased()
    note = shown.meta.warning or f"3 principal components of {len(shown.data)} dimensions"
    state = token_state(shown)
    return Panel(f"{shown.meta.model_id}\n{note}" + (f"\n{state}" if state else ""), pca_rgb(shown.data), shown.geobox)


def alike(grid: Embedding, lon: float, lat: float, name: str) -> Panel:
    """Render the similarity of each token to the token at a point: dark for 0 or less, light for 1.

    The similarity is the cosine after subtracting the mean token.

    Raises:
        SpecError: The point lies outside the grid.
    """
    grid = grid.debiased()
    mean = np.nanmean(grid.data, axis=(1, 2))
    values = cosine(np.moveaxis(grid.data, 0, -1) - mean, grid.at(lon, lat) - mean)
    colours = colormaps["magma"](np.clip(values, 0, 1)).astype(np.float32)
    colours[np.isnan(values), 3] = 0
    return Panel(f"{grid.meta.model_id}\nhow much like {name}: dark to light", colours, grid.geobox)


def plot_embedding(embedding: Embedding, path: Path | None = None, *, raw: bool = False) -> Figure:
    """Plot an embedding; see `Embedding.plot`."""
    if embedding.is_grid:
        figure = side_by_side([principal_components(embedding, raw=raw)])
    else:
        note = embedding.meta.warning
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(np.arange(embedding.data.size), embedding.data, width=1.0)
        axes.set(title=embedding.meta.model_id + (f"\n{note}" if note else ""), xlabel="dimension", ylabel="value")
        axes.title.set_fontsize(10)
    if path is not None:
        save_figure(figure, path)
    return figure


def side_by_side(panels: Sequence[Panel], credit: str = "") -> Figure:
    """Draw pictures side by side, on the axes of the first.

    Args:
        panels: The pictures, all of the same ground.
        credit: A line of text under the pictures.
    """
    west, east, south, north = panels[0].edges()
    figure = Figure(
        figsize=(3.7 * len(panels) + 0.6, 3.5 * (north - south) / (east - west) + 1.4),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1),
    )
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        edges = np.subtract(panel.edges(), (west, west, south, south))
        axes.set_facecolor(NODATA_GREY)
        axes.imshow(panel.image, extent=edges, interpolation="nearest")
        axes.set(title=panel.title, xlabel=f"{panel.unit} east", xlim=(0, east - west), ylim=(0, north - south))
        axes.title.set_fontsize(10)
    figure.axes[0].set_ylabel(f"{panels[0].unit} north")
    figure.supxlabel(credit, fontsize=7, color="0.4")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a file.

    Raises:
        StorageError: The suffix is unknown or the folder cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Expected to write {str(path)!r}, got: {error}.", fix="use the suffix .png and an existing folder"
        ) from error
