"""The results of a batch, in the order of its items."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rs_embed.core.bands import nearest
from rs_embed.core.display import safely
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import Failure, InputError, SpecError
from rs_embed.places.kept import KeptRow, frame_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from rs_embed.embedding.joining import Table
    from rs_embed.explore.packing import Stored
    from rs_embed.explore.plane import Projection
    from rs_embed.explore.tiles import BaseMap
    from rs_embed.explore.widget import PageWidget

Result = Embedding | Failure


Rows: TypeAlias = "Sequence[bool] | Sequence[int] | NDArray[np.bool_] | NDArray[np.integer] | pd.Series"
"""A selection of places: a Boolean mask over all of them, or their indices."""


class Embeddings(Sequence[Result]):
    """The embeddings of many places, in their order. It contains `Failure`s only if you asked to keep them.

    Select one place by its index (`embs[3]`) or its id (`embs["plot 7"]`). A slice, a mask or a list of indices returns
    `Embeddings` with the ids of those places, and so does `+`. To sort, index with an order: `embs[np.argsort(...)]`.
    `np.asarray(embs)` equals `embs.stack()`.

    Args:
        results: One `Embedding` or `Failure` per place.
        ids: The id of each place.
        kept: The other columns of the table of places, one row per place.

    Raises:
        InputError: The number of ids or rows differs from the number of results.
    """

    def __init__(self, results: Iterable[Result], ids: Sequence[str], kept: Sequence[KeptRow] | None = None) -> None:
        self._results = tuple(results)
        self._kept = tuple(kept) if kept is not None else (KeptRow(),) * len(self._results)
        self.ids: tuple[str, ...] = tuple(ids)
        """The id of each place: from the table of places, else its index."""
        for what, count in (("an id", len(self.ids)), ("a row", len(self._kept))):
            if count != len(self._results):
                raise InputError(
                    f"Expected {what} for each of {len(self._results)} results, got {count}.", fix="pass one per result"
                )

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int | np.integer | str) -> Result: ...
    @overload
    def __getitem__(self, index: "slice | Rows") -> "Embeddings": ...
    def __getitem__(self, index: "int | np.integer | str | slice | Rows") -> "Result | Embeddings":
        """Return one result by index or id, or `Embeddings` for a slice, mask or list of indices.

        Raises:
            IndexError: An index is out of range.
            SpecError: An id is unknown or not unique, or a mask has the wrong length.
        """
        if isinstance(index, str):
            return self._results[self._row_of(index)]
        if isinstance(index, slice):
            return Embeddings(self._results[index], self.ids[index], self._kept[index])
        if isinstance(index, int | np.integer):
            return self._results[index]
        rows = self._rows_of(np.asarray(index))
        results, ids = [self._results[row] for row in rows], [self.ids[row] for row in rows]
        return Embeddings(results, ids, [self._kept[row] for row in rows])

    def _row_of(self, name: str) -> int:
        rows = [row for row, one in enumerate(self.ids) if one == name]
        if len(rows) != 1:
            guess = nearest(name, self.ids)
            raise SpecError(
                f"Expected one place with the id {name!r}, got {len(rows)} among {len(self)}.",
                fix=f"did you mean {guess!r}?" if guess and not rows else "see .ids, or use an index: embs[0]",
            )
        return rows[0]

    def _rows_of(self, which: NDArray[np.generic]) -> list[int]:
        if which.dtype == bool:
            if which.shape != (len(self),):
                raise SpecError(
                    f"Expected a mask of {len(self)} places, got the shape {which.shape}.",
                    fix="pass one value per place, in their order",
                )
            which = np.flatnonzero(which)
        if which.ndim != 1 or (which.size and which.dtype.kind not in "iu"):
            raise SpecError(
                f"Expected indices of places or a mask, got {which.dtype} {which.shape}.",
                fix='use embs[3], embs["id"], embs[:10], embs[[0, 2]] or embs[mask]',
            )
        return [int(row) for row in which.astype(np.intp)]

    def __add__(self, other: "Embeddings") -> "Embeddings":
        """Concatenate two results, with their ids."""
        if not isinstance(other, Embeddings):
            return NotImplemented
        return Embeddings([*self, *other], [*self.ids, *other.ids], [*self._kept, *other._kept])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        """Return `stack()`, for `np.asarray(embs)` and functions that take arrays."""
        if copy is False:
            raise ValueError("Embeddings cannot become an array without a copy: stacking them makes one.")
        return np.asarray(self.stack(), dtype=dtype)

    def __repr__(self) -> str:
        from rs_embed.embedding.show import embeddings_line

        return embeddings_line(self)

    def _repr_html_(self) -> str:
        from rs_embed.embedding.show import embeddings_html

        return safely(self, embeddings_html)

    @property
    def failures(self) -> list[Failure]:
        """The items that failed."""
        return [one for one in self if isinstance(one, Failure)]

    def stack(self) -> NDArray[np.float32]:
        """Stack all embeddings into one float32 array.

        Returns:
            `[N, D]` for vectors, `[N, D, H, W]` for grids; NaN where an item failed.

        Raises:
            InputError: The embeddings differ in shape, or every item failed.
        """
        shapes = {one.data.shape for one in self if isinstance(one, Embedding)}
        if len(shapes) != 1:
            raise InputError(
                f"Expected embeddings of one shape, got {', '.join(map(str, sorted(shapes))) or 'none'}.",
                fix="request places of one size, or use the items one by one",
            )
        hole = np.full(shapes.pop(), np.nan, np.float32)
        return np.stack([one.data if isinstance(one, Embedding) else hole for one in self])

    def explore(
        self,
        path: "str | Path" = "explore.html",
        *,
        projection: "Projection" = "pca",
        base_map: "BaseMap | None" = None,
        stored: "Stored" = "auto",
        max_mb: float = 25.0,
    ) -> "Path":
        """Write one HTML file: a map of the places, their principal components and their table, linked.

        Args:
            path: Ends in .html; an existing file is replaced.
            projection: How the vectors come on a plane: by "pca", or by "umap" where umap-learn is installed.
            base_map: See `Embedding.explore`.
            stored: See `Embedding.explore`.
            max_mb: Largest size of the file, MB.

        Raises:
            SpecError: These are grids or come from several models, or the page would be larger than `max_mb`.
            NoValidPixels: Every item failed, or none has a place.
            StorageError: The path does not end in .html, or cannot be written.
        """
        from rs_embed.explore.page import PageOptions
        from rs_embed.explore.points import Dots, explore_points

        dots, credit = Dots.of(self)
        return explore_points(dots, path, credit, projection, PageOptions(base_map, stored, max_mb))

    def widget(
        self,
        *,
        projection: "Projection" = "pca",
        base_map: "BaseMap | None" = None,
        stored: "Stored" = "auto",
        height_px: int = 680,
    ) -> "PageWidget":
        """Show the page of `explore` in a notebook; needs the extra `notebook`.

        Args:
            height_px: Height of the view.

        The other arguments and errors are those of `explore`. `selected` and `labels` of the result are what you have
        clicked and labelled, as GeoDataFrames.

        Raises:
            MissingDependency: anywidget is not installed.
        """
        from rs_embed.explore.notebook import widget_of

        return widget_of(
            lambda page: self.explore(page, projection=projection, base_map=base_map, stored=stored), height_px
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return a table with one row per item, indexed by id.

        The columns kept from the table of places come first, then `status`, `error`, the main metadata, and the array
        in the column `embedding`.
        """
        import pandas as pd  # imported late because it is slow, and only needed here

        frame = pd.concat([frame_of(self._kept), pd.DataFrame([_row(one) for one in self])], axis=1)
        return frame.set_index(pd.Index(self.ids, name="id"))

    def join(self, table: "Table") -> "Table":
        """Return your table with the columns `embedding`, `valid_fraction`, `status` and `error` added.

        Unlike `to_frame`, this keeps everything: the index, the geometry with its CRS, lists, and types of columns.

        Args:
            table: The DataFrame or GeoDataFrame from which the places were read, in the same order.

        Raises:
            InputError: It has another number of rows.
            SpecError: It has one of these columns already.
        """
        import pandas as pd

        from rs_embed.embedding.joining import COLUMNS, joined

        rows = [_row(one) for one in self]
        return joined(table, pd.DataFrame({name: [row.get(name) for row in rows] for name in COLUMNS}))


def _row(one: Result) -> dict[str, object]:
    if isinstance(one, Failure):
        return {"status": "failed", "error": str(one)}
    meta = one.meta
    return {
        "status": "ok",
        "error": None,
        "model_id": meta.model_id,
        "spatial": meta.spatial,
        "temporal": meta.temporal,
        "valid_fraction": meta.valid_fraction,
        "weights": meta.weights,
        "fingerprint": meta.fingerprint,
        "embedding": one.data,
    }
