"""`.emb` gives what `Embedding` gives, on arrays that xarray has cut, opened or stacked."""

import numpy as np
import pytest
import xarray as xr
from made_map import MadeMap
from made_rows import embedding

import rs_embed.xarray  # noqa: F401  (switches `.emb` on)
from rs_embed import open_region
from rs_embed.core.geo import pixel_centres
from rs_embed.core.specs import PointBuffer
from rs_embed.embedding.components import pca_rgb
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import NoValidPixels, SpecError

GRID = embedding(PointBuffer(12.94, 47.77, 400), grid=True, dim=6)
ARRAY = GRID.to_xarray()
LON, LAT = (values[2, 3] for values in pixel_centres(GRID.geobox))
"""The middle of the token in row 2, column 3."""


def test_a_token_its_similarity_and_the_colours_are_those_of_the_embedding():
    assert ARRAY.emb.geobox == GRID.geobox
    token = ARRAY.emb.at(LON, LAT)
    np.testing.assert_array_equal(token, GRID.at(LON, LAT))
    np.testing.assert_array_equal(token, GRID.data[:, 2, 3])

    similar = ARRAY.emb.similar(LON, LAT)
    unit = GRID.data / np.linalg.norm(GRID.data, axis=0)
    np.testing.assert_allclose(similar, np.einsum("dhw,d->hw", unit, unit[:, 2, 3]), atol=1e-6)
    for like in (GRID.data[:, 2, 3], token):
        xr.testing.assert_equal(ARRAY.emb.similar(like=like).drop_vars(["x", "y"]), similar.drop_vars(["x", "y"]))
    np.testing.assert_array_equal(ARRAY.emb.pca().transpose("y", "x", "band"), pca_rgb(GRID.data))
    assert similar.emb.geobox == GRID.geobox


@pytest.mark.parametrize(
    "cut",
    [
        lambda array: array.isel(y=slice(1, 6), x=slice(2, 7)),
        lambda array: array.isel(y=slice(1, 6), x=slice(3, 4)),
        lambda array: array.sortby("y").isel(x=slice(2, 8)),
        lambda array: array.transpose("y", "x", "band"),
    ],
    ids=["part", "one column", "upside down", "turned"],
)
def test_a_part_keeps_its_place(cut):
    part = cut(ARRAY)
    np.testing.assert_array_equal(part.emb.at(LON, LAT), GRID.data[:, 2, 3])
    again = part.emb.to_embedding()
    np.testing.assert_array_equal(again.at(LON, LAT), GRID.data[:, 2, 3])
    assert again.meta.fingerprint == GRID.meta.fingerprint


def test_an_embedding_comes_back_from_a_file_that_xarray_opened(tmp_path):
    path = GRID.save(tmp_path / "grid.nc")
    with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as store:
        again = store["embedding"].emb.to_embedding()
    np.testing.assert_array_equal(again.data, GRID.data)
    assert (again.meta, again.geobox) == (GRID.meta, GRID.geobox)
    vector = embedding(dim=6)
    assert vector.to_xarray().emb.to_embedding().meta == vector.meta
    xr.testing.assert_allclose(ARRAY.emb.similar(like=vector), GRID.similarity(vector))


def test_every_time_of_a_map_is_compared_with_its_own_and_two_times_with_each_other(tmp_path):
    made = MadeMap()
    region = open_region(made.write(tmp_path))
    array = region.to_xarray()
    lon, lat = (values[5, 7] for values in pixel_centres(region.geobox))

    similar = array.emb.similar(lon, lat)
    assert similar.dims == ("time", "y", "x")
    for time in made.times:
        np.testing.assert_allclose(similar.isel(time=time), region.similar(lon, lat, time=time), atol=1e-6)
    change = array.isel(time=0).emb.change(array.isel(time=1))
    np.testing.assert_allclose(change, region.change(0, 1), atol=1e-6)
    assert array.emb.pca().dims == ("time", "band", "y", "x")


def test_what_cannot_be_compared_is_refused():
    other = ARRAY.assign_attrs(weights="others")
    with pytest.raises(SpecError, match="same model and weights"):
        ARRAY.emb.change(other)
    with pytest.raises(SpecError, match="same ground"):
        ARRAY.emb.change(ARRAY.isel(x=slice(1, None)))
    with pytest.raises(SpecError, match="outside it"):
        ARRAY.emb.at(13.5, LAT)
    with pytest.raises(SpecError, match="vector of 6 numbers"):
        ARRAY.emb.similar(like=np.ones(5))
    with pytest.raises(SpecError, match="both or neither"):
        ARRAY.emb.similar()
    with pytest.raises(SpecError, match="evenly spaced"):
        ARRAY.isel(x=[0, 1, 5]).emb.at(LON, LAT)
    with pytest.raises(SpecError, match="CRS"):
        ARRAY.drop_vars("spatial_ref").emb.at(LON, LAT)
    with pytest.raises(SpecError, match="band, y and x"):
        ARRAY.rename(band="channel").emb.pca()
    with pytest.raises(SpecError, match="RS_EMBED_META"):
        (ARRAY + 1).drop_attrs().emb.to_embedding()
    with pytest.raises(NoValidPixels):
        ARRAY.where(False).emb.pca()
    assert isinstance(ARRAY.emb.to_embedding(), Embedding)
