"""CROMA: numbers of TorchGeo's own network (tests/parity/test_croma_parity.py), and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import pixels, state_of

from rs_embed.encoders.croma import CromaEncoder
from rs_embed.errors import BandMismatch, InputError

EXPECTED = np.load(Path(__file__).parents[1] / "data/vit/croma.npz")


@pytest.fixture(scope="module")
def encoder() -> CromaEncoder:
    made = CromaEncoder(dim=32, depth=2, heads=16)
    made.load_state_dict(state_of(made))
    return made.eval()


def images() -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(0.5 + 0.2 * pixels(f"croma {name}", 1, bands, 24, 24))
        for name, bands in (("optical", 12), ("radar", 2))
    }


@pytest.mark.parametrize("kind", ["joint", "optical", "radar"])
@torch.inference_mode()
def test_tokens_and_vectors_are_those_of_torchgeo(encoder, kind):
    given = {name: image for name, image in images().items() if kind in ("joint", name)}
    np.testing.assert_allclose(encoder(**given).values, EXPECTED[kind], atol=2e-5)


@torch.inference_mode()
def test_attention_weakens_with_distance_so_that_a_network_takes_any_size(encoder):
    given = {name: image.repeat(1, 1, 2, 3) for name, image in images().items()}
    found = encoder(**given)
    assert (found.layout.grids[0].height, found.layout.grids[0].width) == (6, 9)
    assert found.values.shape == (1, 55, 32)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"optical": torch.zeros(1, 13, 24, 24)}, BandMismatch, "Expected 12 bands, got 13"),
        ({"optical": torch.zeros(1, 12, 24, 20)}, InputError, "whole patches of 8 px, got 24 x 20"),
        ({"optical": torch.zeros(1, 12, 24, 24), "radar": torch.zeros(1, 2, 16, 16)}, InputError, "images of one size"),
        ({}, InputError, "got none"),
    ],
)
def test_images_that_do_not_fit_are_refused(encoder, given, error, says):
    with pytest.raises(error, match=says):
        encoder(**given)
