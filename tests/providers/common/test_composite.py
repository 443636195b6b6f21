import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rs_embed.providers.common.composite import composite

NAN = np.nan
stacks = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    elements=st.one_of(st.just(NAN), st.floats(-30, 10_000, width=32)),
)


@settings(deadline=None)
@given(stacks)
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_the_median_is_that_of_numpy(frames):
    before = frames.copy()
    np.testing.assert_allclose(composite(list(frames), "median"), np.nanmedian(before, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(frames, before)  # the frames are left as they were


@settings(deadline=None)
@given(stacks)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_the_mean_is_that_of_numpy(frames):
    wanted = np.nanmean(frames.astype(np.float64), axis=0)
    np.testing.assert_allclose(composite(list(frames), "mean"), wanted, rtol=1e-5, atol=1e-38)


@pytest.mark.parametrize("how", ["median", "mean", "mosaic"])
def test_a_pixel_without_any_value_stays_nodata_and_nobody_warns(how):
    frames = [np.array([[[NAN, 1.0]]], np.float32), np.array([[[NAN, 3.0]]], np.float32)]
    result = composite(frames, how)
    assert np.isnan(result[0, 0, 0])
    assert result[0, 0, 1] == (1.0 if how == "mosaic" else 2.0)
    assert result.dtype == np.float32


def test_a_mosaic_takes_all_bands_of_a_pixel_from_one_frame():
    cloudy = np.array([[[1.0, 1.0, NAN]], [[1.0, NAN, NAN]]], np.float32)
    clear = np.array([[[2.0, 2.0, 2.0]], [[2.0, 2.0, NAN]]], np.float32)
    np.testing.assert_array_equal(composite([cloudy, clear], "mosaic"), clear)


def test_of_equally_clear_frames_the_first_given_is_on_top():
    first, second = np.full((1, 2, 2), 1, np.float32), np.full((1, 2, 2), 2, np.float32)
    assert (composite([first, second], "mosaic") == 1).all()


def test_first_takes_the_first_frame_with_its_holes():
    holes, full = np.full((1, 1, 2), NAN, np.float32), np.ones((1, 1, 2), np.float32)
    assert np.isnan(composite([holes, full], "first")).all()
