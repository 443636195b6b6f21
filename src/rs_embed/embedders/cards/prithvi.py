"""Prithvi-EO-2.0: cards of the six sizes with published weights.

Source of sizes, names, statistics and files: TerraTorch 1.2.11, models/backbones/prithvi_vit.py. Trained on
Harmonized Landsat and Sentinel-2 at 30 m, DN of reflectance x 10,000 (arXiv:2412.02732). NASA-IMPACT's inference.py
sets nodata to 0.0001 after standardising, which is nearly the mean. The card uses one frame, TerraTorch's default; the
pre-training used four. The commits and hashes of the weights were not known when this card was written.
"""

from typing import Annotated, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, Weights
from rs_embed.embedders.cards.terratorch import ADAPTER, EXTRA, Backbone, TerraTorchCard, TerraTorchKnobs

PrithviKey = Literal[
    "prithvi_eo_v2_tiny_tl",
    "prithvi_eo_v2_100_tl",
    "prithvi_eo_v2_300",
    "prithvi_eo_v2_300_tl",
    "prithvi_eo_v2_600",
    "prithvi_eo_v2_600_tl",
]


class PrithviKnobs(TerraTorchKnobs):
    """Knobs of the Prithvi family."""

    prefix = "RS_EMBED_PRITHVI_"

    model_key: Annotated[PrithviKey | None, Field(description="backbone to run instead of the card's own")] = None


_STATS = {
    "BLUE": (1087.0, 2248.0),
    "GREEN": (1342.0, 2179.0),
    "RED": (1433.0, 2178.0),
    "NIR_NARROW": (2734.0, 1850.0),
    "SWIR_1": (1958.0, 1242.0),
    "SWIR_2": (1363.0, 1049.0),
}
_COLLECTIONS = {
    "s2": ("COPERNICUS/S2_SR_HARMONIZED", ("B2", "B3", "B4", "B8A", "B11", "B12")),
    "l8": ("LANDSAT/LC08/C02/T1_L2", tuple(f"SR_B{band}" for band in range(2, 8))),
    "l9": ("LANDSAT/LC09/C02/T1_L2", tuple(f"SR_B{band}" for band in range(2, 8))),
}


def _modality(name: str, patch_px: int) -> Modality:
    collection, bands = _COLLECTIONS[name]
    return Modality(
        name,
        SensorSpec(collection, bands, scale_m=30, fill_value="mean"),
        {
            band: BandStats(own, Unit.DN, mean, std)
            for band, (own, (mean, std)) in zip(bands, _STATS.items(), strict=True)
        },
        image_px=224,
        patch_px=patch_px,
        fixed=True,
    )


def _card(size: str, parameters_m: float, file: str, *, patch_px: int = 16, **arch: int) -> TerraTorchCard:
    takes_metadata = size.endswith("_tl")
    return TerraTorchCard(
        id=f"prithvi_eo_2_0_{size}",
        revision=2,
        kind="foundation model",
        title=f"Prithvi-EO-2.0 {file.removeprefix('Prithvi-EO-2.0-')}",
        adapter=ADAPTER,
        knobs=PrithviKnobs,
        arch=arch,
        dim=arch["embed_dim"],
        parameters_m=parameters_m,
        weights=Weights(
            f"ibm-nasa-geospatial/{file}",
            f"{file.replace('-', '_').replace('2.0', 'V2')}.pt",
            licence="Apache-2.0",
        ),
        modalities=tuple(_modality(name, patch_px) for name in _COLLECTIONS),
        input_prep="tile",
        licence="Apache-2.0",
        citation="arXiv:2412.02732",
        model_key=f"prithvi_eo_v2_{size}",
        aliases=("prithvi",) if size == "300_tl" else (),
        extra=EXTRA,
        backbone=Backbone(
            builder=f"prithvi_eo_v2_{size}",
            options={"bands": list(_STATS), "num_frames": 1},
            any_size=True,
            time=("temporal_coords", "year_day") if takes_metadata else None,
            location=("location_coords", "lat_lon") if takes_metadata else None,
            own=(r"pos_embed",),  # computed from the number of frames
        ),
    )


CARDS = (
    _card("tiny_tl", 5.63, "Prithvi-EO-2.0-tiny-TL", embed_dim=192, depth=12, num_heads=3),
    _card("100_tl", 86.2, "Prithvi-EO-2.0-100M-TL", embed_dim=768, depth=12, num_heads=12),
    _card("300", 304, "Prithvi-EO-2.0-300M", embed_dim=1024, depth=24, num_heads=16),
    _card("300_tl", 304, "Prithvi-EO-2.0-300M-TL", embed_dim=1024, depth=24, num_heads=16),
    _card("600", 631, "Prithvi-EO-2.0-600M", patch_px=14, embed_dim=1280, depth=32, num_heads=16),
    _card("600_tl", 631, "Prithvi-EO-2.0-600M-TL", patch_px=14, embed_dim=1280, depth=32, num_heads=16),
)
