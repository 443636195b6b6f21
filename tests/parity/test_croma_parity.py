"""CROMA beside TorchGeo's network: the same seeded weights and pixels, the same numbers. See test_vit.py."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from beside import DATA, assert_close, filled, report, write_manifest
from seeded import pixels

from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.croma import CromaEncoder

pytestmark = pytest.mark.skipif(find_spec("torchgeo") is None, reason="torchgeo is not installed here: `make parity`")
NAMES = {"optical": "optical", "radar": "sar"}


def reference(size: int, **arch: int) -> torch.nn.Module:
    from torchgeo.models import CROMA

    return filled(CROMA(image_size=size, **arch), but=("attn_bias",))


def images(side: int) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(0.5 + 0.2 * pixels(f"croma {name}", 1, bands, side, side))
        for name, bands in (("optical", 12), ("radar", 2))
    }


@torch.inference_mode()
def test_tokens_and_vectors_are_those_of_torchgeo():
    arch = get_card("croma_base").arch
    theirs = reference(120, encoder_dim=arch["dim"], encoder_depth=arch["depth"])
    ours = CromaEncoder(**arch)
    ours.load_state_dict({name: one for name, one in theirs.state_dict().items() if name != "attn_bias"})
    given = images(120)
    expected = theirs(x_sar=given["radar"], x_optical=given["optical"])
    for kind, some in (("joint", given), *((NAMES[name], {name: given[name]}) for name in NAMES)):
        found = ours.eval()(**some).values
        assert_close(found[:, 1:], expected[f"{kind}_encodings"])
        assert_close(found[:, 0], expected[f"{kind}_GAP"])
    report("joint", lambda: theirs(x_sar=given["radar"], x_optical=given["optical"]), lambda: ours(**given))


def write() -> None:
    given, found = images(24), {}
    with torch.inference_mode():
        theirs = reference(24, encoder_dim=32, encoder_depth=2)(x_sar=given["radar"], x_optical=given["optical"])
    for ours, name in {"joint": "joint", "optical": "optical", "radar": "sar"}.items():
        found[ours] = torch.cat([theirs[f"{name}_GAP"][:, None], theirs[f"{name}_encodings"]], dim=1).numpy()
    np.savez_compressed(DATA / "vit/croma.npz", **found)
    for size, dim, depth in (("base", 768, 12), ("large", 1024, 24)):
        from torchgeo.models import CROMA

        with torch.device("meta"):
            state = CROMA(encoder_dim=dim, encoder_depth=depth, image_size=8).state_dict()
        del state["attn_bias"]  # computed; not in the file
        write_manifest(f"croma_{size}", state, f"torchgeo.models.croma_{size}, five state dicts joined")


if __name__ == "__main__":
    write()
