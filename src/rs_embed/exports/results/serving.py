"""A region of any size in the browser: its overview as a page, and its tokens as they are looked at."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from rs_embed.core.specs import BBox
from rs_embed.errors import OutsideCoverage, SpecError
from rs_embed.explore.grids import Sheet, about, detail_of, grids_page
from rs_embed.explore.packing import PageComponents
from rs_embed.explore.page import PageOptions
from rs_embed.explore.server import PageServer
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.exploring import map_sheet, map_sheets
from rs_embed.exports.results.map_level import Cells

if TYPE_CHECKING:
    from rs_embed.explore.tiles import BaseMap
    from rs_embed.exports.results.embedding_map import Box
    from rs_embed.pipeline.request import Backend

PART_BYTES = 12_000_000
"""Values of a part at most: half a second on this machine, and 30 ms for a click."""
OVERVIEW_BYTES = 18_000_000
"""Values of the overview at most, for all times together."""


def serve_map(
    whole: EmbeddingMap,
    bbox: "Box" = None,
    *,
    imagery: "Backend | None" = None,
    base_map: "BaseMap | None" = None,
    port: int = 0,
    part_bytes: int = PART_BYTES,
    overview_bytes: int = OVERVIEW_BYTES,
) -> PageServer:
    """Make a server for the page of a region. Its `url` is the page's; `serve_forever` starts it.

    Args:
        whole: The region.
        bbox: Only this part of it.
        imagery: See `EmbeddingMap.explore`.
        base_map: See `EmbeddingMap.explore`.
        port: 0 takes a free one.
        part_bytes: Largest size of the values in one answer, as int8.
        overview_bytes: Largest size of the values in the page, as int8.

    Raises:
        SpecError: Even the coarsest overview is too large.
        OutsideCoverage: The box is outside of the map.
        NoValidPixels: There is no token with a value.
    """
    level = _overview(whole, bbox, overview_bytes)
    sheets, credit = map_sheets(whole, bbox, range(len(whole.times)), level, imagery)
    page = grids_page(sheets, credit, PageOptions(base_map, "int8"))
    cells: list[JsonValue] = [[one.geobox.affine.a, -one.geobox.affine.e] for one in whole.levels[: level + 1]]
    most = max(1, part_bytes // whole.dim)
    server: JsonValue = {"cells": list(cells), "most": most, "overview": level}
    page = replace(page, told={**page.told, "server": server, "about": about(page.tiles, is_served=True)}, asks=True)
    return PageServer(page.html(), _Parts(whole, bbox, level, most, sheets).answer, port)


def _overview(whole: EmbeddingMap, bbox: "Box", most: int) -> int:
    """Return the finest level that fits into a page."""
    for number, one in enumerate(whole.levels):
        crop = one.crop(bbox)
        size = len(whole.times) * crop.height * crop.width * one.dim
        if size <= most:
            return number
    raise SpecError(
        f"Expected an overview of at most {most / 1e6:,.0f} MB, got {size / 1e6:,.0f} MB at the coarsest level.",
        fix="choose a part of the region: --bbox",
    )


class _Parts:
    """What the page asks for."""

    def __init__(self, whole: EmbeddingMap, bbox: "Box", overview: int, most: int, sheets: Sequence[Sheet]) -> None:
        self._whole, self._bbox, self._overview, self._most = whole, bbox, overview, most
        self._components = PageComponents.fit(np.concatenate([sheet.tokens.reshape(-1, whole.dim) for sheet in sheets]))
        self._one_at_a_time = Lock()  # so that memory is that of one part

    def answer(self, fields: Mapping[str, str]) -> bytes:
        """Return the layer of a time, a level and a box as JSON; "null" without a value.

        Raises:
            SpecError: A field is missing or wrong, or the part is too large.
        """
        time, level, box = _read(fields)
        if not (0 <= level < self._overview and 0 <= time < len(self._whole.times)):
            raise SpecError(f"Expected a time and a level of the page, got {time} and {level}.", fix="reload the page")
        one = self._whole.levels[level]
        try:
            cells = one.crop(BBox(*box, crs=str(one.geobox.crs))).within(one.crop(self._bbox))
        except OutsideCoverage as error:
            raise SpecError(error.headline, fix="reload the page") from error
        if not 0 < cells.height * cells.width <= self._most:
            raise SpecError(f"Expected 1 to {self._most:,} cells, got {_size(cells)}.", fix="reload the page")
        with self._one_at_a_time:
            told = detail_of(map_sheet(self._whole, time, one, cells), self._components)
        return json.dumps(told, allow_nan=False).encode()


def _read(fields: Mapping[str, str]) -> tuple[int, int, tuple[float, float, float, float]]:
    try:
        left, bottom, right, top = map(float, fields["box"].split(","))
        return int(fields["time"]), int(fields["level"]), (left, bottom, right, top)
    except (KeyError, ValueError) as error:
        raise SpecError(f"Expected time, level and box, got {dict(fields)}.", fix="reload the page") from error


def _size(cells: Cells) -> str:
    return f"{cells.height:,} x {cells.width:,}"
