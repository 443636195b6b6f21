"""Text of a million rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Strings:
    """A column of text as one buffer: neither an object a row, nor the width of the longest."""

    data: NDArray[np.uint8]
    """UTF-8 of all rows, one after the other."""
    offsets: NDArray[np.int64]
    """Where each row starts, and where the last one ends: `[N + 1]`."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """A column of these texts."""
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
        """These rows, in this order."""
        return Strings.of([self[index] for index in indices.tolist()])
