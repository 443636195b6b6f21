"""Plain vision transformers beside timm's and TorchGeo's: the same seeded weights and pixels, the same numbers.

`make parity` runs this.
`PYTHONPATH=src:tests python tests/parity/test_vit_parity.py` writes what the
ordinary tests compare with: outputs of small networks (`tests/data/vit`), and names and shapes of the published files'
tensors.
"""

import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from beside import DATA, assert_close, filled, report, write_manifest
from seeded import pixels

from rs_embed.embedders.cards import ssl4eo
from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.vit import ViTEncoder

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed here: `make parity`")
SMALL = {"bands": 3, "dim": 16, "depth": 3, "heads": 2, "patch_px": 4, "side": 3}
"""A network with all parts, whose numbers the ordinary tests hold."""
PUBLISHED = {
    "ssl4eo_s12_vits16_dino": "vit_small_patch16_224",
    "softcon_vits14": "vit_small_patch14_dinov2",
    "ssl4eo_s12_vitb16_mae_s1": "vit_base_patch16_224",
}
TIMM = {
    "vits16": "vit_small_patch16_224",
    "vitb16": "vit_base_patch16_224",
    "vitl16": "vit_large_patch16_224",
    "vith14": "vit_huge_patch14_224",
    "vits14": "vit_small_patch14_dinov2",
    "vitb14": "vit_base_patch14_dinov2",
}


def small(scaled: bool) -> torch.nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=12, patch_size=4, in_chans=3, num_classes=0, embed_dim=16, depth=3, num_heads=2,
        init_values=1.0 if scaled else None,
    )  # fmt: skip


@pytest.mark.parametrize("model_id", PUBLISHED)
@torch.inference_mode()
def test_tokens_are_those_of_torchgeo(model_id):
    from torchgeo.models import vit

    card = get_card(model_id)
    build = getattr(vit, PUBLISHED[model_id])
    theirs = filled(build(in_chans=card.arch["bands"], img_size=224, num_classes=0))
    ours = ViTEncoder(**card.arch)
    kept = {name: theirs.state_dict()[name] for name in ours.state_dict()}
    ours.load_state_dict(kept)
    x = torch.from_numpy(pixels(model_id, 1, card.arch["bands"], 224, 224))
    found = ours.eval()(x, layers=[3, -1]).values
    states = theirs.forward_intermediates(x, indices=[3, 11], intermediates_only=True, output_fmt="NLC")
    width = card.dim
    assert_close(found[:, 1:, :width], states[0])
    if card.arch["normed"]:
        assert_close(found[..., width:], theirs.forward_features(x))
    else:  # TerraTorch's wrapper returns this
        assert_close(found[:, 1:, width:], states[1])
    report("torchgeo", lambda: theirs.forward_features(x), lambda: ours(x))


@pytest.mark.parametrize("card", ssl4eo.CARDS, ids=lambda card: card.id)
def test_every_card_says_what_torchgeo_says(card):
    from torchgeo import models

    size = re.search(r"vit[sblh]1[46]", card.id)[0]
    method = card.model_key.rpartition("_")[2].upper()
    kind = {"s": "Small", "b": "Base", "l": "Large", "h": "Huge"}[size[3]] + size[4:]
    sensor = "SENTINEL1_GRD" if card.modality_names == ("s1",) else "SENTINEL2_ALL"
    theirs = getattr(models, f"ViT{kind}{'_DINOv2' if method == 'SOFTCON' else ''}_Weights")[f"{sensor}_{method}"]
    address = re.split("/resolve/|hf.co/|huggingface.co/", theirs.url)[1:]
    assert [card.weights.hub, f"{card.weights.revision}/{card.weights.file}"] == address
    modality, norm = card.modalities[0], theirs.transforms[-1]
    assert [band.upper() for band in theirs.meta["bands"]] == [*modality.sensor.bands]
    bands = modality.stats.values()
    assert {(one.mean, one.std) for one in bands} == {*zip(norm.mean, norm.std, strict=True)}
    assert card.citation.removeprefix("arXiv:") in theirs.meta["publication"]


def write_small() -> None:
    x = torch.from_numpy(pixels("small", 2, 3, 12, 12))
    found = {}
    with torch.inference_mode():
        for scaled in (False, True):
            module = filled(small(scaled))
            states = module.forward_intermediates(x, indices=[0], intermediates_only=True, output_fmt="NLC")
            found[f"scaled_{int(scaled)}"] = module.forward_features(x).numpy()
            found[f"scaled_{int(scaled)}_first"] = states[0].numpy()
    np.savez_compressed(DATA / "vit/vit.npz", **found)


def write_manifests() -> None:
    from torchgeo.models import vit

    for size, name in TIMM.items():
        for bands in (13, 2):
            with torch.device("meta"):
                module = getattr(vit, name)(in_chans=bands, img_size=224, num_classes=0)
            write_manifest(f"{size}_{bands}", module.state_dict(), f"torchgeo.models.{name}, in_chans={bands}")


if __name__ == "__main__":
    write_small()
    write_manifests()
