"""Results of a batch, in the order of its items."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rs_embed._redact import redacted
from rs_embed.embedding import Embedding
from rs_embed.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Stage = Literal["fetch", "prepare", "encode"]


@dataclass(frozen=True)
class Failure:
    """An item that could not be done, and why. The others go on."""

    index: int
    stage: Stage
    error: Exception

    def __str__(self) -> str:
        return redacted(f"{self.stage}: {type(self.error).__name__}: {self.error}")


Result = Embedding | Failure


class Embeddings(list[Result]):
    """Embeddings of many places, in their order; `Failure`s among them only if they were to be kept."""

    def __init__(self, results: Iterable[Result], ids: Sequence[str]) -> None:
        super().__init__(results)
        self.ids = tuple(ids)
        """What each place is called: as the table says, or its number."""

    def __repr__(self) -> str:
        first = f", the first: {self[0]!r}" if self else ""
        return f"Embeddings({len(self)}, {len(self.failures)} failed{first})"

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
                f"Wanted embeddings of one shape, found {', '.join(map(str, sorted(shapes))) or 'none'}.",
                fix="ask for places of one size, or take the items one by one",
            )
        hole = np.full(shapes.pop(), np.nan, np.float32)
        return np.stack([one.data if isinstance(one, Embedding) else hole for one in self])

    def to_frame(self) -> "pd.DataFrame":
        """A row per item, by id: what it is of, how it went, and its vector (an array in the column `embedding`)."""
        import pandas as pd  # slow to import, and only people need it

        return pd.DataFrame([_row(one) for one in self], index=pd.Index(self.ids, name="id"))


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
