"""A grid that knows what its tokens carry of their place in the window shows itself without, and says so."""

from dataclasses import replace

import numpy as np
import pytest
from made_rows import embedding

from rs_embed import Embedding, PointBuffer
from rs_embed.core.geo import geobox_for
from rs_embed.embedding.meta import Debiased
from rs_embed.embedding.plot import principal_components
from rs_embed.embedding.position import PositionMeans
from rs_embed.errors import SpecError, StorageError

PLACE = PointBuffer(-72.5, -38.8, 400)
"""10 x 10 cells of 8 px."""


def grids(seed: int = 0) -> tuple[Embedding, Embedding]:
    """A grid of windows of 4 x 4 cells that carry their place, and the ground itself."""
    ground = embedding(PLACE, seed=seed, grid=True)
    assert geobox_for(PLACE).shape == (80, 80)
    values = np.random.default_rng(9).normal(scale=5, size=(64, 4, 4)).astype(np.float32)
    means = PositionMeans(values - values.mean(axis=(1, 2), keepdims=True), (0, 3, 6), (0, 3, 6), 36)
    meta = ground.meta.model_copy(update={"placed": True})
    return replace(ground, data=ground.data + means.field((10, 10)), meta=meta, position_means=means), ground


def test_windows_that_do_not_overlap_stand_side_by_side_and_others_are_blended():
    values = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    apart = PositionMeans(values, (0, 4), (0,), 40).field((7, 4))
    np.testing.assert_allclose(apart[0], np.concatenate([values[0], values[0, :3]]), rtol=1e-6)
    blended = PositionMeans(values, (0, 3), (0,), 40).field((7, 4))
    np.testing.assert_allclose(blended[0, 3], (values[0, 3] + values[0, 0]) / 2, rtol=1e-6)


def test_the_place_is_taken_out_and_the_metadata_say_so():
    grid, ground = grids()
    found = grid.debiased()
    np.testing.assert_allclose(found.data, ground.data, atol=1e-5)
    assert found.meta.debias == Debiased(by="position", estimated_on="region", windows=36)
    assert found.position_means is None and found.debiased() is found and ground.debiased() is ground


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".tif", ".zarr"])
def test_files_keep_what_can_be_taken_out(suffix, tmp_path):
    grid, _ = grids()
    again = Embedding.load(grid.save(tmp_path / f"grid{suffix}"))
    np.testing.assert_array_equal(again.debiased().data, grid.debiased().data)
    means = again.position_means
    assert means is not None and (means.rows, means.cols, means.windows) == ((0, 3, 6), (0, 3, 6), 36)


def test_means_that_were_changed_in_a_file_are_noticed(tmp_path):
    grid, _ = grids()
    path = grid.save(tmp_path / "grid.npz")
    with np.load(path) as arrays:
        changed = {**arrays, "position_means": arrays["position_means"] + 1}
    np.savez(path, allow_pickle=False, **changed)
    with pytest.raises(StorageError, match="does not match its checksum"):
        Embedding.load(path)


def test_a_picture_says_whether_the_place_is_taken_out():
    grid, ground = grids()
    shown, raw = principal_components(grid), principal_components(grid, raw=True)
    assert "place in the window taken out" in shown.title and "raw tokens" in raw.title
    np.testing.assert_allclose(shown.image, principal_components(ground).image, atol=1e-3)
    assert np.abs(raw.image - shown.image).max() > 0.2
    assert "raw tokens" in grid.plot(raw=True).axes[0].get_title()
    one_window = replace(grid, position_means=None)
    assert "raw tokens" in one_window.plot().axes[0].get_title()
    alone = replace(ground, meta=ground.meta.model_copy(update={"placed": False}))
    assert "tokens" not in alone.plot().axes[0].get_title(), "there is nothing to take out"


def test_maps_of_likeness_and_change_are_of_tokens_without_their_place():
    (grid, ground), (later, later_ground) = grids(), grids(seed=1)
    vector = embedding(PLACE, seed=3)
    np.testing.assert_allclose(vector.similarity(grid), vector.similarity(ground), atol=1e-4)
    assert "taken out" in vector.similarity(grid).attrs["long_name"]
    raw = vector.similarity(grid, debias=False)
    assert "raw tokens" in raw.attrs["long_name"] and np.abs(raw - vector.similarity(ground)).max() > 0.05
    changed = grid.change(later)
    assert changed.name == "change" and changed.dims == ("y", "x")
    np.testing.assert_allclose(changed, 1 - ground.similarity(later_ground), atol=1e-4)
    assert changed.mean() > 2 * grid.change(later, debias=False).mean(), "what they share is no likeness of the ground"
    assert float(np.abs(grid.change(grid)).max()) < 1e-6


def test_grids_are_compared_alike_or_not_at_all():
    (grid, ground), (later, _) = grids(), grids(seed=1)
    unknown = replace(later, position_means=None)
    np.testing.assert_array_equal(grid.change(unknown), grid.change(later, debias=False))
    with pytest.raises(SpecError, match="both grids or from neither"):
        grid.debiased().change(unknown)
    with pytest.raises(SpecError, match="Expected two grids"):
        ground.change(embedding(PLACE))
