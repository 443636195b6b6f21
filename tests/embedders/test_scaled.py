"""Standardising band by band gives the numbers of standardising all at once, bit by bit."""

import numpy as np
import pytest
import torch

from rs_embed.core.bands import bands_of
from rs_embed.core.chip import Chip, Source
from rs_embed.embedders.prepare.normalize import Scaling, _scaled

BANDS = bands_of("COPERNICUS/S2_SR_HARMONIZED", ("B2", "B3", "B4"))


def chip_of(values) -> Chip:
    return Chip(values, BANDS, None, (None,) * len(values), Source("test", "COPERNICUS/S2_SR_HARMONIZED"))


@pytest.mark.parametrize("clip", [None, (0.0, 3000.0)])
@pytest.mark.parametrize("frames", [1, 3])
def test_band_by_band_is_all_at_once(clip, frames):
    rng = np.random.default_rng(1)
    values = torch.from_numpy(rng.normal(1500, 1500, (frames, 3, 40, 37)).astype(np.float32))
    given = values.clone()
    scaling = Scaling(*(rng.normal(0, 1, 3).astype(np.float32) for _ in range(3)))
    scale, shift = (torch.from_numpy(one)[:, None, None] for one in (scaling.scale, scaling.shift))
    expected = (values if clip is None else values.clamp(*clip)).mul(scale).add_(shift)
    assert torch.equal(_scaled(values, clip, scaling), expected)
    strided = values.mT.contiguous().mT  # not in the order of its axes: takes the other way
    assert torch.equal(_scaled(strided, clip, scaling), expected)
    assert torch.equal(values, given)


def test_a_chip_is_whole_without_nan_and_infinities_however_large_its_sum():
    values = np.full((1, 3, 8, 8), 3e38, np.float32)  # the sum is infinite, the values are not
    assert chip_of(values).is_whole and chip_of(values).valid_fraction == 1
    for bad in (np.nan, np.inf, -np.inf):
        values = np.ones((1, 3, 8, 8), np.float32)
        values[0, 1, 2:4, 0] = bad
        assert not chip_of(values).is_whole
        assert chip_of(values).valid_fraction == 62 / 64
