"""Slope of heights of 30 m on grids of another pixel size."""

import numpy as np
import pytest

from rs_embed.embedders.prepare.derived import SLOPE


def slope(heights, pixel_m):
    return SLOPE.compute({"elevation": np.asarray(heights, np.float32)[None]}, pixel_m)[0]


def plane(side, pixel_m, east=0.3, south=0.4):
    rows, cols = np.mgrid[:side, :side] * pixel_m
    return 500 + east * cols + south * rows


@pytest.mark.parametrize("pixel_m", [10, 30, 60])
def test_a_plane_has_its_slope_everywhere_to_the_edge(pixel_m):
    np.testing.assert_allclose(slope(plane(12, pixel_m), pixel_m), np.degrees(np.arctan(0.5)), rtol=1e-4)


def test_heights_repeated_three_times_have_the_slope_of_the_original_grid():
    coarse = np.cumsum(np.random.default_rng(0).normal(size=(20, 20)), axis=0) * 8
    repeated = coarse.repeat(3, axis=0).repeat(3, axis=1)
    inner = slice(3, -3)
    np.testing.assert_allclose(
        slope(repeated, 10)[inner, inner], slope(coarse, 30).repeat(3, axis=0).repeat(3, axis=1)[inner, inner]
    )


def test_next_to_nodata_it_is_not_known_and_a_single_row_has_none():
    heights = plane(15, 10)
    heights[7, 7] = np.nan
    unknown = np.isnan(slope(heights, 10))
    assert unknown[7, 4] and unknown[7, 10] and unknown[4, 7] and not unknown[7, 3] and not unknown[5, 5]
    assert np.isnan(slope(plane(15, 10)[:1], 10)).all()
