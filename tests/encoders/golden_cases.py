"""Golden cases of the authors' code."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from rs_embed.encoders.thor.bands import resolve_bands
from rs_embed.encoders.thor.encoder import ThorEncoder
from rs_embed.encoders.thor.patchify import ThorGeometry, plan_geometry

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = sorted(path.name for path in GOLDEN.glob("thor_s*"))


class Case(NamedTuple):
    """One folder of reference data."""

    geometry: ThorGeometry
    images: torch.Tensor
    expected: dict[str, torch.Tensor]


def read_config(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name / "config.json").read_text())


def read_arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as arrays:
        return {key: torch.from_numpy(arrays[key]).float() for key in arrays.files}


def read_weights() -> dict[str, torch.Tensor]:
    weights = load_file(GOLDEN / "thor_s2_gc2880_p16" / "weights.safetensors")
    return {key: value.float() for key, value in weights.items()}


def read_case(name: str) -> Case:
    config = read_config(name)
    bands, gsd_m = resolve_bands(config["model_bands"])
    geometry = plan_geometry(
        bands, config["ground_cover_m"], config["patch_sizes"], config["select_patch_strategy"], gsd_m
    )
    folder = GOLDEN / name
    return Case(geometry, read_arrays(folder / config["inputs"])["x"], read_arrays(folder / "outputs.npz"))


def golden_encoder() -> ThorEncoder:
    encoder = ThorEncoder(dim=48, depth=2, heads=3, band_dim=8)
    encoder.load_state_dict(read_weights())
    return encoder.eval()
