"""DINOv3 ViT-L, trained on 493 million satellite images of 0.6 m.

Source of the file, the mean and the standard deviation: timm 1.0.31, models/eva.py; of the training imagery: the model
card. The file was not available when this card was written; its commit and hash were not known.
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights
from rs_embed.embedders.cards.ssl4eo import ViTKnobs


class DinoV3Knobs(ViTKnobs):
    """Knobs of DINOv3."""

    prefix = "RS_EMBED_DINOV3_"

    model_key: Annotated[
        Literal["vit_large_patch16_dinov3.sat493m"] | None, Field(description="there is one release")
    ] = None
    window_px: Annotated[
        int, Field(ge=16, le=1024, multiple_of=16, description="side of a window, px; 512 in training")
    ] = 256


_MOMENTS = ((0.430, 0.213), (0.411, 0.156), (0.296, 0.143))
"""Mean and standard deviation of red, green and blue, from 0 to 1, over satellite imagery."""
S2_DN = (0.0, 3000.0)
"""Range of Sentinel-2 that becomes bytes 0 to 255. This project's choice: the authors name none."""


def _picture(name: str, collection: str, scale_m: float) -> Modality:
    stats = {
        band: BandStats(band, Unit.BYTE, 255 * mean, 255 * std)
        for band, (mean, std) in zip("RGB", _MOMENTS, strict=True)
    }
    return Modality(
        name,
        SensorSpec(collection, tuple(stats), scale_m=scale_m, fill_value="mean"),
        stats,
        image_px=256,
        patch_px=16,
    )


def _s2() -> Modality:
    low, high = S2_DN
    stats = {
        band: BandStats(own, Unit.DN, low + mean * (high - low), std * (high - low))
        for band, own, (mean, std) in zip(("B4", "B3", "B2"), "RGB", _MOMENTS, strict=True)
    }
    sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", tuple(stats), fill_value="mean")
    return Modality("s2_rgb", sensor, stats, image_px=256, patch_px=16, clip=S2_DN, byte_range=S2_DN)


_LICENCE = (
    "dinov3: DINOv3 License of Meta, 19 August 2025. Not for military, weapons, nuclear or espionage use, nor under "
    "ITAR; pass the licence on, acknowledge DINOv3 in publications"
)
CARDS = (
    ModelCard(
        id="dinov3_sat493m_large",
        revision=1,
        kind="foundation model",
        title="DINOv3 ViT-L/16, SAT-493M",
        adapter="rs_embed.embedders.onthefly_dinov3:DinoV3Embedder",
        knobs=DinoV3Knobs,
        arch={"dim": 1024, "depth": 24, "heads": 16, "patch_px": 16},
        dim=1024,
        parameters_m=303.08,
        weights=Weights("timm/vit_large_patch16_dinov3.sat493m", "model.safetensors", licence=_LICENCE),
        modalities=(_picture("naip", "USDA/NAIP/DOQQ", 1.0), _picture("aerial", "IGN/BD_ORTHO", 0.6), _s2()),
        input_prep="tile",
        licence=_LICENCE,
        citation="arXiv:2508.10104",
        model_key="vit_large_patch16_dinov3.sat493m",
        aliases=("dinov3",),
    ),
)
