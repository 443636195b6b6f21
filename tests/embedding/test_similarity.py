"""Likeness is the cosine of the angle, and a map of it lies where the grid lies."""

from dataclasses import replace

import numpy as np
import pytest
from made_rows import embedding

from rs_embed.core.specs import PointBuffer
from rs_embed.embedding.similarity import cosine
from rs_embed.errors import SpecError

PLACE = PointBuffer(-72.5, -38.8, 400)


def test_two_vectors_give_a_number():
    one, other = embedding(seed=1), embedding(seed=2)
    expected = one.data @ other.data / np.linalg.norm(one.data) / np.linalg.norm(other.data)
    assert one.similarity(other) == pytest.approx(expected, abs=1e-6)
    assert one.similarity(one) == pytest.approx(1, abs=1e-6)
    assert one.similarity(replace(one, data=-3 * one.data)) == pytest.approx(-1, abs=1e-6)


def test_a_vector_and_a_grid_give_a_map_at_the_place_of_the_grid():
    grid = embedding(PLACE, grid=True)
    cell = embedding(PLACE)
    cell = replace(cell, data=grid.data[:, 2, 5].copy())
    found = cell.similarity(grid)
    assert found.dims == ("y", "x") and found.shape == grid.data.shape[1:]
    assert np.unravel_index(found.to_numpy().argmax(), found.shape) == (2, 5)
    left, top = grid.geobox.affine.c, grid.geobox.affine.f
    assert (found.x.to_numpy()[5], found.y.to_numpy()[2]) == (left + 5.5 * 80, top - 2.5 * 80)
    assert "UTM zone 18S" in found.spatial_ref.attrs["crs_wkt"]
    np.testing.assert_array_equal(found, grid.similarity(cell))


def test_two_grids_are_compared_cell_by_cell():
    grid = embedding(PLACE, grid=True)
    changed = grid.data.copy()
    changed[:, 1, 1] *= -1
    found = grid.similarity(replace(grid, data=changed)).to_numpy()
    assert found[1, 1] == pytest.approx(-1) and found[0, 0] == pytest.approx(1)
    with pytest.raises(SpecError, match="same ground"):
        grid.similarity(embedding(PointBuffer(-72.4, -38.8, 400), grid=True))


def test_cells_without_a_value_have_no_likeness():
    grid = embedding(PLACE, grid=True)
    data = grid.data.copy()
    data[:, 0, 0], data[:, 0, 1] = np.nan, 0
    found = embedding(PLACE).similarity(replace(grid, data=data)).to_numpy()
    assert np.isnan(found[0, :2]).all() and np.isfinite(found[1:]).all()


def test_embeddings_of_other_models_are_not_compared():
    one = embedding()
    other = replace(one, meta=one.meta.model_copy(update={"weights": "random:1"}))
    with pytest.raises(SpecError, match="same model") as caught:
        one.similarity(other)
    assert "random:1" in str(caught.value)


def test_a_grid_without_a_place_gives_a_map_without_one():
    grid = replace(embedding(PLACE, grid=True), geobox=None)
    assert "x" not in embedding(PLACE).similarity(grid).coords


def test_long_vectors_lose_nothing():
    ones = np.ones((1, 4096), np.float32) * 1e19
    assert cosine(ones, ones)[0] == 1


@pytest.mark.parametrize("other", [np.ones(3, np.float32), "vector", None])
def test_what_is_no_embedding_is_not_compared(other):
    with pytest.raises(SpecError, match="Expected an Embedding, got"):
        embedding().similarity(other)
