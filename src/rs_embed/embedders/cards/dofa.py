"""DOFA v1, base and large: Sentinel-2 as in training, NAIP, Gaofen-2 and Landsat, and any bands by their wavelengths.

Source of the network and its files: TorchGeo 0.8.1, models/dofa.py; of licences: TorchGeo,
docs/api/weights/agnostic.csv; of statistics and bands: zhu-xlab/DOFA, README.md. Those of Sentinel-2 refer to 8-bit
images of SatlasPretrain, made from L1C (allenai/satlas, Normalization.md): DN / 32, limited to 255, and ESA's true
colour for the first three bands, whose 255 is DN 3558 in L1C (Sentinel-2 user guide, definitions). This card reverses
both, so that its statistics are in DN. Sentinel-1 is left out, because the making of its 8-bit images is not
documented. Wavelengths of Sentinel-2 are those of TerraTorch 1.2.11, models/backbones/dofa_vit.py, through which this
model ran at first; the authors' example has 0.842 and 2.19 um for the bands B8 and B12.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights
from rs_embed.embedders.cards import clay
from rs_embed.embedders.cards.waves import Row, WaveKnobs, modality_of

DofaKey = Literal["dofa_base_patch16_224", "dofa_large_patch16_224"]


class DofaKnobs(WaveKnobs):
    """Knobs of DOFA."""

    prefix = "RS_EMBED_DOFA_"

    model_key: Annotated[DofaKey | None, Field(description="backbone to run instead of the card's own")] = None


TRUE_COLOUR, OTHERS = 3558 / 255, 32.0
"""DN per step of the 8-bit images."""
_EIGHT_BIT = {
    "B4": ("RED", 114.1099739, 77.84352553, TRUE_COLOUR, 0.665),
    "B3": ("GREEN", 114.81779093, 69.96844919, TRUE_COLOUR, 0.56),
    "B2": ("BLUE", 126.63977424, 67.42465279, TRUE_COLOUR, 0.49),
    "B5": ("RED_EDGE_1", 84.33539309, 64.57022983, OTHERS, 0.705),
    "B6": ("RED_EDGE_2", 97.84789168, 61.72545487, OTHERS, 0.74),
    "B7": ("RED_EDGE_3", 103.94461911, 61.34187099, OTHERS, 0.783),
    "B8": ("NIR_BROAD", 101.435633, 60.29744676, OTHERS, 0.832),
    "B11": ("SWIR_1", 72.32804172, 47.88519516, OTHERS, 1.61),
    "B12": ("SWIR_2", 56.66528851, 42.55886798, OTHERS, 2.2),
}
_S2 = {
    band: BandStats(name, Unit.DN, mean * step, std * step, um, highest=255 * step)
    for band, (name, mean, std, step, um) in _EIGHT_BIT.items()
}
_NAIP: dict[str, Row] = {
    "R": ("RED", 123.675, 58.395, 0.665),
    "G": ("GREEN", 116.28, 57.12, 0.56),
    "B": ("BLUE", 103.53, 57.375, 0.49),
}
"""In bytes: the authors take the statistics of ImageNet."""
_GAOFEN: dict[str, Row] = {
    "N": ("NIR", 123.94924583, 67.34487297, 0.83),
    "R": ("RED", 92.58088583, 62.8271046, 0.66),
    "G": ("GREEN", 97.28130189, 60.5856767, 0.555),
    "B": ("BLUE", 90.31526596, 60.3946299, 0.485),
}
"""In bytes. The authors publish the numbers without the order of the bands. Near infrared first is an assumption: the
first band has the highest mean. The wavelengths are the centres of the sensor's bands."""


def _photographs(name: str, collection: str, rows: Mapping[str, Row], scale_m: float) -> Modality:
    return modality_of(name, collection, rows, Unit.BYTE, scale_m=scale_m, image_px=224, patch_px=16)


def _landsat(name: str) -> Modality:
    """DOFA saw no Landsat. The statistics are those of Clay's training data: a choice of this project."""
    (modality,) = (one for one in clay.MODALITIES if one.name == name)
    return replace(modality, image_px=224, patch_px=16)


MODALITIES = (
    Modality(
        "s2", SensorSpec("COPERNICUS/S2_HARMONIZED", tuple(_S2), fill_value="mean"), _S2, image_px=224, patch_px=16
    ),
    _photographs("naip", "USDA/NAIP/DOQQ", _NAIP, 1),
    _photographs("gaofen", "CNSA/GF2", _GAOFEN, 4),
    _landsat("l8"),
    _landsat("l9"),
)


def _card(size: Literal["base", "large"], parameters_m: float, arch: Mapping[str, int], digest: str) -> ModelCard:
    name = f"dofa_{size}_patch16_224"
    return ModelCard(
        id=f"dofa_1_0_{size}",
        revision=4,
        kind="foundation model",
        title=f"DOFA v1 {size.capitalize()}",
        adapter="rs_embed.embedders.onthefly_waves:DofaEmbedder",
        knobs=DofaKnobs,
        arch=arch,
        dim=arch["dim"],
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
    )


CARDS = (
    _card("base", 111, {"dim": 768, "depth": 12, "heads": 12}, "a0275954"),
    _card("large", 337, {"dim": 1024, "depth": 24, "heads": 16}, "0ff904d3"),
)
