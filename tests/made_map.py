"""A map as `embed_region` leaves it, written by plain zarr: values tell where they lie."""

import json
import pickle
import shutil
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import shapely
import zarr
from affine import Affine
from zarr.codecs import BloscCodec

from rs_embed.formats.base import RunHeader

CELL_M = 80.0
LEFT, TOP = 344_000.0, 5_296_000.0
HEADER = RunHeader(
    model_id="made_up",
    card_revision=1,
    dim=4,
    output="grid",
    created="2026-01-01T00:00:00+00:00",
    weights="random:7",
    weights_note="random weights, seed 7",
    licence="CC-BY-4.0: made up",
)


@dataclass(frozen=True)
class MadeMap:
    """What is written, and what must be read."""

    rows: int = 22
    columns: int = 29
    block: int = 8
    chunk: int = 4
    dtype: str = "float32"
    days: tuple[tuple[str, str] | None, ...] = (("2021-01-01", "2022-01-01"), ("2022-01-01", "2023-01-01"))
    missing: tuple[tuple[int, int, int], ...] = ()
    """Time, row and column of blocks that are not done."""
    nodata: tuple[tuple[int, int], ...] = ()
    """Row and column of tokens without a value."""
    overviews: int = 2
    epsg: int = 32633
    header: RunHeader = field(default_factory=lambda: HEADER)
    outline: shapely.Geometry | None = None
    """The region, in the CRS; all of the grid if left out."""

    @property
    def region(self) -> shapely.Geometry:
        right, bottom = LEFT + self.columns * CELL_M, TOP - self.rows * CELL_M
        return shapely.box(LEFT, bottom, right, TOP) if self.outline is None else self.outline

    def whole(self) -> np.ndarray:
        """`[T, D, H, W]`, nothing missing: the row, the column, the time, and 1."""
        rows, cols = np.mgrid[: self.rows, : self.columns].astype(np.float32)
        times = [np.stack([rows + 1, cols + 1, np.full_like(rows, 10 * t + 1), np.ones_like(rows)]) for t in self.times]
        return np.stack(times)

    @property
    def times(self) -> range:
        return range(len(self.days))

    def expected(self) -> np.ndarray:
        """What there is: NaN outside of the region, on nodata and in missing blocks."""
        values = self.whole()
        values[..., ~self.inside()] = np.nan
        for row, col in self.nodata:
            values[:, :, row, col] = np.nan
        for t, by, bx in self.missing:
            b = self.block
            values[t, :, by * b : (by + 1) * b, bx * b : (bx + 1) * b] = np.nan
        return values

    def inside(self) -> np.ndarray:
        """`[H, W]`: whether the middle of a token lies in the region."""
        rows, cols = np.mgrid[: self.rows, : self.columns] + 0.5
        return shapely.contains_xy(self.region, LEFT + cols * CELL_M, TOP - rows * CELL_M)

    def write(self, folder: Path) -> Path:
        """The path of the store."""
        return Path(shutil.copytree(_written(pickle.dumps(self)).name, folder / self.header.model_id / "map.zarr"))

    def attributes(self) -> dict[str, object]:
        header = replace(self.header, dtype=self.dtype)
        return {
            "geoemb:type": "chip",
            "geoemb:dimensions": header.dim,
            "proj:code": f"EPSG:{self.epsg}",
            "spatial:dimensions": ["y", "x"],
            "spatial:shape": [self.rows, self.columns],
            "spatial:transform": [CELL_M, 0.0, LEFT, 0.0, -CELL_M, TOP],
            "multiscales": {"layout": [{"asset": "."}, *({"asset": str(n + 1)} for n in range(self.overviews))]},
            "rs_embed:header": json.loads(header.to_json()),
            "rs_embed:region": json.loads(shapely.to_geojson(self.region)),
            "rs_embed:block": {"cells": self.block, "cell_m": CELL_M},
        }


@cache
def _written(pickled: bytes) -> TemporaryDirectory[str]:
    """The store of a map, which many tests copy: to write it takes half a second. As bytes, it is a key."""
    made: MadeMap = pickle.loads(pickled)  # our own, of a moment ago
    folder = TemporaryDirectory()
    root = zarr.create_group(folder.name, zarr_format=3, overwrite=True)
    root.attrs.update(made.attributes())
    values = made.expected()
    _put_level(made, root, values, 0)
    for level in range(1, made.overviews + 1):
        values = halved(values)
        _put_level(made, root.create_group(str(level)), values, level)
    return folder


def halved(values: np.ndarray) -> np.ndarray:
    """The mean of the tokens with a value of 2 x 2."""
    times, dim, height, width = values.shape
    padded = np.full((times, dim, height + height % 2, width + width % 2), np.nan, np.float32)
    padded[..., :height, :width] = values
    four = padded.reshape(times, dim, padded.shape[2] // 2, 2, padded.shape[3] // 2, 2)
    there = np.isfinite(four)
    total, count = np.where(there, four, 0).sum(axis=(3, 5)), there.sum(axis=(3, 5))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _put_level(made: MadeMap, group: zarr.Group, values: np.ndarray, level: int) -> None:
    times, dim, height, width = values.shape
    block, chunk, whole = made.block, made.chunk, made.dtype == "int8"
    codec = BloscCodec(cname="zstd", clevel=1)
    stored = group.create_array(
        "embedding",
        shape=values.shape,
        dtype=made.dtype,
        shards=(1, dim, block, block),
        chunks=(1, dim, chunk, chunk),
        compressors=[codec],
        fill_value=-128 if whole else np.nan,
        dimension_names=("time", "band", "y", "x"),
        config={"write_empty_chunks": True},
    )
    valid = group.create_array(
        "valid",
        shape=(times, height, width),
        dtype="float32",
        chunks=(1, block, block),
        fill_value=0.0,
        dimension_names=("time", "y", "x"),
    )
    blocks = -(-height // block), -(-width // block)
    if whole:
        scale = group.create_array(
            "scale",
            shape=(times, dim, *blocks),
            dtype="float32",
            chunks=(1, dim, 1, 1),
            fill_value=np.nan,
            dimension_names=("time", "band", "block_y", "block_x"),
        )
    for t, by, bx in np.ndindex(times, *blocks):
        if level == 0 and (t, by, bx) in made.missing:
            continue
        rows, cols = slice(by * block, min((by + 1) * block, height)), slice(bx * block, min((bx + 1) * block, width))
        part = values[t, :, rows, cols]
        there = np.isfinite(part).all(axis=0)
        if whole:
            largest = np.max(np.abs(np.where(there, part, 0)), axis=(1, 2))
            factor = np.maximum(largest, 1e-6).astype(np.float32) / 127
            scale[t, :, by, bx] = factor
            part = np.where(there, np.rint(np.where(there, part, 0) / factor[:, None, None]), -128).astype(np.int8)
        stored[t, :, rows, cols] = part
        valid[t, rows, cols] = np.where(there, 0.5 + 0.5 * (t == 0), 0).astype(np.float32)
    _put_coordinates(made, group, height, width, level)


def _put_coordinates(made: MadeMap, group: zarr.Group, height: int, width: int, level: int) -> None:
    cell = CELL_M * 2**level
    affine = Affine(cell, 0, LEFT, 0, -cell, TOP)
    axes = {
        "y": affine.f - cell * (np.arange(height) + 0.5),
        "x": affine.c + cell * (np.arange(width) + 0.5),
        "band": np.arange(made.header.dim),
    }
    for name, values in axes.items():
        group.create_array(name, data=values, dimension_names=(name,))
    nat = np.iinfo(np.int64).min
    for name, which in (("time", 0), ("time_end", 1)):
        days = [nat if one is None else int(np.datetime64(one[which], "D").astype(int)) for one in made.days]
        array = group.create_array(name, data=np.array(days, np.int64), dimension_names=("time",))
        array.attrs.update({"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"})
    group.create_array("spatial_ref", data=np.array(made.epsg, np.int64), dimension_names=())
