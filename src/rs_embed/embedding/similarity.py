"""Cosine similarity and change between embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rs_embed.core.geo import with_coordinates
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import SpecError


def similarity(one: Embedding, other: Embedding, *, debias: bool = True) -> float | xr.DataArray:
    """Compute the cosine similarity of two embeddings; see `Embedding.similarity`."""
    one, other = _comparable(one, other, debias=debias)
    if not (one.is_grid or other.is_grid):
        return float(cosine(one.data, other.data))
    grid = one if one.is_grid else other
    values = cosine(_channels_last(one), _channels_last(other))
    return _map(values, grid, "similarity", "cosine similarity")


def change(one: Embedding, other: Embedding, *, debias: bool = True) -> xr.DataArray:
    """Compute the change between two grids; see `Embedding.change`."""
    one, other = _comparable(one, other, debias=debias)
    if not (one.is_grid and other.is_grid):
        raise SpecError(f"Expected two grids, got {one!r} and {other!r}.", fix="request output=OutputSpec.grid()")
    return _map(1 - cosine(_channels_last(one), _channels_last(other)), one, "change", "1 - cosine similarity")


def token_state(grid: Embedding) -> str:
    """Return a label for the tokens shown: raw or debiased; empty if they do not depend on their position."""
    if _taken_out(grid):
        return "place in the window taken out"
    return "" if grid.meta.placed is False else "raw tokens"


def _taken_out(grid: Embedding) -> bool:
    return grid.meta.debias is not None and grid.meta.debias.windows > 0


def _comparable(one: Embedding, other: Embedding, *, debias: bool) -> tuple[Embedding, Embedding]:
    """Return the two embeddings in the form in which they are compared: debiased if both grids can be."""
    if not isinstance(other, Embedding):
        raise SpecError(
            f"Expected an Embedding, got {type(other).__name__}.",
            fix="for bare vectors, call rs_embed.embedding.similarity.cosine(one, other)",
        )
    _check_comparable(one, other)
    grids = [embedding for embedding in (one, other) if embedding.is_grid]
    if debias and all(grid.position_means is not None or _taken_out(grid) for grid in grids):
        one, other = one.debiased(), other.debiased()
    elif len({_taken_out(grid) for grid in grids}) > 1:
        raise SpecError(
            "Expected position offsets to be subtracted from both grids or from neither, got one of each.",
            fix='compute both with output=OutputSpec.grid(debias="position"), or both without',
        )
    return one, other


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the cosine over the last axis; the other axes broadcast. NaN where a vector is zero or has no value."""
    dot = np.einsum("...d,...d->...", one, other, dtype=np.float64)
    norms = np.linalg.norm(one.astype(np.float64), axis=-1) * np.linalg.norm(other.astype(np.float64), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float32] = np.clip(dot / np.where(norms == 0, np.nan, norms), -1, 1).astype(np.float32)
    return cosines


def most_alike(
    parts: Iterable[tuple[NDArray[np.intp], NDArray[np.float32]]], vector: NDArray[np.float32], count: int, top: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find the places whose vectors are most similar to a vector. Places without a value are left out.

    Args:
        parts: Indices of places with their vectors `[n, D]`, some at a time.
        vector: The vector to compare with, `[D]`.
        count: Total number of places.
        top: Number of places to return.

    Returns:
        Indices of the most similar places, best first, and their similarities.
    """
    likeness = np.full(count, np.nan, np.float32)
    for places, part in parts:
        likeness[places] = cosine(part, vector)
    best = np.argsort(-np.nan_to_num(likeness, nan=-np.inf), kind="stable")[
        : min(top, int(np.isfinite(likeness).sum()))
    ]
    return best, likeness[best]


def _channels_last(embedding: Embedding) -> NDArray[np.float32]:
    return np.moveaxis(embedding.data, 0, -1)


def _map(values: NDArray[np.float32], grid: Embedding, name: str, what: str) -> xr.DataArray:
    state = token_state(grid)
    about = f"{what} of {grid.meta.model_id}" + (f", {state}" if state else "")
    array = xr.DataArray(values, dims=("y", "x"), name=name, attrs={"long_name": about})
    return array if grid.geobox is None else with_coordinates(array, grid.geobox)


@dataclass(frozen=True)
class ModelFacts:
    """The facts that two embeddings must share to be comparable."""

    model_id: str
    card_revision: int
    weights: str
    dim: int

    @classmethod
    def of(cls, one: Embedding) -> Self:
        """Return the facts of an embedding."""
        return cls(one.meta.model_id, one.meta.card_revision, one.meta.weights, one.data.shape[0])

    def __str__(self) -> str:
        return f"{self.model_id} revision {self.card_revision}, weights {self.weights}, {self.dim} dimensions"


def require_same_model(one: ModelFacts, other: ModelFacts, name: str = "other") -> None:
    """Raise `SpecError` unless two embeddings come from the same model and weights."""
    if one != other:
        raise SpecError(
            "Expected two embeddings of the same model and weights, got different ones, whose axes are unrelated.",
            **{"one": one, name: other},
            fix="compute both with the same model and weights",
        )


def _check_comparable(one: Embedding, other: Embedding) -> None:
    require_same_model(ModelFacts.of(one), ModelFacts.of(other))
    if one.is_grid and other.is_grid and (one.data.shape != other.data.shape or one.geobox != other.geobox):
        raise SpecError(
            f"Expected two grids of the same ground, got {one!r} and {other!r}.",
            fix="compare two grids of the same place, or a vector with a grid",
        )
