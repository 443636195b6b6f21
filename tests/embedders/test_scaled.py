"""Standardising band by band gives the numbers of standardising all at once, bit by bit."""

import numpy as np
import pytest
import torch

from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.embedders.prepare.normalize import Scaling, standardised

BANDS = bands_of("COPERNICUS/S2_SR_HARMONIZED", ("B2", "B3", "B4"))


def chip_of(values) -> Chip:
    return Chip(values, BANDS, None, (None,) * len(values), Source("test", "COPERNICUS/S2_SR_HARMONIZED"))


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("limits", [(None, None), (-2.0, 2.0), (0.0, None)])
@pytest.mark.parametrize("clip", [None, (0.0, 3000.0), (None, 2000.0)])
@pytest.mark.parametrize("frames", [1, 3])
def test_band_by_band_is_all_at_once(clip, limits, holes, frames):
    rng = np.random.default_rng(1)
    values = torch.from_numpy(rng.normal(1500, 1500, (frames, 3, 40, 37)).astype(np.float32))
    if holes:
        values[:, 1, 5:9] = torch.nan
        values[0, 2, 3, 4] = torch.inf
    given = values.clone()
    fill, scale, shift = (rng.normal(0, 1, 3).astype(np.float32) for _ in range(3))
    scaling = Scaling(scale, shift, fill, *limits)
    expected = torch.where(values.isnan(), torch.from_numpy(fill)[:, None, None], values)
    expected = expected if clip is None else expected.clamp(*clip)
    expected = expected * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(shift)[:, None, None]
    expected = expected if limits == (None, None) else expected.clamp(*limits)
    assert torch.equal(standardised(values, scaling, clip, holes=holes), expected)
    strided = values.mT.contiguous().mT  # not in the order of its axes: goes the way of a GPU
    assert torch.equal(standardised(strided, scaling, clip, holes=holes), expected)
    torch.testing.assert_close(values, given, rtol=0, atol=0, equal_nan=True)


def test_a_chip_is_whole_without_nan_and_infinities_however_large_its_sum():
    values = np.full((1, 3, 8, 8), 3e38, np.float32)  # the sum is infinite, the values are not
    assert chip_of(values).is_whole and chip_of(values).valid_fraction == 1
    for bad in (np.nan, np.inf, -np.inf):
        values = np.ones((1, 3, 8, 8), np.float32)
        values[0, 1, 2:4, 0] = bad
        assert not chip_of(values).is_whole
        assert chip_of(values).valid_fraction == 62 / 64
