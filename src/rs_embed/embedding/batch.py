"""Results of a batch, in the order of its items."""

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
    import pandas as pd

Result = Embedding | Failure


Rows: TypeAlias = "Sequence[bool] | Sequence[int] | NDArray[np.bool_] | NDArray[np.integer] | pd.Series"
"""Which places: a mask over all of them, or their numbers."""


class Embeddings(Sequence[Result]):
    """Embeddings of many places, in their order; `Failure`s among them only if they were to be kept.

    A place is found by its number (`embs[3]`) or its id (`embs["plot 7"]`). A slice, a mask or a list of numbers gives
    `Embeddings` with the ids of those places, and so does `+`; to sort, take the numbers in another order:
    `embs[np.argsort(...)]`. `np.asarray(embs)` is `embs.stack()`.

    Args:
        results: One a place.
        ids: What each place is called.
        kept: Other columns of the table that they come from, a row each.

    Raises:
        InputError: There are not as many ids, or rows, as results.
    """

    def __init__(self, results: Iterable[Result], ids: Sequence[str], kept: Sequence[KeptRow] | None = None) -> None:
        self._results = tuple(results)
        self._kept = tuple(kept) if kept is not None else (KeptRow(),) * len(self._results)
        self.ids: tuple[str, ...] = tuple(ids)
        """What each place is called: as the table says, or its number."""
        for what, count in (("an id", len(self.ids)), ("a row", len(self._kept))):
            if count != len(self._results):
                raise InputError(
                    f"Expected {what} for each of {len(self._results)} results, got {count}.", fix="one for each"
                )

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int | np.integer | str) -> Result: ...
    @overload
    def __getitem__(self, index: "slice | Rows") -> "Embeddings": ...
    def __getitem__(self, index: "int | np.integer | str | slice | Rows") -> "Result | Embeddings":
        """One result, or some of them with their ids.

        Raises:
            IndexError: There is no such number.
            SpecError: There is no such id, or several places have it; a mask of another length.
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
                fix=f"did you mean {guess!r}?" if guess and not rows else "look at .ids; numbers work, too: embs[0]",
            )
        return rows[0]

    def _rows_of(self, which: NDArray[np.generic]) -> list[int]:
        if which.dtype == bool:
            if which.shape != (len(self),):
                raise SpecError(
                    f"Expected a mask of {len(self)} places, got the shape {which.shape}.",
                    fix="one value a place, in their order",
                )
            which = np.flatnonzero(which)
        if which.ndim != 1 or (which.size and which.dtype.kind not in "iu"):
            raise SpecError(
                f"Expected numbers of places or a mask, got {which.dtype} {which.shape}.",
                fix='embs[3], embs["id"], embs[:10], embs[[0, 2]] or embs[mask]',
            )
        return [int(row) for row in which.astype(np.intp)]

    def __add__(self, other: "Embeddings") -> "Embeddings":
        """Both, with their ids."""
        if not isinstance(other, Embeddings):
            return NotImplemented
        return Embeddings([*self, *other], [*self.ids, *other.ids], [*self._kept, *other._kept])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        """See `stack`."""
        if copy is False:
            raise ValueError("Embeddings are stacked into an array of their own, which is a copy.")
        return np.asarray(self.stack(), dtype=dtype)

    def __repr__(self) -> str:
        from rs_embed.embedding.show import embeddings_line

        return embeddings_line(self)

    def _repr_html_(self) -> str:
        from rs_embed.embedding.show import embeddings_html

        return safely(self, embeddings_html)

    @property
    def failures(self) -> list[Failure]:
        """The items that could not be done."""
        return [one for one in self if isinstance(one, Failure)]

    def stack(self) -> NDArray[np.float32]:
        """All as one array: `[N, D]` of vectors, `[N, D, H, W]` of grids; NaN where an item failed.

        Raises:
            InputError: Grids of different shapes, or nothing but failures.
        """
        shapes = {one.data.shape for one in self if isinstance(one, Embedding)}
        if len(shapes) != 1:
            raise InputError(
                f"Expected embeddings of one shape, got {', '.join(map(str, sorted(shapes))) or 'none'}.",
                fix="ask for places of one size, or take the items one by one",
            )
        hole = np.full(shapes.pop(), np.nan, np.float32)
        return np.stack([one.data if isinstance(one, Embedding) else hole for one in self])

    def to_frame(self) -> "pd.DataFrame":
        """A row per item, by id: what it is of, how it went, and its vector (an array in the column `embedding`).

        The columns of the user's table that were kept come first.
        """
        import pandas as pd  # slow to import, and only people need it

        frame = pd.concat([frame_of(self._kept), pd.DataFrame([_row(one) for one in self])], axis=1)
        return frame.set_index(pd.Index(self.ids, name="id"))


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
