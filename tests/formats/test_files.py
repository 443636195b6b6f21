"""An embedding on disk is the same a year later, and other tools open it in the right place."""

import gc
import json
import resource
import shutil
import subprocess
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import xarray as xr
from made_rows import embedding

from rs_embed import Embedding, PointBuffer
from rs_embed.errors import StorageError

PLACE = PointBuffer(lon=-72.5, lat=-38.8, buffer_m=400)


@pytest.fixture(scope="module")
def grid() -> Embedding:
    found = embedding(PLACE, grid=True, dim=1024, cell_px=16)
    return replace(found, valid=np.ones(found.data.shape[1:], np.float32))


@pytest.fixture(scope="module")
def vector() -> Embedding:
    return embedding(PLACE)


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".tif"])
def test_a_grid_comes_back_with_its_numbers_place_and_metadata(grid, tmp_path, suffix):
    again = Embedding.load(grid.save(tmp_path / f"grid{suffix}"))
    np.testing.assert_array_equal(again.data, grid.data)
    np.testing.assert_array_equal(again.valid, grid.valid)
    assert again.geobox == grid.geobox
    assert again.meta == grid.meta


@pytest.mark.parametrize("suffix", [".npz", ".nc"])
def test_a_vector_comes_back_with_its_numbers_place_and_metadata(vector, tmp_path, suffix):
    again = Embedding.load(vector.save(str(tmp_path / f"vector{suffix}")))
    np.testing.assert_array_equal(again.data, vector.data)
    assert again.geobox == vector.geobox
    assert again.meta == vector.meta


def test_other_tools_read_the_netcdf_with_crs_and_pixel_centres(grid, tmp_path):
    with xr.open_dataset(grid.save(tmp_path / "grid.nc"), engine="h5netcdf") as dataset:
        array = dataset["embedding"]
        assert array.attrs["grid_mapping"] == "spatial_ref"
        assert "WGS 84 / UTM zone 18S" in dataset["spatial_ref"].attrs["crs_wkt"]
        assert array.x.values[0] == grid.geobox.boundingbox.left + 80
        assert array.y.values[0] == grid.geobox.boundingbox.top - 80
        assert array.x.attrs["standard_name"] == "projection_x_coordinate"


def test_the_geotiff_is_a_cog_with_its_metadata(grid, tmp_path):
    with rasterio.open(grid.save(tmp_path / "grid.tif")) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.crs.to_epsg() == 32718
        assert file.transform == grid.geobox.affine
        assert np.isnan(file.nodata)
        assert json.loads(file.tags()["RS_EMBED_META"])["model_id"] == "mosaiks_rcf"


@pytest.mark.parametrize(
    ("name", "says"),
    [("out.xyz", "ending in"), ("nowhere/out.npz", "nowhere"), ("vector.tif", "pooled vector")],
)
def test_what_cannot_be_written_says_why_and_leaves_nothing(vector, tmp_path, name, says):
    with pytest.raises(StorageError, match=says) as caught:
        vector.save(tmp_path / name)
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".tif"])
@pytest.mark.parametrize("content", [b"", b"not an embedding"])
def test_a_file_that_is_not_ours_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"file{suffix}"
    with pytest.raises(StorageError, match="does not exist"):
        Embedding.load(path)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is not a readable embedding"):
        Embedding.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".nc", ".tif"])
def test_half_a_file_is_called_damaged_and_closed_again(grid, tmp_path, suffix):
    path = grid.save(tmp_path / f"grid{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(StorageError, match="damaged"):
            Embedding.load(path)
        gc.collect()
    assert caught == []


def test_someone_else_s_geotiff_is_not_taken_for_an_embedding(tmp_path):
    path = tmp_path / "other.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 4, 4), np.uint8))
    with pytest.raises(StorageError, match="RS_EMBED_META"):
        Embedding.load(path)


def test_a_write_that_fails_at_the_end_leaves_no_part(vector, tmp_path):
    (tmp_path / "taken.npz").mkdir()
    with pytest.raises(StorageError, match=r"taken\.npz"):
        vector.save(tmp_path / "taken.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["taken.npz"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".tif"])
def test_a_full_disk_is_one_error_that_says_how_much_is_needed(grid, small_disk, suffix):
    (small_disk / "taken").write_bytes(bytes(300_000))
    with pytest.raises(StorageError, match=r"No space left on device[^$]*free disk space: up to [\d.]+ MB"):
        grid.save(small_disk / f"grid{suffix}")
    assert [file.name for file in small_disk.iterdir()] == ["taken"]
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = Embedding.load(grid.save(small_disk / f"grid{suffix}"))
    np.testing.assert_array_equal(again.data, grid.data)


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".tif"])
def test_a_limit_on_the_size_of_files_is_the_same_error(grid, tmp_path, suffix):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"File too large[^$]*free disk space"):
            grid.save(tmp_path / f"grid{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_what_gdal_says_of_a_disk_that_fills_up_meanwhile_is_that_error_too(grid, small_disk, monkeypatch):
    monkeypatch.setattr("rs_embed.formats.files.require_room", lambda folder, size: None)
    (small_disk / "taken").write_bytes(bytes(300_000))
    with pytest.raises(StorageError, match=r"grid\.tif"):
        grid.save(small_disk / "grid.tif")
    assert [file.name for file in small_disk.iterdir()] == ["taken"]
