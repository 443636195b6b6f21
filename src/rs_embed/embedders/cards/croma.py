"""CROMA: two sizes of one release.

Source of bands, scaling and sizes: antofuller/CROMA 59505a6 (README, use_croma.py); of the files: TorchGeo 0.8.1,
models/croma.py, whose copies have a commit; of the fixed statistics: rslearn 0.1.19, models/croma.py. TorchGeo gives
the licence of the weights as CC-BY-4.0; the authors' repository is MIT. Not settled by the sources: whether the optical
images of the training were L1C or L2A, and whether its radar images were in dB.
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.settings import WeightsKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights


class CromaKnobs(WeightsKnobs):
    """Knobs of CROMA."""

    prefix = "RS_EMBED_CROMA_"

    model_key: Annotated[Literal["croma_base", "croma_large"] | None, Field(description="size to run")] = None
    normalize: Annotated[
        Literal["image", "card_stats", "none"],
        Field(description="image: by the chip's own mean and deviation; card_stats: by fixed numbers; none"),
    ] = "image"
    pooled: Annotated[
        Literal["gap", "patch"],
        Field(description="source of a vector: the authors' GAP vector, or the mean of patches"),
    ] = "gap"


_S2 = {
    "B1": (1116, 1956), "B2": (1189, 1859), "B3": (1408, 1728), "B4": (1513, 1741), "B5": (1891, 1755),
    "B6": (2484, 1622), "B7": (2723, 1622), "B8": (2755, 1612), "B8A": (2886, 1611), "B9": (3270, 2651),
    "B11": (2563, 1442), "B12": (1914, 1329),
}  # fmt: skip
_S1 = {"VV": (0.15, 0.82), "VH": (0.03, 0.15)}
"""Mean and standard deviation; of Sentinel-1, linear."""
OPTICAL, RADAR = ("s2", "s2_l1c"), ("s1", "s1_rtc")


def _modality(name: str, collection: str) -> Modality:
    numbers, unit = (_S2, Unit.DN) if name in OPTICAL else (_S1, Unit.POWER)
    return Modality(
        name,
        SensorSpec(collection, tuple(numbers), fill_value="mean"),
        {band: BandStats(band, unit, mean, std) for band, (mean, std) in numbers.items()},
        image_px=120,
        patch_px=8,
        fixed=True,
    )


def _card(size: str, *, dim: int, depth: int, parameters_m: float, file: str, revision: str) -> ModelCard:
    return ModelCard(
        id=f"croma_{size}",
        revision=1,
        kind="foundation model",
        title=f"CROMA {size.capitalize()}",
        adapter="rs_embed.embedders.onthefly_croma:CromaEmbedder",
        knobs=CromaKnobs,
        arch={"dim": dim, "depth": depth, "heads": 16},
        dim=dim,
        parameters_m=parameters_m,
        weights=Weights("torchgeo/croma", file, licence="CC-BY-4.0", revision=revision),
        modalities=(
            _modality("s2", "COPERNICUS/S2_SR_HARMONIZED"),
            _modality("s2_l1c", "COPERNICUS/S2_HARMONIZED"),
            _modality("s1", "COPERNICUS/S1_GRD"),
            _modality("s1_rtc", "COPERNICUS/S1_RTC"),
        ),
        default=("s2", "s1"),
        input_prep="tile",
        licence="CC-BY-4.0",
        citation="arXiv:2311.00566",
        model_key=f"croma_{size}",
        aliases=("croma",) if size == "base" else (),
    )


CARDS = (
    _card(
        "base", dim=768, depth=12, parameters_m=194.4,
        file="CROMA_base-0238d814.pt", revision="387883f08af79d777167519c57cd826eda89a16f",
    ),
    _card(
        "large", dim=1024, depth=24, parameters_m=672.6,
        file="CROMA_large-921e69ad.pt", revision="92cb1a0f4e34c6c01558baf070197c01255382f6",
    ),
)  # fmt: skip
