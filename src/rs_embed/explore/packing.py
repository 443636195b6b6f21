"""Vectors as a page holds them: small numbers as text, their principal components, and how much was lost."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from rs_embed.embedding.components import STRETCH_PERCENT, stretched

Stored = Literal["auto", "float32", "int8", "pca64"]
STORED: tuple[str, ...] = get_args(Stored)
"""How a page holds vectors: as they are, as int8, or as int8 of 64 principal components."""
COMPONENTS = 6
"""Principal components to choose the three colours from."""
_PCA_DIM = 64
_FITTED = 20_000
"""Vectors that components are fitted on; of more, every n-th is taken."""
_INT8_MAX = 127
_FLOAT32_MB = 5.0
"""Vectors up to this size stand in a page as they are."""
_SHARE = 0.75
"""Of a page, for vectors; the rest is for pictures, components and tables."""
BASE64 = 4 / 3
"""Characters of text for a byte."""


@dataclass
class Blobs:
    """Arrays that stand in the page as base64 text, each in an element of its own."""

    texts: list[str] = field(default_factory=list)

    def add(self, values: NDArray[np.generic]) -> JsonValue:
        """Add an array of int8, uint8, float32 or float64; return what the page needs to find it."""
        whole = np.ascontiguousarray(values)
        self.texts.append(base64.b64encode(whole.astype(whole.dtype.newbyteorder("<")).tobytes()).decode("ascii"))
        return {"id": len(self.texts) - 1, "dtype": str(values.dtype)}


class InlineBlobs(Blobs):
    """Arrays that stand where they are named: in the answer of a server."""

    def add(self, values: NDArray[np.generic]) -> JsonValue:
        """Return the array itself, for the page."""
        super().add(values)
        return {"text": self.texts.pop(), "dtype": str(values.dtype)}


@dataclass(frozen=True, eq=False)
class Packed:
    """Vectors in the form of a page: `offset + scale * stored`."""

    stored: NDArray[np.generic]
    """`[N, D]`, float32 or int8; 0 without a value."""
    scale: NDArray[np.float32] | None
    """`[D]`; `None` for float32."""
    offset: NDArray[np.float32] | None
    text: str
    """What was done, for the reader of the page."""

    def restored(self) -> NDArray[np.float32]:
        """Return the vectors as the page sees them, `[N, D]`."""
        values: NDArray[np.float32] = self.stored.astype(np.float32)
        return values if self.scale is None or self.offset is None else self.offset + self.scale * values


def have_values(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of the vectors `[N, D]` have a value, `[N]`."""
    return np.asarray(np.isfinite(vectors).all(axis=1))


def packed_bytes(count: int, dim: int, how: str) -> float:
    """Return the size of `count` vectors in a page."""
    wide = min(dim, _PCA_DIM) if how == "pca64" else dim
    return BASE64 * count * wide * (4 if how == "float32" else 1)


def chosen_form(shapes: Sequence[tuple[int, int]], max_mb: float) -> str:
    """Choose the most exact form that leaves a page small.

    Args:
        shapes: Number and length of the vectors of each layer.
        max_mb: Largest size of the page, MB.
    """

    def megabytes(how: str) -> float:
        return sum(packed_bytes(count, dim, how) for count, dim in shapes) / 1e6

    if megabytes("float32") <= min(_FLOAT32_MB, max_mb):
        return "float32"
    return "int8" if megabytes("int8") <= _SHARE * max_mb else "pca64"


def pack(vectors: NDArray[np.float32], how: str) -> Packed:
    """Pack vectors `[N, D]` as float32, int8 or pca64; those with NaN become 0."""
    valid = have_values(vectors)
    if how == "float32":
        return Packed(np.where(valid[:, None], vectors, np.float32(0)), None, None, "float32, as computed")
    text = "int8, a factor for each dimension"
    if how == "pca64" and vectors.shape[1] > _PCA_DIM:
        vectors, share = _reduced(vectors, valid)
        text = f"int8 of {_PCA_DIM} principal components, which hold {100 * share:.2f} % of the variance"
    known = vectors[valid]
    offset = ((known.min(axis=0) + known.max(axis=0)) / 2).astype(np.float32)
    scale = np.maximum(np.abs(known - offset).max(axis=0) / _INT8_MAX, np.finfo(np.float32).tiny).astype(np.float32)
    stored = np.zeros(vectors.shape, np.int8)
    stored[valid] = np.rint((known - offset) / scale).clip(-_INT8_MAX, _INT8_MAX).astype(np.int8)
    return Packed(stored, scale, offset, text)


def _reduced(vectors: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Project on the principal axes about zero, which keep products of vectors; also return the share of the variance.

    About zero, and not about the mean: the cosine of two vectors is then that of their projections, but for what the
    axes leave out.
    """
    known = vectors[valid]
    axes = _axes(known[:: -(-len(known) // _FITTED)], _PCA_DIM)
    parts = np.full((len(vectors), len(axes)), np.nan, np.float32)
    parts[valid] = known @ axes.T
    lost = np.square(known - parts[valid] @ axes).sum(dtype=np.float64)
    whole = np.square(known - known.mean(axis=0)).sum(dtype=np.float64)
    return parts, float(1 - lost / whole) if whole > 0 else 1.0


def _axes(some: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the axes `[K, D]` with the largest sums of squares, largest first, each with a positive largest weight."""
    many = some.astype(np.float64)
    _, vectors = np.linalg.eigh(many.T @ many)
    axes = vectors.T[::-1][:count]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1))
    turned: NDArray[np.float32] = (axes * np.where(signs == 0, 1, signs)).astype(np.float32)
    return turned


@dataclass(frozen=True, eq=False)
class PageComponents:
    """Principal components of vectors about their mean, and the stretch that makes bytes of them."""

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    """`[K, D]`, K up to 6, largest variance first."""
    low: NDArray[np.float64]
    """`[K]`: what becomes 0, the 2nd percentile."""
    high: NDArray[np.float64]
    """`[K]`: what becomes 255, the 98th."""
    shares: tuple[float, ...]
    """Share of the variance of each."""

    @classmethod
    def fit(cls, vectors: NDArray[np.float32]) -> Self:
        """Compute them for vectors `[N, D]`, of which those with NaN are left out."""
        known = vectors[have_values(vectors)]
        mean = known.mean(axis=0)
        centred = known - mean
        axes = _axes(centred[:: -(-len(centred) // _FITTED)], COMPONENTS)
        parts = centred @ axes.T
        low, high = np.percentile(parts, STRETCH_PERCENT, axis=0)
        whole = max(float(np.square(centred).sum(dtype=np.float64)), np.finfo(np.float64).tiny)
        shares = tuple(float(part) / whole for part in np.square(parts).sum(axis=0, dtype=np.float64))
        return cls(mean, axes, low, high, shares)

    def of(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the components of vectors, `[N, K]`; NaN without a value."""
        known = have_values(vectors)
        parts = np.full((len(vectors), len(self.axes)), np.nan, np.float32)
        parts[known] = (vectors[known] - self.mean) @ self.axes.T
        return parts

    def bytes(self, vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the components of vectors as 0..255, `[N, K]`; 0 without a value."""
        parts = self.of(vectors)
        known = have_values(parts)
        colours = np.zeros(parts.shape, np.uint8)
        colours[known] = np.rint(255 * stretched(parts[known], self.low, self.high)).astype(np.uint8)
        return colours
