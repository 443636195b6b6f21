"""Imagery in true colour, as a page holds it."""

import base64

import numpy as np
from odc.geo.geobox import GeoBox
from pydantic import JsonValue

from rs_embed.core.chip import Chip
from rs_embed.core.display import png
from rs_embed.embedding.components import stretched_colours
from rs_embed.errors import BandMismatch, SpecError

PICTURE_PX = 1200
"""Longest side of a picture; larger ones are thinned out."""
RGB = ("B4", "B3", "B2")
Edges = tuple[float, float, float, float]
"""Left, bottom, right and top in a CRS."""


class Pictures:
    """The true-colour pictures of a page; a chip that several layers share stands there once."""

    def __init__(self) -> None:
        self.told: list[JsonValue] = []
        self._numbers: dict[int, int] = {}

    def number(self, chip: Chip | None, geobox: GeoBox | None, edges: Edges) -> int | None:
        """Return the number of a chip's picture, which is made if it is new; `None` without one.

        Args:
            chip: The imagery.
            geobox: The grid that it is shown with.
            edges: Left, bottom, right and top of that grid.

        Raises:
            SpecError: The imagery is in another CRS than the grid, or has no place although the grid has one.
            BandMismatch: It lacks red, green or blue.
        """
        if chip is None:
            return None
        if id(chip) not in self._numbers:
            self._numbers[id(chip)] = len(self.told)
            self.told.append(_picture(chip, geobox, edges))
        return self._numbers[id(chip)]


def _picture(chip: Chip, geobox: GeoBox | None, edges: Edges) -> JsonValue:
    if not set(RGB) <= set(chip.band_names):
        raise BandMismatch(
            f"Expected imagery with {', '.join(RGB)}, got {', '.join(chip.band_names)}.",
            fix="pass another chip, or leave `imagery` out",
        )
    crs, other = (None if one is None else str(one.crs) for one in (geobox, chip.geobox))
    if crs != other:
        raise SpecError(
            f"Expected imagery in the CRS of the grid, {crs}, got {other}.",
            fix="pass the chip of the same place: inspect_chip(model, place, days, backend).chips",
        )
    step = -(-max(chip.values.shape[2:]) // PICTURE_PX)
    colours = stretched_colours(np.moveaxis(chip.select(RGB).values[0], 0, -1)[::step, ::step])
    height, width = chip.values.shape[2:]
    left, bottom, right, top = edges if chip.geobox is None else edges_of(chip.geobox)
    # A thinned picture may reach a little further than the chip: its last pixels stand for a whole step.
    right = left + (right - left) * colours.shape[1] * step / width
    bottom = top - (top - bottom) * colours.shape[0] * step / height
    source = "data:image/png;base64," + base64.b64encode(png(colours)).decode("ascii")
    return {"name": "True colour", "source": source, "edges": [left, bottom, right, top]}


def edges_of(geobox: GeoBox) -> Edges:
    """Return the edges of a grid.

    Raises:
        SpecError: It is turned or mirrored.
    """
    affine = geobox.affine
    if affine.b or affine.d or affine.a <= 0 or affine.e >= 0:
        raise SpecError(
            f"Expected a grid with north up, got the transform {tuple(affine)[:6]}.", fix="warp it to a grid that is"
        )
    height, width = geobox.shape
    return affine.c, affine.f + height * affine.e, affine.c + width * affine.a, affine.f
