"""A map of any tokens in the folder of a run, written block by block by the writer of `embed_region`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_map import CELL_M, HEADER, LEFT, TOP
from made_rows import embedding

from rs_embed.core.atomic import write_json
from rs_embed.exports.journal import sealed
from rs_embed.exports.records import Record
from rs_embed.exports.region.grid import MapGrid
from rs_embed.exports.region.store import write_metadata
from rs_embed.exports.region.tiles import MapTiles

Block = Callable[[int, int, int], np.ndarray]
"""Gives the tokens `[D, B, B]` of a block, by time, row and column."""


def grid_of(rows: int, columns: int, block: int, days=(None,)) -> MapGrid:
    """A grid of so many blocks, all of it region."""
    right, bottom = LEFT + columns * block * CELL_M, TOP - rows * block * CELL_M
    ring = [(LEFT, TOP), (right, TOP), (right, bottom), (LEFT, bottom), (LEFT, TOP)]
    step = {"step_cells": block, "cell_m": CELL_M, "before_m": 0, "after_m": 0, "shift_m": 0}
    size = {"height": rows * block, "width": columns * block, "cells": block}
    return MapGrid(crs="EPSG:32633", west=LEFT, north=TOP, region=([ring],), days=days, **size, **step)


def write(folder: Path, grid: MapGrid, dim: int, tokens: Block, dtype="float32") -> None:
    """Write all blocks of a grid, each with a record."""
    model, header = folder / HEADER.model_id, replace(HEADER, dim=dim, dtype=dtype)
    write_metadata(model, grid, header)
    tiles = MapTiles(grid, dim, dtype)
    for number in range(len(grid.days) * grid.rows * grid.columns):
        time, row, column = grid.position(number)
        made = replace(embedding(), data=tokens(time, row, column), geobox=grid.block_geobox(row, column), valid=None)
        write_record(model, number, tiles.write(model, number, made))


def write_record(model: Path, number: int, files) -> None:
    """Say which files a block has."""
    record = Record(unit=number, fingerprint="", rows=1, ok=1, failed=(), files=files, versions={}, finished="")
    write_json(model / f"records/u{number:06d}.json", sealed(record.model_dump(mode="json")))
