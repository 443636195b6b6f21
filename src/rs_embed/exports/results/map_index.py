"""The index of a map's tokens, kept beside the map: built block by block, and used while the map does not change."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.core.atomic import locked, make_folder, part_of, remove, remove_parts, storing
from rs_embed.core.geo import prepared
from rs_embed.core.optional import require
from rs_embed.core.progress import Advance, progress_bar
from rs_embed.errors import SpecError
from rs_embed.exports.results.index import IndexFacts, VectorIndex, damaged
from rs_embed.exports.results.index_build import build, sample_for
from rs_embed.exports.results.kept_index import DIGEST, FOLDER, IndexReport, records_digest
from rs_embed.exports.results.map_level import Cells, Level, tokens_in
from rs_embed.exports.results.map_search import TokenSearch, best_of
from rs_embed.exports.unit import RECORDS

if TYPE_CHECKING:
    from rs_embed.exports.results.embedding_map import EmbeddingMap

BLOCKS = "blocks.npy"
"""Time, row and column of each block in the index, `[n, 3]`. The id of a token is the place of its block in this list,
times the tokens of a block, plus the place of the token in its block."""
_SHARE = 0.25
"""Share of the tokens of a window that the sample takes, so that it comes from windows all over the map."""


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a map in windows, with their ids."""

    level: Level
    blocks: NDArray[np.int64]

    def windows(self) -> list[tuple[int, int, Cells]]:
        """Number of the block, time and cells of each window."""
        number = {tuple(block): at for at, block in enumerate(self.blocks.tolist())}
        side = self.level.block
        return [
            (number[time, window.row // side, window.col // side], time, window)
            for time in sorted(set(self.blocks[:, 0].tolist()))
            for window in self.level.windows(time)
        ]

    def read(self, number: int, time: int, window: Cells) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids `[n]` and vectors `[n, D]` of the tokens with a value."""
        side = self.level.block
        rows = np.arange(window.row, window.row + window.height)[:, None] % side
        cols = np.arange(window.col, window.col + window.width)[None] % side
        values = self.level.tokens(time, window)
        there = np.isfinite(values).all(axis=-1)
        return (number * side * side + rows * side + cols)[there], values[there]

    def all(self, advance: Advance) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for number, time, window in self.windows():
            yield self.read(number, time, window)
            advance(1, 0)

    def sample(self, wanted: int) -> NDArray[np.float32]:
        """About so many vectors, from windows all over the map."""
        windows, rng = self.windows(), np.random.default_rng(0)
        found: list[NDArray[np.float32]] = []
        for at in rng.permutation(len(windows)).tolist():
            _, vectors = self.read(*windows[at])
            share = max(_SHARE, wanted / (len(windows) * max(1, len(vectors))))
            found.append(vectors[rng.permutation(len(vectors))[: round(min(1, share) * len(vectors))]])
            if sum(map(len, found)) >= wanted:
                break
        return np.concatenate(found)[:wanted] if found else np.empty((0, self.level.dim), np.float32)


def build_map_index(whole: "EmbeddingMap", *, progress: bool = True) -> IndexReport:
    """See `EmbeddingMap.build_index`."""
    require("faiss", "search")
    model, level = whole.path.parent, whole.levels[0]
    folder = model.parent / FOLDER / model.name
    if not (model / RECORDS).is_dir():
        raise SpecError(
            f"Expected a map in the folder of its run, got no records beside {str(whole.path)!r}.",
            fix="open the folder that was the `out` of embed_region",
        )
    with locked(model.parent), storing(folder):
        done = [(time, *block) for time in range(level.times) for block in level.done(time)]
        tokens = _Tokens(level, np.array(done, np.int64).reshape(-1, 3))
        share = whole.region.area / abs(level.geobox.affine.determinant) / max(1, whole.blocks // level.times)
        count = round(share * len(done))  # about; blocks at the border have fewer
        make_folder(folder.parent)
        remove_parts(folder.parent)
        blocks = part_of(folder.with_name(BLOCKS))
        try:
            with blocks.open("wb") as file:
                np.save(file, tokens.blocks)
            with progress_bar(len(tokens.windows()), shown=progress, label="index", unit="windows") as advance:
                facts = build(
                    tokens.all(advance),
                    folder,
                    sample=tokens.sample(sample_for(count)),
                    count=count,
                    about={DIGEST: records_digest(model)},
                    beside={BLOCKS: blocks},
                )
        finally:
            remove(blocks)
    return IndexReport.of(folder, facts)


class MapIndex:
    """An open index made by `build_map_index`.

    Args:
        level: The tokens of the map.
        folder: Folder of the index.
        facts: Its metadata.

    Raises:
        StorageError: It is damaged.
        MissingDependency: The extra `search` is not installed.
    """

    def __init__(self, level: Level, folder: Path, facts: IndexFacts) -> None:
        self._level, self._vectors = level, VectorIndex(folder, facts)
        if (fault := facts.files[BLOCKS].fault(folder / BLOCKS)) is not None:
            raise damaged(folder, f"{BLOCKS} is {fault}")
        self._blocks: NDArray[np.int64] = np.load(folder / BLOCKS)
        self.attrs = {"exact": False, "recall": facts.recall, "index": facts.library}

    def search(self, asked: TokenSearch, vector: NDArray[np.float32]) -> NDArray[np.float64]:
        """Similarity, row, column and time of the best tokens, `[n, 4]`."""
        top = min(asked.top + 1, len(self._vectors))  # the place itself is left out
        ids, cosines = self._vectors.search(vector[None], top, only=self._mask(asked))
        there, side = ids[0] >= 0, self._level.block
        blocks, cells = np.divmod(ids[0][there], side * side)
        times, rows, cols = self._blocks[blocks].T
        found = [cosines[0][there], rows * side + cells // side, cols * side + cells % side, times]
        return best_of(np.stack(found, axis=1).astype(np.float64), asked)

    def _mask(self, asked: TokenSearch) -> NDArray[np.bool_] | None:
        """Which ids may be found; `None` means all."""
        at_time = np.isin(self._blocks[:, 0], asked.times)
        if asked.within is None and at_time.all():
            return None
        side = self._level.block
        mask = np.zeros((len(self._blocks), side, side), np.bool_)
        if asked.within is None:
            mask[at_time] = True
            return mask.ravel()
        grids = [self._grid(row, col) for _, row, col in self._blocks.tolist()]
        boxes = shapely.box(*np.array([grid.boundingbox.bbox for grid in grids]).reshape(-1, 4).T)
        within = prepared(asked.within)
        covered = shapely.covers(within, boxes)
        mask[at_time & covered] = True
        partly = at_time & shapely.intersects(within, boxes) & ~covered
        for number in np.flatnonzero(partly).tolist():
            mask[number] = tokens_in(asked.within, grids[number])
        return mask.ravel()

    def _grid(self, row: int, col: int) -> GeoBox:
        side = self._level.block
        return Cells(row * side, col * side, side, side).geobox(self._level.geobox)
