"""DOFA v1, base and large, on Sentinel-2.

Source of the network: TerraTorch 1.2.11, models/backbones/dofa_vit.py; of the files: TorchGeo 0.8.1, models/dofa.py;
of licences: TorchGeo, docs/api/weights/agnostic.csv; of statistics and bands: zhu-xlab/DOFA, README.md. The statistics
refer to 8-bit images of SatlasPretrain, made from L1C (allenai/satlas, Normalization.md): DN / 32, limited to 255, and
ESA's true colour for the first three bands, whose 255 is DN 3558 in L1C (Sentinel-2 user guide, definitions). This card
reverses both, so that its statistics are in DN. Sentinel-1 is left out, because the making of its 8-bit images is not
documented. The patch convolution pads one pixel (TorchGeo 0.8.1, models/dofa.py).
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, Weights
from rs_embed.embedders.cards.terratorch import ADAPTER, EXTRA, Backbone, TerraTorchCard, TerraTorchKnobs

DofaKey = Literal["dofa_base_patch16_224", "dofa_large_patch16_224"]


class DofaKnobs(TerraTorchKnobs):
    """Knobs of DOFA."""

    prefix = "RS_EMBED_DOFA_"

    model_key: Annotated[DofaKey | None, Field(description="backbone to run instead of the card's own")] = None


TRUE_COLOUR, OTHERS = 3558 / 255, 32.0
"""DN per step of the 8-bit images."""
_EIGHT_BIT = {
    "B4": ("RED", 114.1099739, 77.84352553, TRUE_COLOUR),
    "B3": ("GREEN", 114.81779093, 69.96844919, TRUE_COLOUR),
    "B2": ("BLUE", 126.63977424, 67.42465279, TRUE_COLOUR),
    "B5": ("RED_EDGE_1", 84.33539309, 64.57022983, OTHERS),
    "B6": ("RED_EDGE_2", 97.84789168, 61.72545487, OTHERS),
    "B7": ("RED_EDGE_3", 103.94461911, 61.34187099, OTHERS),
    "B8": ("NIR_BROAD", 101.435633, 60.29744676, OTHERS),
    "B11": ("SWIR_1", 72.32804172, 47.88519516, OTHERS),
    "B12": ("SWIR_2", 56.66528851, 42.55886798, OTHERS),
}
_S2 = {band: BandStats(name, Unit.DN, mean * step, std * step) for band, (name, mean, std, step) in _EIGHT_BIT.items()}
MODALITIES = (
    Modality(
        "s2",
        SensorSpec("COPERNICUS/S2_HARMONIZED", tuple(_S2), fill_value="mean"),
        _S2,
        image_px=224,
        patch_px=16,
        fixed=True,
    ),
)


def _card(size: Literal["base", "large"], parameters_m: float, dim: int, depth: int, digest: str) -> TerraTorchCard:
    name = f"dofa_{size}_patch16_224"
    return TerraTorchCard(
        id=f"dofa_1_0_{size}",
        revision=3,
        kind="foundation model",
        title=f"DOFA v1 {size.capitalize()}",
        adapter=ADAPTER,
        knobs=DofaKnobs,
        arch={},
        dim=dim,
        parameters_m=parameters_m,
        weights=Weights(
            "torchgeo/dofa",
            f"{name}-{digest}.pth",
            licence="CC-BY-4.0",
            revision="b8db318b64a90b9e085ec04ba8851233c5893666",
        ),
        modalities=MODALITIES,
        input_prep="resize",
        licence="CC-BY-4.0",
        citation="arXiv:2403.15356",
        model_key=name,
        aliases=("dofa",) if size == "base" else (),
        extra=EXTRA,
        backbone=Backbone(
            builder=name,
            options={
                "model_bands": [stats.model_name for stats in _S2.values()],
                "num_classes": 0,
                "out_indices": list(range(depth)),
            },
            saturation={band: 255 * step for band, (*_, step) in _EIGHT_BIT.items()},
            depth=depth,
            padding_px=1,
            prepend="dofa_model.",
            own=(r"dofa_model\.fc_norm\..*",),  # part of the classifier: not in the file and not used
        ),
    )


CARDS = (_card("base", 111, 768, 12, "a0275954"), _card("large", 337, 1024, 24, "0ff904d3"))
