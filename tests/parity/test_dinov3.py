"""DINOv3 is timm's: at its published size, and as the small network whose outputs the other tests hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import state_of

from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.dinov3 import DinoV3Encoder

eva = pytest.importorskip("timm.models.eva")
GOLDEN = Path(__file__).parents[1] / "data/golden/dinov3_small.npz"
SMALL = {"dim": 64, "depth": 3, "heads": 4, "patch_px": 16}


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 + 5e-6 * np.abs(theirs).max())


def pair(arch):
    theirs = eva.vit_large_patch16_dinov3(
        embed_dim=arch["dim"], depth=arch["depth"], num_heads=arch["heads"], num_classes=0
    )
    state = state_of(theirs)
    theirs.load_state_dict(state)
    ours = DinoV3Encoder(**arch)
    ours.load_state_dict(state)
    return ours.eval().requires_grad_(False), theirs.eval().requires_grad_(False)


def image(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(64, 64), (48, 80)])
def test_the_small_network_is_timms_and_the_stored_one(shape):
    ours, theirs = pair(SMALL)
    with torch.inference_mode():
        found, wanted = ours(image(*shape), layers=[0, 2]), theirs.forward_features(image(*shape))
    close(found.values[..., 64:].numpy(), wanted.numpy())
    close(np.load(GOLDEN)["x".join(map(str, shape))], wanted.numpy())


def test_the_published_size_is_timms():
    ours, theirs = pair(get_card("dinov3").arch)
    with torch.inference_mode():
        close(ours(image(96, 96)).values.numpy(), theirs.forward_features(image(96, 96)).numpy())
