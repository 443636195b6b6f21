"""The networks of the packages that hold the authors' code, and what they compute for `wave_cases`.

`python tests/parity/wave_references.py`, in the environment of `make parity`, writes the golden cases of the ordinary
tests (tests/data/waves) and the names and shapes of the published tensors (tests/data/golden/manifests).
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import wave_cases as cases

MANIFESTS = cases.GOLDEN.parent / "golden" / "manifests"
NOT_IN_THE_FILE = ("fc_norm.", "head.")
"""torchgeo allows the published files to lack these."""


def clay(*, dim: int, depth: int, heads: int) -> nn.Module:
    """The encoder as TerraTorch keeps it, seeing every patch in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision = torch.get_float32_matmul_precision()
        from terratorch.models.backbones.clay_v15.model import Encoder

        torch.set_float32_matmul_precision(precision)
    return Encoder(
        mask_ratio=0, patch_size=8, shuffle=False, dim=dim, depth=depth, heads=heads, dim_head=64, mlp_ratio=4
    ).eval()


def dofa(*, dim: int, depth: int, heads: int, image_px: int = 224) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchgeo.models import DOFA
    return DOFA(img_size=image_px, embed_dim=dim, depth=depth, num_heads=heads, num_classes=0).eval()


def copernicusfm(*, dim: int, depth: int, heads: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchgeo.models import CopernicusFM
    return CopernicusFM(embed_dim=dim, depth=depth, num_heads=heads).eval()


BUILDERS = {"clay": clay, "dofa": dofa, "copernicusfm": copernicusfm}
SMALL = {"clay": cases.CLAY, "dofa": cases.DOFA, "copernicusfm": cases.COPERNICUS}
PUBLISHED = {
    "clay_v1_5_large": ("clay", {"dim": 1024, "depth": 24, "heads": 16}),
    "dofa_base_patch16_224": ("dofa", {"dim": 768, "depth": 12, "heads": 12}),
    "dofa_large_patch16_224": ("dofa", {"dim": 1024, "depth": 24, "heads": 16}),
    "copernicusfm_base": ("copernicusfm", {"dim": 768, "depth": 12, "heads": 12}),
}


def tokens_of(module: nn.Module, case: cases.Case) -> Tensor:
    """All tokens behind the last block; torchgeo itself returns only their mean."""
    caught: list[Tensor] = []
    with torch.inference_mode():
        if case.family == "clay":
            waves = torch.tensor([wave.centre_um for wave in case.waves])
            told = {name: case.told[theirs] for name, theirs in (("time", "time"), ("latlon", "place"))}
            gsd = torch.tensor(case.told["pixel_m"])
            return module({"pixels": case.image, "waves": waves, "gsd": gsd, **told})[0]
        hook = module.blocks[-1].register_forward_hook(lambda _, given, output: caught.append(output))
        if case.family == "dofa":
            module.forward_features(case.image, [wave.centre_um for wave in case.waves])
        else:
            unknown = torch.full((2, 1), torch.nan)
            told = [case.told.get(name, unknown).reshape(2, -1) for name in ("lon_lat", "days", "area_km2")]
            nanometres = [(1000 * wave.centre_um, 1000 * (wave.width_um or 0)) for wave in case.waves]
            module.forward_features(
                case.image,
                torch.cat(told if case.told else [unknown, *told], dim=1),
                wavelengths=[centre for centre, _ in nanometres],
                bandwidths=[width for _, width in nanometres],
                kernel_size=16,
            )
        hook.remove()
    return caught[0]


def small_reference(family: str) -> nn.Module:
    module = BUILDERS[family](**SMALL[family])
    module.load_state_dict(cases.weights(cases.shapes_of(module)))
    return module


def published_shapes(module: nn.Module) -> dict[str, list[int]]:
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    return {name: shape for name, shape in shapes.items() if not name.startswith(NOT_IN_THE_FILE)}


def main() -> None:
    for name, case in cases.CASES.items():
        tokens = tokens_of(small_reference(case.family), case).numpy()
        np.savez_compressed(cases.GOLDEN / f"{name}.npz", tokens=tokens[:, :: max(1, tokens.shape[1] // 20)])
    for name, (family, size) in PUBLISHED.items():
        with torch.device("meta"):
            shapes = published_shapes(BUILDERS[family](**size))
        values = sum(int(np.prod(shape)) for shape in shapes.values())
        facts = {"n_tensors": len(shapes), "n_values": values, "tensors": shapes}
        (MANIFESTS / f"{name}.json").write_text(json.dumps(facts, indent=0) + "\n")
        print(name, len(shapes), values)


if __name__ == "__main__":
    main()
