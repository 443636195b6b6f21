"""A picture of a map of classes, with its legend."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from rs_embed.errors import SpecError
from rs_embed.learning.palette import rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rs_embed.learning.class_map import ClassMap

_LONGEST_PX = 1500


def draw(whole: "ClassMap", path: Path | None) -> "Figure":
    """See `ClassMap.plot`."""
    from rs_embed.embedding.plot import Panel, save_figure, side_by_side

    if whole.facts.kind != "classes":
        raise SpecError(f"Expected a map of classes, got one of kind {whole.facts.kind!r}.", fix="to_xarray().plot()")
    from matplotlib.patches import Patch

    facts = whole.facts
    height, width = whole.geobox.shape
    shrink = max(1.0, max(height, width) / _LONGEST_PX)
    shape = max(1, round(height / shrink)), max(1, round(width / shrink))
    colours = np.array([(0, 0, 0, 0), *((*rgb(one), 255) for one in facts.colours)], np.float32) / 255
    codes = whole.small(shape)
    box = GeoBox(shape, whole.geobox.affine @ Affine.scale(width / shape[1], height / shape[0]), whole.geobox.crs)
    note = f"\n{facts.origin.warning}" if facts.origin.warning else ""
    title = f"{facts.column} by {facts.origin.model_id}{note}"
    figure = side_by_side([Panel(title, colours[codes], box)])
    patches = [Patch(color=colour, label=name) for name, colour in zip(facts.classes, facts.colours, strict=True)]
    below = {"title": facts.origin.licence, "title_fontsize": 7}
    figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False, fontsize=8, **below)
    if path is not None:
        save_figure(figure, path)
    return figure
