"""How far Galileo's embeddings move when Sentinel-2 L2A stands in for L1C, which it was trained with.

Two scenes of TerraMesh that have both, beside the checkout (../shared/data/terramesh), and the weights of nano there.
"""

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from quality_models import GALILEO_BANDS, weights

from rs_embed import OutputSpec, get_embedding
from rs_embed.embedding.similarity import cosine

SCENES = ("38D_378R_2_3", "433D_629L_3_1")
L2A = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
LEVELS = {"s2": ("S2L2A", L2A), "s2_l1c": ("S2L1C", (*L2A[:10], "B10", *L2A[10:]))}
"""Modality -> folder of TerraMesh, and the order of its bands."""
Tokens = NDArray[np.float32]


def embedded(scene: str, modality: str) -> tuple[Tokens, Tokens]:
    """Tokens `[N, D]` and vector `[D]` of a scene."""
    kind, names = LEVELS[modality]
    (root,) = (one for one in Path(__file__).resolve().parents if (one / "shared/data/terramesh").exists())
    with rasterio.open(root / f"shared/data/terramesh/{kind}/{scene}.tif") as file:
        pixels = file.read([names.index(name) + 1 for name in GALILEO_BANDS]).astype(np.float32)
    asked = {"input_chw": {modality: pixels}, "dates": ["2020-06-15"], "unit": {modality: "dn"}}
    ckpt = weights("galileo_nano/encoder.pt")
    grid = get_embedding("galileo_1_0_nano", output=OutputSpec.grid(), ckpt=ckpt, **asked).data
    return grid.reshape(len(grid), -1).T, get_embedding("galileo_1_0_nano", ckpt=ckpt, **asked).data


def main() -> None:
    """Print a table."""
    order = np.random.default_rng(0)
    found = {(scene, level): embedded(scene, level) for scene in SCENES for level in LEVELS}
    print("| scene | tokens | centred | nearest is itself | other tokens of the scene | vectors |")
    for scene in SCENES:
        (one, vector), (other, its_vector) = found[scene, "s2"], found[scene, "s2_l1c"]
        centred, its_centred = one - one.mean(axis=0), other - other.mean(axis=0)
        nearest = cosine(its_centred[:, None], centred[None]).argmax(axis=1)
        row = (
            np.median(cosine(one, other)),
            np.median(cosine(centred, its_centred)),
            np.mean(nearest == np.arange(len(one))),
            np.median(cosine(one, one[order.permutation(len(one))])),
            cosine(vector, its_vector),
        )
        print(f"| {scene} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    print(f"vectors of the two scenes: {cosine(found[SCENES[0], 's2'][1], found[SCENES[1], 's2'][1]):.2f}")


if __name__ == "__main__":
    main()
