"""How alike embeddings are, by the angle between them."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rs_embed.embedding import Embedding
from rs_embed.errors import SpecError
from rs_embed.geo import with_coordinates


def similarity(one: Embedding, other: Embedding) -> float | xr.DataArray:
    """See `Embedding.similarity`."""
    if not isinstance(other, Embedding):
        raise SpecError(
            f"Wanted an Embedding, found {type(other).__name__}.",
            fix="for bare vectors: rs_embed.similarity.cosine(one, other)",
        )
    _check_comparable(one, other)
    if not (one.is_grid or other.is_grid):
        return float(cosine(one.data, other.data))
    grid = one if one.is_grid else other
    values = cosine(_channels_last(one), _channels_last(other))
    name = f"cosine similarity of {one.meta.model_id}"
    return _map(values, grid.geobox, name)


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine over the last axis; the others broadcast. NaN where a vector is zero or has no value."""
    dot = np.einsum("...d,...d->...", one, other, dtype=np.float64)
    norms = np.linalg.norm(one.astype(np.float64), axis=-1) * np.linalg.norm(other.astype(np.float64), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float32] = np.clip(dot / np.where(norms == 0, np.nan, norms), -1, 1).astype(np.float32)
    return cosines


def _channels_last(embedding: Embedding) -> NDArray[np.float32]:
    return np.moveaxis(embedding.data, 0, -1)


def _map(values: NDArray[np.float32], geobox: GeoBox | None, name: str) -> xr.DataArray:
    array = xr.DataArray(values, dims=("y", "x"), name="similarity", attrs={"long_name": name})
    return array if geobox is None else with_coordinates(array, geobox)


def _check_comparable(one: Embedding, other: Embedding) -> None:
    found = [(e.meta.model_id, e.meta.card_revision, e.meta.weights, e.data.shape[0]) for e in (one, other)]
    if found[0] != found[1]:
        raise SpecError(
            "Wanted two embeddings of the same model, found others: their axes mean different things.",
            one=_describe(found[0]),
            other=_describe(found[1]),
            fix="compute both with the same model and weights",
        )
    if one.is_grid and other.is_grid and (one.data.shape != other.data.shape or one.geobox != other.geobox):
        raise SpecError(
            f"Wanted two grids of the same ground, found {one!r} and {other!r}.",
            fix="compare a vector with a grid, or grids of the same place",
        )


def _describe(facts: tuple[str, int, str, int]) -> str:
    model_id, revision, weights, dim = facts
    return f"{model_id} revision {revision}, weights {weights}, {dim} dimensions"
