"""TerraFM beside timm's vision transformer with the stem of the published file in front. See test_vit.py.

No package of this environment has the network. The stem is written here as its source describes it: a convolution for
each sensor and level, its code, then a linear map, a norm and two more linear maps.
"""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from beside import DATA, assert_close, report, write_manifest
from seeded import pixels, state_of
from torch import nn

from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.terrafm import TerraFMEncoder

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed here: `make parity`")
STEMS = {"s2_l2a": 12, "s2_l1c": 12, "s1": 2}


def reference(state: dict[str, torch.Tensor], stem: str, dim: int, depth: int, heads: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(num_classes=0, embed_dim=dim, depth=depth, num_heads=heads)
    model.patch_embed = nn.Identity()
    rest = {name: one for name, one in state.items() if not name.startswith("patch_embed.")}
    model.load_state_dict(rest)
    own = {name.removeprefix("patch_embed."): one for name, one in state.items() if name not in rest}

    def embedded(image: torch.Tensor) -> torch.Tensor:
        wide = nn.functional.conv2d(image, own[f"conv2d_{stem}.weight"], own[f"conv2d_{stem}.bias"], stride=16)
        x = wide.flatten(2).transpose(1, 2) + own[f"{stem}_embed"]
        x = nn.functional.linear(x, own["projection.proj1.weight"])
        x = nn.functional.layer_norm(
            x, x.shape[-1:], own["projection.norm_input.weight"], own["projection.norm_input.bias"]
        )
        for name in ("proj2", "proj3"):
            x = nn.functional.linear(x, own[f"projection.{name}.weight"], own[f"projection.{name}.bias"])
        return x

    model.eval().forward_image = lambda image: model.forward_features(embedded(image))
    return model


@torch.inference_mode()
def test_tokens_are_those_of_timm_behind_each_stem():
    arch = dict(get_card("terrafm_base").arch)
    ours = TerraFMEncoder(**arch)
    state = state_of(ours)
    ours.load_state_dict(state)
    ours.eval()
    for stem, bands in STEMS.items():
        theirs = reference(state, stem, **arch)
        image = torch.from_numpy(pixels(stem, 1, bands, 224, 224))
        assert_close(ours(image, stem).values, theirs.forward_image(image))
    report("S1", lambda: theirs.forward_image(image), lambda: ours(image, "s1"))


def write() -> None:
    arch = {"dim": 12, "depth": 1, "heads": 2}
    state = state_of(TerraFMEncoder(**arch))
    with torch.inference_mode():
        found = {
            stem: reference(state, stem, **arch)
            .forward_image(torch.from_numpy(pixels(f"small {stem}", 1, bands, 224, 224)))[:, ::20]
            .numpy()
            for stem, bands in STEMS.items()
        }
    np.savez_compressed(DATA / "vit/terrafm.npz", **found)
    write_manifest("TerraFM-B", published(), "written from the list of the file's tensors, not read from the file")


def published() -> dict[str, torch.Tensor]:
    """Names and shapes as torchgeo-bench and the file's readers list them: timm's, and the stem's."""
    from timm.models.vision_transformer import VisionTransformer

    with torch.device("meta"):
        trunk = VisionTransformer(num_classes=0).state_dict()
        found = {name: one for name, one in trunk.items() if not name.startswith("patch_embed.")}
        for stem, bands in STEMS.items():
            found[f"patch_embed.conv2d_{stem}.weight"] = torch.zeros(2304, bands, 16, 16)
            found[f"patch_embed.conv2d_{stem}.bias"] = torch.zeros(2304)
            found[f"patch_embed.{stem}_embed"] = torch.zeros(1, 2304)
        for name, rows in (("proj1", 2304), ("proj2", 2304), ("proj3", 768)):
            found[f"patch_embed.projection.{name}.weight"] = torch.zeros(rows, 2304)
            if name != "proj1":
                found[f"patch_embed.projection.{name}.bias"] = torch.zeros(rows)
        for name in ("weight", "bias"):
            found[f"patch_embed.projection.norm_input.{name}"] = torch.zeros(2304)
    assert len(found) == 164
    return found


if __name__ == "__main__":
    write()
