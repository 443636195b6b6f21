"""Runs and maps of regions as torch datasets."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rs_embed.core.checks import require_whole
from rs_embed.core.geo import prepared
from rs_embed.errors import SpecError
from rs_embed.exports.results.embedding_map import EmbeddingMap
from rs_embed.exports.results.map_level import Cells, Level
from rs_embed.exports.results.open_region import open_region
from rs_embed.exports.results.run import Run, open_run
from rs_embed.learning.labels import Kind, read_labels
from rs_embed.places.kept import OURS

if TYPE_CHECKING:
    from rs_embed.exports.results.map_store import Time
    from rs_embed.formats.grids import Grids

_LARGE = ("embedding", "scale", "meta", "bbox")
"""Columns of a run that are not needed here."""
_LARGEST_SIDE = 4096
"""Largest side of a window, tokens."""
_IGNORED = -100
"""The class that `torch.nn.functional.cross_entropy` ignores by default."""


class RunDataset(Dataset[Tensor | tuple[Tensor, Tensor]]):
    """The embeddings of a run, with a column of its table as the target.

    An item is a float32 tensor, `[D]` of a vector or `[D, H, W]` of a grid, or with `label` a pair of that and its
    target: int64 index into `classes`, float32 number, or float32 `[K]` of 0 and 1 for several labels a place. Rows
    that failed are left out, and so are rows without a label, which a warning counts.

    Vectors are held in memory; grids are read when they are asked for, so those of one dataset may differ in size.
    Workers of a `DataLoader` share the vectors, whether they are forked or spawned.

    Args:
        run: The run, or its folder.
        label: Column of the table, or several columns of 0 and 1, as for `read_labels`.
        kind: What the column means, as for `read_labels`.
        model: May be left out if the run has only one.

    Raises:
        SpecError: The run has no embedding, or `read_labels` refuses the column.
        StorageError: There is no such run, or a table is damaged.
    """

    def __init__(
        self,
        run: Run | str | Path,
        label: str | Sequence[str] | None = None,
        *,
        kind: Kind | None = None,
        model: str | None = None,
    ) -> None:
        run = run if isinstance(run, Run) else open_run(run)
        tables = run.tables(model)
        columns = [name for name in tables[0].columns if name not in _LARGE] if tables else ["id", "row", "status"]
        frame = run.to_frame(model, columns)
        at = np.flatnonzero(frame["status"] == "ok")
        if not len(at):
            raise SpecError(
                f"Expected embeddings in the run, got {len(frame):,} rows without one.",
                fix=f"rs-embed status {run.path}",
            )
        self.classes: tuple[str, ...] = ()
        """Names of the classes, in the order of their indices; empty for numbers."""
        self.targets: Tensor | None = None
        """Targets of all items."""
        if label is not None:
            table = frame.iloc[at].drop(columns=OURS - {"geometry"}, errors="ignore")
            labels = read_labels(table, label, kind=kind)
            at, self.classes = at[labels.places.rows], labels.classes
            self.targets = torch.from_numpy(labels.targets)
            self.targets = self.targets if labels.kind == "classes" else self.targets.float()
        self.rows: NDArray[np.int64] = frame["row"].to_numpy(np.int64)[at]
        """Row of each item in the user's table, from 0: to look up its place or group."""
        self.ids: tuple[str, ...] = tuple(frame["id"].iloc[at])
        """Id of each item."""
        is_grid = "href" in frame
        self._grids: Grids | None = run.grids(model) if is_grid else None
        self._vectors = torch.empty(0) if is_grid else torch.from_numpy(run.matrix(model)[at])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, Tensor]:
        if self._grids is None:
            values = self._vectors[index]
        else:
            values = torch.from_numpy(self._grids.embedding(self.ids[index]).data)
        return values if self.targets is None else (values, self.targets[index])


class RegionDataset(Dataset[dict[str, Tensor | int]]):
    """The map of a region as windows of one size, for every time.

    An item is a dictionary: `tokens`, float32 `[D, size, size]`, NaN where there is no token and beyond the edge of the
    map; `valid`, float32 `[size, size]`, the share of valid pixels under each token; `row` and `col` of its north-west
    token in the map; `time`, its number in `region.times`; and with `target` the part of that under the window.

    Windows without any token are left out where that is known without reading tokens: outside of the region, and where
    no block is done. Each process opens the map itself, so workers of a `DataLoader` may be forked or spawned.

    Args:
        region: The map, or its folder.
        size: Side of a window, tokens. By default, that of a block of the map: each block is one file.
        stride: Tokens from one window to the next. By default `size`: windows do not overlap.
        time: One of the times; by default, all.
        level: 0 is the map, 1 and more are overviews.
        target: `[H, W]` of numbers on the grid of the map, such as classes drawn with `rasterio.features.rasterize`.
            Whole numbers become int64, others float32. Beyond the edge of the map they are -100, which `cross_entropy`
            ignores, and NaN.

    Raises:
        SpecError: There is no such time or level, the target is not on the grid, or no window has a token.
        StorageError: There is no map.
    """

    def __init__(
        self,
        region: EmbeddingMap | str | Path,
        size: int | None = None,
        *,
        stride: int | None = None,
        time: "Time" = None,
        level: int = 0,
        target: NDArray[np.generic] | None = None,
    ) -> None:
        opened = open_region(region) if isinstance(region, str | Path) else region
        self._path, self._number, self._opened = opened.path, level, (os.getpid(), opened)
        one = opened.level(level)
        self.size: int = one.block if size is None else require_whole("size", size, 1, _LARGEST_SIDE)
        """Side of a window, tokens."""
        step = self.size if stride is None else require_whole("stride", stride, 1, self.size)
        if target is not None and np.shape(target) != tuple(one.geobox.shape):
            raise SpecError(
                f"Expected a target on the grid of the map, {tuple(one.geobox.shape)}, got {np.shape(target)}.",
                fix="rasterize it with out_shape=region.geobox.shape and transform=region.geobox.affine",
            )
        self._target = None if target is None else _as_torch_takes(np.asarray(target))
        times = range(one.times) if time is None else (opened.time_number(time),)
        self.windows: tuple[tuple[int, int, int], ...] = tuple(
            (moment, row, col) for moment in times for row, col in _corners(opened, one, moment, self.size, step)
        )
        """Time, row and column of each item."""
        if not self.windows:
            raise SpecError("Expected a window with tokens, got none.", fix="see region.done: make the map first")

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_opened": (0, None)}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        moment, row, col = self.windows[index]
        level = self._level()
        whole = Cells(row, col, self.size, self.size)
        part = whole.within(level.whole)
        found: dict[str, Tensor | int] = {
            "tokens": self._padded(level.read(moment, part.rows, part.cols), np.nan),
            "valid": self._padded(level.valid(moment, part.rows, part.cols), 0),
            "row": row,
            "col": col,
            "time": moment,
        }
        if self._target is not None:
            values = self._target[part.rows, part.cols]
            found["target"] = self._padded(values, np.nan if values.dtype.kind == "f" else _IGNORED)
        return found

    def _level(self) -> Level:
        process, opened = self._opened
        if opened is None or process != os.getpid():
            opened = EmbeddingMap(self._path)
            self._opened = (os.getpid(), opened)
        return opened.level(self._number)

    def _padded(self, values: NDArray[np.generic], fill: float) -> Tensor:
        """Fill up the last two axes to the size of a window."""
        height, width = values.shape[-2:]
        around = [(0, 0)] * (values.ndim - 2) + [(0, self.size - height), (0, self.size - width)]
        return torch.from_numpy(np.pad(values, around, constant_values=fill))


def _as_torch_takes(target: NDArray[np.generic]) -> NDArray[np.generic]:
    """Convert whole numbers to int64, which has room for -100, and others to float32, as tokens are."""
    return target.astype(np.int64 if target.dtype.kind in "biu" else np.float32)


def _corners(opened: EmbeddingMap, level: Level, time: int, size: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield row and column of the windows that overlap the region and a block that is done."""
    done = np.zeros(level.blocks, bool)
    done[tuple(np.array(level.done(time), int).reshape(-1, 2).T)] = True
    region = prepared(opened.region)
    for row in range(0, level.whole.height, step):
        for col in range(0, level.whole.width, step):
            part = Cells(row, col, size, size).within(level.whole)
            top, left = row // level.block, col // level.block
            bottom, right = (row + part.height - 1) // level.block, (col + part.width - 1) // level.block
            box = shapely.box(*part.geobox(level.geobox).boundingbox)
            if done[top : bottom + 1, left : right + 1].any() and shapely.intersects(region, box):
                yield row, col
