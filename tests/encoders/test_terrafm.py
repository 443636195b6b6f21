"""TerraFM: numbers of timm's network behind each stem (tests/parity/test_terrafm.py writes them), and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import pixels, state_of

from rs_embed.encoders.terrafm import TerraFMEncoder
from rs_embed.errors import BandMismatch, InputError

EXPECTED = np.load(Path(__file__).parents[1] / "data/vit/terrafm.npz")


@pytest.fixture(scope="module")
def encoder() -> TerraFMEncoder:
    made = TerraFMEncoder(dim=12, depth=1, heads=2)
    made.load_state_dict(state_of(made))
    return made.eval()


@pytest.mark.parametrize(("stem", "bands"), [("s2_l2a", 12), ("s2_l1c", 12), ("s1", 2)])
@torch.inference_mode()
def test_each_stem_has_its_own_numbers(encoder, stem, bands):
    found = encoder(torch.from_numpy(pixels(f"small {stem}", 1, bands, 224, 224)), stem)
    np.testing.assert_allclose(found.values[:, ::20], EXPECTED[stem], atol=2e-5)


def test_what_does_not_fit_is_refused(encoder):
    with pytest.raises(BandMismatch, match="Expected 2 bands, got 12"):
        encoder(torch.zeros(1, 12, 224, 224), "s1")
    with pytest.raises(InputError, match="Expected 14 x 14 patches, got 13 x 14"):
        encoder(torch.zeros(1, 2, 208, 224), "s1")
