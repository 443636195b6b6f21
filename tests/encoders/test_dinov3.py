"""DINOv3 gives the tokens of timm's network, for images of any number of patches; its licence is asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import state_of
from tiny import shrunken

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding
from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.dinov3 import PREFIX, DinoV3Encoder
from rs_embed.errors import BandMismatch, InputError, LicenceNotAccepted, PixelWarning
from rs_embed.testing import FieldProvider, hills

GOLDEN = np.load(Path(__file__).parents[1] / "data/golden/dinov3_small.npz")
CARD = shrunken("dinov3", dim=64, depth=2, heads=4)


@pytest.fixture(scope="module")
def encoder() -> DinoV3Encoder:
    module = DinoV3Encoder(dim=64, depth=3, heads=4, patch_px=16)
    module.load_state_dict(state_of(module))
    return module.eval().requires_grad_(False)


def image(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", GOLDEN.files)
def test_tokens_are_those_of_timm(encoder, name):
    height, width = map(int, name.split("x"))
    with torch.inference_mode():
        found = encoder(image(height, width))
    (grid,) = found.layout.grids
    assert (grid.height, grid.width, found.layout.prefix) == (height // 16, width // 16, PREFIX)
    wanted = GOLDEN[name]
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=2e-5 + 5e-6 * np.abs(wanted).max())


def test_positions_depend_on_the_place_in_the_image(encoder):
    tokens = encoder(torch.ones(1, 3, 64, 64)).values[0, PREFIX:]
    assert (tokens - tokens[0]).abs().amax(dim=1)[1:].min() > 1e-3


def test_layers_are_side_by_side_and_only_the_last_is_normalised(encoder):
    first, last = encoder(image(32, 32), layers=[0, -1]).values.split(64, dim=-1)
    torch.testing.assert_close(encoder(image(32, 32), layers=[0]).values, first)
    torch.testing.assert_close(encoder(image(32, 32)).values, last)


def test_an_image_of_parts_of_patches_or_other_bands_is_refused(encoder):
    with pytest.raises(InputError, match="whole patches of 16 px"):
        encoder(image(40, 32))
    with pytest.raises(BandMismatch, match="Expected 3 bands, got 4"):
        encoder(torch.zeros(1, 4, 32, 32))


def test_a_picture_is_standardised_with_satellite_moments_and_cut_into_windows():
    picture = np.random.default_rng(0).integers(0, 256, (3, 96, 160)).astype(np.float32)
    whole = get_embedding(CARD, input_chw=picture, output=OutputSpec.grid(), pretrained=False)
    assert whole.data.shape == (64, 6, 10) and whole.meta.cls_removed
    stats = get_card("dinov3").modality("naip").stats
    assert [round(stats[band].mean / 255, 3) for band in "RGB"] == [0.430, 0.411, 0.296]
    cut = get_embedding(CARD, input_chw=picture, output=OutputSpec.grid(), pretrained=False, window_px=64)
    assert cut.meta.windows > 1 and cut.data.shape == whole.data.shape


def test_sentinel_2_is_stretched_to_bytes():
    place, year = PointBuffer(lon=12.94, lat=47.77, buffer_m=320), TemporalSpec.year(2022)
    with pytest.warns(PixelWarning, match="are clipped"):
        dn = get_embedding(CARD, place, year, backend=FieldProvider(hills), modality="s2_rgb", pretrained=False)
    assert dn.meta.inputs[0].bands == ("B4", "B3", "B2") and dn.meta.inputs[0].clipped_fraction > 0


def test_its_licence_must_be_accepted_and_its_gate_is_explained():
    with pytest.raises(LicenceNotAccepted, match="Expected accept_licence='dinov3'") as caught:
        get_embedding("dinov3", input_chw=np.full((3, 32, 32), 100, np.float32))
    assert "ITAR" in caught.value.facts["forbids"]
    assert "acknowledge DINOv3" in get_card("dinov3").licence
