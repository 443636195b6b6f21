"""Plain vision transformers: numbers of timm's own network (tests/parity/test_vit_parity.py), and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import pixels, state_of

from rs_embed.encoders.vit import ViTEncoder
from rs_embed.errors import BandMismatch, InputError, SpecError

SMALL = {"bands": 3, "dim": 16, "depth": 3, "heads": 2, "patch_px": 4, "side": 3}
EXPECTED = np.load(Path(__file__).parents[1] / "data/vit/vit.npz")


def encoder(**options: int) -> ViTEncoder:
    made = ViTEncoder(**SMALL, **options)
    made.load_state_dict(state_of(made))
    return made.eval()


@pytest.mark.parametrize("scaled", [0, 1])
@torch.inference_mode()
def test_tokens_are_those_of_timm_with_the_norm_behind_the_last_block_only(scaled):
    found = encoder(scaled=scaled)(torch.from_numpy(pixels("small", 2, 3, 12, 12)), layers=[0, -1])
    assert found.layout.prefix == 1 and found.layout.grids[0].length == 9
    np.testing.assert_allclose(found.values[:, 1:, :16], EXPECTED[f"scaled_{scaled}_first"], atol=2e-5)
    np.testing.assert_allclose(found.values[..., 16:], EXPECTED[f"scaled_{scaled}"], atol=2e-5)


@torch.inference_mode()
def test_without_a_final_norm_the_last_block_is_returned_as_it_is():
    x = torch.from_numpy(pixels("small", 2, 3, 12, 12))
    normed, bare = encoder(), encoder(normed=0)
    assert set(normed.state_dict()) - set(bare.state_dict()) == {"norm.weight", "norm.bias"}
    np.testing.assert_allclose(normed.norm(bare(x).values), normed(x).values, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "error", "says"),
    [
        ((2, 12, 12), BandMismatch, "Expected 3 bands, got 2"),
        ((3, 12, 13), InputError, "whole patches of 4 px, got 12 x 13"),
        ((3, 16, 12), InputError, "Expected 3 x 3 patches, got 4 x 3"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(shape, error, says):
    with pytest.raises(error, match=says):
        encoder()(torch.zeros(1, *shape))
    with pytest.raises(SpecError, match="layers from 0 to 2"):
        encoder()(torch.zeros(1, 3, 12, 12), layers=[3])
