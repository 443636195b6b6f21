"""Text columns for millions of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Strings:
    """A column of text in one buffer, without one object per row or the width of the longest text."""

    data: NDArray[np.uint8]
    """UTF-8 bytes of all rows, one after the other."""
    offsets: NDArray[np.int64]
    """Start of each row in `data`, and the end of the last: `[N + 1]`."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Make a column of texts."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(one) for one in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.data[start:end].tobytes().decode("utf-8", "surrogatepass")

    def take(self, indices: NDArray[np.int64]) -> "Strings":
        """Select rows, in this order."""
        return Strings.of([self[index] for index in indices.tolist()])
