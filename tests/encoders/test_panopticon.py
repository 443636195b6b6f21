"""Panopticon: numbers of TorchGeo's own network (tests/parity/test_panopticon.py writes them), and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import pixels, state_of

from rs_embed.encoders.panopticon import PanopticonEncoder
from rs_embed.errors import InputError

EXPECTED = np.load(Path(__file__).parents[1] / "data/vit/panopticon.npz")["tokens"]
CHANNELS = [443, 493, 560, 665, 704, 741, 782, 828, 865, 945, 1373, 1614, 2204, *range(-1, -13, -1)]


@pytest.fixture(scope="module")
def encoder() -> PanopticonEncoder:
    made = PanopticonEncoder(dim=32, depth=1, heads=2)
    made.load_state_dict(state_of(made))
    return made.eval()


@torch.inference_mode()
def test_tokens_are_those_of_torchgeo_for_every_kind_of_channel(encoder):
    image = torch.from_numpy(pixels("panopticon small", 1, len(CHANNELS), 42, 42))
    ids = torch.tensor([CHANNELS])
    np.testing.assert_allclose(encoder(image, ids).values, EXPECTED, atol=2e-5)
    assert ids.tolist() == [CHANNELS]  # TorchGeo's writes into them


@torch.inference_mode()
def test_the_order_of_channels_does_not_matter_and_their_ids_do(encoder):
    image = torch.from_numpy(pixels("any order", 1, 3, 28, 42))
    ids = torch.tensor([[665, 865, -1]])
    plain, turned = encoder(image, ids).values, encoder(image.flip(1), ids.flip(1)).values
    np.testing.assert_allclose(plain, turned, atol=1e-5)
    for other in ([665, 866, -1], [665, 865, -5]):
        assert (encoder(image, torch.tensor([other])).values - plain).abs().max() > 1e-3
    assert encoder(image, ids).layout.grids[0].height == 2


@pytest.mark.parametrize(
    ("side", "ids", "says"),
    [(30, [665], "whole patches of 14 px, got 30 x 30"), (28, [0], "wavelengths in nm"), (28, [-13], "-1 to -12")],
)
def test_what_does_not_fit_is_refused(encoder, side, ids, says):
    with pytest.raises(InputError, match=says):
        encoder(torch.zeros(1, 1, side, side), torch.tensor([ids]))
