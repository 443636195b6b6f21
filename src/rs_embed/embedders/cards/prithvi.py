"""Prithvi-EO-2.0: cards of the six sizes with published weights.

Source of sizes, names, statistics and files: TerraTorch 1.2.11, models/backbones/prithvi_vit.py. Trained on
Harmonized Landsat and Sentinel-2 at 30 m, DN of reflectance x 10,000 (arXiv:2412.02732). NASA-IMPACT's inference.py
sets nodata to 0.0001 after standardising, which is nearly the mean. The pre-training used four frames, except for the
tiny model; TerraTorch's default is one. The commits and hashes of the weights were not known when this card was
written.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.settings import LayersKnobs, SeriesKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights

PrithviKey = Literal[
    "prithvi_eo_v2_tiny_tl",
    "prithvi_eo_v2_100_tl",
    "prithvi_eo_v2_300",
    "prithvi_eo_v2_300_tl",
    "prithvi_eo_v2_600",
    "prithvi_eo_v2_600_tl",
]


class PrithviKnobs(SeriesKnobs, LayersKnobs):
    """Knobs of the Prithvi family."""

    prefix = "RS_EMBED_PRITHVI_"
    HINTS: ClassVar[Mapping[str, str]] = {
        **LayersKnobs.HINTS,
        "num_frames": 'set modality="s2_series" and frames, the most dates to use from the days requested',
    }
    LATER: ClassVar[frozenset[str]] = LayersKnobs.LATER | {"frames", "temporal_sampling"}

    model_key: Annotated[PrithviKey | None, Field(description="backbone to run instead of the card's own")] = None
    normalize: Annotated[
        Literal["card_stats", "none"], Field(description="card_stats, or none if pixels are already standardised")
    ] = "card_stats"
    metadata: Annotated[bool, Field(description="0: withhold date and place from models that take them")] = True
    frames: Annotated[int, Field(ge=1, le=12, description="most dates of a series; the training had 4")] = 4


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


SERIES = "_series"
"""End of the names of modalities that are series of dated frames."""


def _modality(name: str, patch_px: int) -> Modality:
    collection, bands = _COLLECTIONS[name.removesuffix(SERIES)]
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
        is_series=name.endswith(SERIES),
    )


def _card(size: str, parameters_m: float, file: str, *, patch_px: int = 16, **arch: int) -> ModelCard:
    series = [] if size == "tiny_tl" else [name + SERIES for name in _COLLECTIONS]
    return ModelCard(
        id=f"prithvi_eo_2_0_{size}",
        revision=3,
        kind="foundation model",
        title=f"Prithvi-EO-2.0 {file.removeprefix('Prithvi-EO-2.0-')}",
        adapter="rs_embed.embedders.onthefly_prithvi:PrithviEmbedder",
        knobs=PrithviKnobs,
        arch={**arch, "patch_px": patch_px, "told": int(size.endswith("_tl"))},
        dim=arch["dim"],
        parameters_m=parameters_m,
        weights=Weights(
            f"ibm-nasa-geospatial/{file}",
            f"{file.replace('-', '_').replace('2.0', 'V2')}.pt",
            licence="Apache-2.0",
        ),
        modalities=tuple(_modality(name, patch_px) for name in (*_COLLECTIONS, *series)),
        input_prep="tile",
        licence="Apache-2.0",
        citation="arXiv:2412.02732",
        model_key=f"prithvi_eo_v2_{size}",
        aliases=("prithvi",) if size == "300_tl" else (),
    )


CARDS = (
    _card("tiny_tl", 5.63, "Prithvi-EO-2.0-tiny-TL", dim=192, depth=12, heads=3),
    _card("100_tl", 86.2, "Prithvi-EO-2.0-100M-TL", dim=768, depth=12, heads=12),
    _card("300", 304, "Prithvi-EO-2.0-300M", dim=1024, depth=24, heads=16),
    _card("300_tl", 304, "Prithvi-EO-2.0-300M-TL", dim=1024, depth=24, heads=16),
    _card("600", 631, "Prithvi-EO-2.0-600M", patch_px=14, dim=1280, depth=32, heads=16),
    _card("600_tl", 631, "Prithvi-EO-2.0-600M-TL", patch_px=14, dim=1280, depth=32, heads=16),
)
