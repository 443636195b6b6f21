"""A grid on disk is opened by other libraries at its true place, with its numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from made_rows import embedding, row

from rs_embed.core.specs import PointBuffer
from rs_embed.embedding.embedding import Embedding
from rs_embed.errors import StorageError
from rs_embed.formats.files import formats

GRID = embedding(PointBuffer(-72.5, -38.8, 400), grid=True, dim=6)
SUFFIX = {one.name: one.suffix for one in formats()}
FORMATS = list(SUFFIX)


def saved(grid, stem, fmt):
    return grid.save(stem.with_name(stem.name + SUFFIX[fmt]))


def centers(grid):
    """Pixel centres by the grid's own transform, from the definition."""
    a, _, c, _, e, f = tuple(grid.geobox.affine)[:6]
    _, height, width = grid.data.shape
    return c + a * (np.arange(width) + 0.5), f + e * (np.arange(height) + 0.5)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_grid_comes_back_whole(tmp_path, fmt):
    path = saved(GRID, tmp_path / "a.b c", fmt)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] == ["a.b c" + SUFFIX[fmt]]
    again = Embedding.load(path)
    np.testing.assert_array_equal(again.data, GRID.data)
    assert (again.meta, again.geobox) == (GRID.meta, GRID.geobox)


@pytest.mark.parametrize("fmt", FORMATS)
def test_equal_grids_give_equal_bytes(tmp_path, fmt):
    once, twice = (saved(GRID, tmp_path / name, fmt) for name in ("once", "twice"))
    files = [sorted(file for file in (path, *path.rglob("*")) if file.is_file()) for path in (once, twice)]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


@pytest.mark.parametrize("fmt", ["cog", "zarr"])
def test_gdal_opens_it_at_its_place(tmp_path, fmt):
    if fmt == "zarr" and rasterio.__gdal_version__ < "3.11":
        pytest.skip("GDAL 3.10 knows only the codec names of the Zarr v3 draft; 3.12 was tried and reads it")
    path = saved(GRID, tmp_path / "grid", fmt)
    name = f'ZARR:"{path}":/embedding' if fmt == "zarr" else path
    with rasterio.open(name) as file:
        np.testing.assert_array_equal(file.read(), GRID.data)
        assert file.crs.to_epsg() == 32718
        assert file.transform.almost_equals(GRID.geobox.affine, 1e-6)
        assert np.isnan(file.nodata)


def test_a_cog_names_its_bands_and_is_laid_out_for_the_web(tmp_path):
    with rasterio.open(saved(GRID, tmp_path / "grid", "cog")) as file:
        structure = file.tags(ns="IMAGE_STRUCTURE")
        assert (structure["LAYOUT"], structure["COMPRESSION"], structure["PREDICTOR"]) == ("COG", "ZSTD", "3")
        assert structure["INTERLEAVE"] == ("TILE" if rasterio.__gdal_version__ >= "3.11" else "PIXEL")
        assert file.descriptions == tuple(f"mosaiks_rcf {band}" for band in range(6))
        assert json.loads(file.tags()["RS_EMBED_META"])["fingerprint"] == GRID.meta.fingerprint


@pytest.mark.parametrize(("fmt", "engine"), [("zarr", "zarr"), ("netcdf", "h5netcdf")])
def test_xarray_reads_pixel_centres_and_crs(tmp_path, fmt, engine):
    path = saved(GRID, tmp_path / "grid", fmt)
    options = {"consolidated": False} if engine == "zarr" else {}
    with xr.open_dataset(path, engine=engine, **options) as store:
        array = store["embedding"]
        assert array.dims == ("band", "y", "x")
        np.testing.assert_array_equal(array.to_numpy(), GRID.data)
        xs, ys = centers(GRID)
        assert np.abs(array.x.to_numpy() - xs).max() < 0.1 * 80 and np.abs(array.y.to_numpy() - ys).max() < 0.1 * 80
        assert ys[0] > ys[-1], "north is up"
        mapping = array.encoding.get("grid_mapping") or array.attrs["grid_mapping"]
        assert "WGS 84 / UTM zone 18S" in store[mapping].attrs["crs_wkt"]


def test_a_zarr_store_follows_the_three_conventions(tmp_path):
    group = zarr.open_group(saved(GRID, tmp_path / "grid", "zarr"), mode="r")
    attributes = dict(group.attrs)
    assert [one["name"] for one in attributes["zarr_conventions"]] == ["geoemb:", "proj:", "spatial:"]
    assert attributes["geoemb:type"] == "chip"
    assert attributes["geoemb:dimensions"] == 6
    assert attributes["geoemb:chip_layout"] == {"layout_type": "regular_grid", "chip_size": [8, 8]}
    assert attributes["geoemb:gsd"] == 80
    assert all(":" in uri for uri in [attributes["geoemb:model"], *attributes["geoemb:source_data"]])
    assert attributes["proj:code"] == "EPSG:32718"
    assert attributes["spatial:transform"] == list(GRID.geobox.affine)[:6]
    assert attributes["spatial:shape"] == list(GRID.data.shape[1:])
    array = group["embedding"]
    assert array.metadata.zarr_format == 3 and array.shards is None
    assert array.metadata.dimension_names == ("band", "y", "x")


def test_npz_needs_nothing_but_numpy(tmp_path):
    with np.load(saved(GRID, tmp_path / "grid", "npz"), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["embedding"], GRID.data)
        assert json.loads(str(arrays["meta"]))["crs"] == "EPSG:32718"


@pytest.mark.parametrize("fmt", FORMATS)
def test_cells_without_a_value_stay_without(tmp_path, fmt):
    data = GRID.data.copy()
    data[:, 2, 3] = np.nan
    again = Embedding.load(saved(replace(GRID, data=data), tmp_path / "grid", fmt))
    np.testing.assert_array_equal(again.data, data)


def with_shares(grid=GRID):
    """With shares that no short text holds, three cells without any, and NaN there."""
    valid = np.random.default_rng(3).uniform(0, 1, grid.data.shape[1:]).astype(np.float32)
    valid[:2] = 1
    valid[2, :3] = 0
    return replace(grid, data=np.where(valid > 0, grid.data, np.float32(np.nan)), valid=valid)


@pytest.mark.parametrize("fmt", FORMATS)
def test_shares_of_valid_pixels_come_back_to_the_bit_and_a_grid_without_them_has_none(tmp_path, fmt):
    holed = with_shares()
    again = Embedding.load(saved(holed, tmp_path / "grid", fmt))
    np.testing.assert_array_equal(again.data, holed.data)
    np.testing.assert_array_equal(again.valid, holed.valid)
    assert again.valid.dtype == np.float32 and (again.meta, again.geobox) == (GRID.meta, GRID.geobox)
    assert Embedding.load(saved(GRID, tmp_path / "before", fmt)).valid is None


@pytest.mark.parametrize(("fmt", "engine"), [("zarr", "zarr"), ("netcdf", "h5netcdf")])
def test_xarray_reads_shares_as_a_variable_that_cf_knows_how_to_place(tmp_path, fmt, engine):
    options = {"consolidated": False} if engine == "zarr" else {}
    with xr.open_dataset(saved(with_shares(), tmp_path / "grid", fmt), engine=engine, **options) as store:
        assert store["embedding"].attrs["ancillary_variables"] == "valid_fraction"
        shares = store["valid_fraction"]
        assert shares.dims == ("y", "x") and shares.attrs["units"] == "1" and "valid" in shares.attrs["long_name"]
        mapping = shares.encoding.get("grid_mapping") or shares.attrs["grid_mapping"]
        assert "WGS 84 / UTM zone 18S" in store[mapping].attrs["crs_wkt"]
        assert "valid_fraction" in store.data_vars


def test_gdal_masks_cells_without_a_value_and_bands_stay_dimensions(tmp_path):
    holed = with_shares()
    with rasterio.open(saved(holed, tmp_path / "grid", "cog")) as file:
        assert file.count == 6
        np.testing.assert_array_equal(file.dataset_mask() == 0, holed.valid == 0)


def test_shares_that_are_not_those_of_the_grid_are_damage(tmp_path):
    path = saved(with_shares(), tmp_path / "grid", "npz")
    with np.load(path) as arrays:
        parts = dict(arrays)
    np.savez(path, **(parts | {"valid": parts["valid"][1:]}))
    with pytest.raises(StorageError, match="damaged"):
        Embedding.load(path)
    path = saved(with_shares(), tmp_path / "grid", "cog")
    for text in ("AAAA", "no base64!", "eJxjYGBgAAAABAAB"):
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK=True) as file:
            file.update_tags(RS_EMBED_VALID=text)
        with pytest.raises(StorageError, match="damaged"):
            Embedding.load(path)


@pytest.mark.parametrize("fmt", [one.name for one in formats() if one.grids_only])
def test_a_vector_is_no_grid(tmp_path, fmt):
    with pytest.raises(StorageError, match="got a pooled vector"):
        saved(row().embedding, tmp_path / "grid", fmt)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_not_ours_is_refused(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        Embedding.load(tmp_path / "nothing.zarr")
    xr.Dataset({"other": ("x", [1.0])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(StorageError, match="is not a readable embedding"):
        Embedding.load(tmp_path / "other.zarr")
