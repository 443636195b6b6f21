"""What is clipped on the way to a network is counted, and warned of where it is much."""

import warnings

import numpy as np
import pytest
import torch

from rs_embed import get_embedding
from rs_embed.embedders.prepare.normalize import counting_clipped, limited
from rs_embed.embedding.meta import InputMeta
from rs_embed.errors import PixelWarning


def thor(values, **options):
    return get_embedding(
        "thor_1_0_tiny", input_chw=values, bands=["B4", "B3", "B2"], pretrained=False, input_prep="crop", **options
    )


@pytest.fixture
def dn(rng):
    return rng.uniform(300, 4000, (3, 288, 288)).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_the_share_of_clipped_values_is_in_the_metadata(dn):
    assert thor(dn).meta.inputs[0].clipped_fraction == 0
    dn[:, :12] = 30_000  # beyond the 10,000 that THOR's authors clip to
    meta = thor(dn).meta.inputs[0]
    assert meta.clipped_fraction == pytest.approx(12 / 288, abs=1e-4)


def test_many_clipped_values_are_warned_of_once_for_all_chips(dn):
    dn[:, :30] = 30_000
    with pytest.warns(PixelWarning, match="More than 5% of the values of s2 lie outside") as first:
        thor(dn)
    with pytest.warns(PixelWarning) as second:
        thor(dn + 1)
    assert str(first[0].message) == str(second[0].message)


def test_terraminds_stretch_is_counted(rng):
    values = rng.uniform(600, 2400, (3, 64, 64))
    values[:, :16] = rng.uniform(2600, 9000, (3, 16, 64))
    with pytest.warns(PixelWarning, match="values of RGB"):
        meta = get_embedding("terramind_1_0_tiny", input_chw=values, modality="RGB", pretrained=False).meta
    assert meta.inputs[0].clipped_fraction == pytest.approx(0.25, abs=1e-4)


def test_counting_ends_with_the_call_and_is_of_one_thread():
    pixels = torch.arange(-8.0, 8.0).reshape(1, 4, 4)
    with counting_clipped() as shares:
        assert limited(pixels, -4, 3, "M").aminmax() == (-4, 3)
        limited(pixels, None, torch.full((1, 1, 1), 5.0), "N")
        limited(pixels, -8, 7, "O")
    limited(pixels, -1, 1, "M")
    assert shares == {"M": 0.5, "N": 0.125, "O": 0.0}
    assert pixels.aminmax() == (-8, 7)  # what comes in may be the user's own array


def test_of_a_large_chip_every_nth_pixel_is_looked_at():
    pixels = torch.rand((3, 900, 1100), generator=torch.Generator().manual_seed(0))
    with counting_clipped() as shares:
        limited(pixels, 0.2, 0.9, "M")
    assert shares["M"] == pytest.approx(0.3, abs=0.01)


def test_metadata_of_before_read_without_a_count():
    known = {
        "modality": "M", "collection": "C", "provider": "array", "bands": (), "units": (), "scene_ids": (),
        "scene_times": (), "frames": 1, "frame_times": (), "scenes_per_frame": (), "shape_px": (1, 1),
        "valid_fraction": 1, "offset_applied": None, "composite": "median", "fill_value": 0.0, "cloudy_pct": 30,
        "cloud_mask": "none", "scale_m": 10, "instrument_mode": None, "orbit_pass": None, "notes": (),
    }  # fmt: skip
    assert InputMeta(**known).clipped_fraction is None


def test_a_chip_within_the_range_is_not_warned_of(dn):
    with warnings.catch_warnings():
        warnings.simplefilter("error", PixelWarning)
        thor(dn)
