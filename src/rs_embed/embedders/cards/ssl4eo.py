"""Small vision transformers of SSL4EO-S12, trained with DINO and MoCo v3 on Sentinel-2 L1C.

Source of the network: TerraTorch 1.2.11, models/backbones/torchgeo_vit.py; of files, bands and the division by 10,000
(no mean is subtracted): TorchGeo 0.8.1, models/vit.py; of licences: TorchGeo, docs/api/weights/sentinel2.csv.
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, Weights
from rs_embed.embedders.cards.terratorch import ADAPTER, EXTRA, Backbone, TerraTorchCard, TerraTorchKnobs

Ssl4eoKey = Literal[
    "ssl4eos12_vit_small_patch16_224_sentinel2_all_dino", "ssl4eos12_vit_small_patch16_224_sentinel2_all_moco"
]


class Ssl4eoKnobs(TerraTorchKnobs):
    """Knobs of the SSL4EO-S12 models."""

    prefix = "RS_EMBED_SSL4EO_"

    model_key: Annotated[Ssl4eoKey | None, Field(description="backbone to run instead of the card's own")] = None


_NAMES = {
    "B1": "COASTAL_AEROSOL",
    "B2": "BLUE",
    "B3": "GREEN",
    "B4": "RED",
    "B5": "RED_EDGE_1",
    "B6": "RED_EDGE_2",
    "B7": "RED_EDGE_3",
    "B8": "NIR_BROAD",
    "B8A": "NIR_NARROW",
    "B9": "WATER_VAPOR",
    "B10": "CIRRUS",
    "B11": "SWIR_1",
    "B12": "SWIR_2",
}
MODALITIES = (
    Modality(
        "s2",
        SensorSpec("COPERNICUS/S2_HARMONIZED", tuple(_NAMES)),
        {band: BandStats(name, Unit.DN, 0, 10_000) for band, name in _NAMES.items()},
        image_px=224,
        patch_px=16,
        fixed=True,
    ),
)


def _card(method: Literal["dino", "moco"], digest: str, revision: str) -> TerraTorchCard:
    name = f"vit_small_patch16_224_sentinel2_all_{method}"
    return TerraTorchCard(
        id=f"ssl4eo_s12_vits16_{method}",
        revision=2,
        kind="foundation model",
        title=f"SSL4EO-S12 ViT-S/16, {'DINO' if method == 'dino' else 'MoCo v3'}",
        adapter=ADAPTER,
        knobs=Ssl4eoKnobs,
        arch={},
        dim=384,
        parameters_m=22.6,
        weights=Weights(f"torchgeo/{name}", f"{name}-{digest}.pth", licence="CC-BY-4.0", revision=revision),
        modalities=MODALITIES,
        input_prep="resize",
        licence="CC-BY-4.0",
        citation="arXiv:2211.07044",
        model_key=f"ssl4eos12_{name}",
        extra=EXTRA,
        backbone=Backbone(
            builder=f"ssl4eos12_{name}",
            options={"model_bands": list(_NAMES.values()), "num_classes": 0},
            prefix_tokens=0,  # the wrapper returns a map
            prepend="vit_model.",
        ),
    )


CARDS = (
    _card("dino", "36bcc127", "5b41dd418a79de47ac9f5be3e035405a83818a62"),
    _card("moco", "67c9032d", "1cb683f6c14739634cdfaaceb076529adf898c74"),
)
