"""Panopticon beside TorchGeo's network: the same seeded weights, pixels and channels. See test_vit.py."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from beside import DATA, assert_close, report, write_manifest
from seeded import pixels, state_of

from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.panopticon import PanopticonEncoder

pytestmark = pytest.mark.skipif(find_spec("torchgeo") is None, reason="torchgeo is not installed here: `make parity`")
CHANNELS = [443, 493, 560, 665, 704, 741, 782, 828, 865, 945, 1373, 1614, 2204, *range(-1, -13, -1)]


def reference(side: int, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """TorchGeo's network with the weights of ours, loaded as TorchGeo does."""
    from torchgeo.models import Panopticon
    from torchgeo.models.copernicusfm import resize_abs_pos_embed

    model = Panopticon(img_size=side)
    given = dict(state, pos_embed=resize_abs_pos_embed(state["pos_embed"], side // 14, 37))
    model.model.load_state_dict(given)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("side", [224, 112])
@torch.inference_mode()
def test_tokens_are_those_of_torchgeo_for_every_kind_of_channel(side):
    ours = PanopticonEncoder(**get_card("panopticon").arch)
    state = state_of(ours)
    ours.load_state_dict(state)
    theirs = reference(side, state)
    image = torch.from_numpy(pixels("panopticon", 1, len(CHANNELS), side, side))
    ids = torch.tensor([CHANNELS])
    expected = theirs.model.forward_features({"imgs": image, "chn_ids": ids.clone()})
    found = ours.eval()(image, ids).values
    assert_close(found, expected)
    assert ids.tolist() == [CHANNELS]
    some = slice(0, 12)
    report(
        "12 bands",
        lambda: theirs({"imgs": image[:, some], "chn_ids": ids[:, some].clone()}),
        lambda: ours(image[:, some], ids[:, some]),
    )


def write() -> None:
    from timm.models.vision_transformer import VisionTransformer
    from torchgeo.models.copernicusfm import resize_abs_pos_embed
    from torchgeo.models.panopticon import PanopticonPE

    small = PanopticonEncoder(dim=32, depth=1, heads=2)
    state = state_of(small)
    model = VisionTransformer(
        img_size=42, patch_size=14, num_classes=0, embed_dim=32, depth=1, num_heads=2, init_values=1.0
    )
    attention = {"attn_cfg": {"num_heads": 16}}
    model.patch_embed = PanopticonPE(attn_dim=96, embed_dim=32, patch_size=14, img_size=42, chnfus_cfg=attention)
    model.load_state_dict(dict(state, pos_embed=resize_abs_pos_embed(state["pos_embed"], 3, 37)))
    image = torch.from_numpy(pixels("panopticon small", 1, len(CHANNELS), 42, 42))
    with torch.inference_mode():
        found = model.eval().forward_features({"imgs": image, "chn_ids": torch.tensor([CHANNELS])})
    np.savez_compressed(DATA / "vit/panopticon.npz", tokens=found.numpy())
    from torchgeo.models import Panopticon

    with torch.device("meta"):
        state = Panopticon(img_size=518).model.state_dict()
    write_manifest("panopticon_vitb14", state, "torchgeo.models.panopticon_vitb14, positions of 37 x 37; no mask_token")


if __name__ == "__main__":
    write()
