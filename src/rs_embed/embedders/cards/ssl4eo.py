"""Vision transformers trained on SSL4EO-S12: DINO, MoCo v3, MAE, FG-MAE and SoftCon, for Sentinel-2 L1C or Sentinel-1.

Source of files, commits, bands and statistics: TorchGeo 0.8.1, models/vit.py; of the networks: timm 1.0; of the tokens
of DINO and MoCo v3: TerraTorch 1.2.11, models/backbones/torchgeo_vit.py; of licences: TorchGeo, docs/api/weights. For
Sentinel-2, TorchGeo subtracts no mean and divides by 10,000, except for SoftCon. The hashes of the files were not known
when this card was written.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rs_embed.core.bands import Unit
from rs_embed.core.settings import LayersKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights

Ssl4eoKey = Literal[
    "ssl4eos12_vit_small_patch16_224_sentinel2_all_dino", "ssl4eos12_vit_small_patch16_224_sentinel2_all_moco",
    "B13_vits16_mae", "B13_vitb16_mae", "B13_vitl16_mae", "B13_vith14_mae",
    "B2_vits16_mae", "B2_vitb16_mae", "B2_vitl16_mae", "B2_vith14_mae",
    "B13_vits16_fgmae", "B13_vitb16_fgmae", "B13_vitl16_fgmae", "B13_vith14_fgmae",
    "B2_vits16_fgmae", "B2_vitb16_fgmae", "B2_vitl16_fgmae", "B2_vith14_fgmae",
    "B13_vits14_softcon", "B13_vitb14_softcon", "B2_vits14_softcon", "B2_vitb14_softcon",
]  # fmt: skip


class ViTKnobs(LayersKnobs):
    """Knobs of plain vision transformers; a family adds its prefix and the names of its variants."""

    LATER: ClassVar[frozenset[str]] = LayersKnobs.LATER | {"pooled"}

    normalize: Annotated[
        Literal["card_stats", "none"], Field(description="card_stats, or none if pixels are already standardised")
    ] = "card_stats"
    pooled: Annotated[
        Literal["patch", "class"] | None,
        Field(description="source of a vector: the mean of patches, or the class token; unset: patch"),
    ] = None


class Ssl4eoKnobs(ViTKnobs):
    """Knobs of the SSL4EO-S12 models."""

    prefix = "RS_EMBED_SSL4EO_"

    model_key: Annotated[Ssl4eoKey | None, Field(description="network to run instead of the card's own")] = None
    metadata: Annotated[bool, Field(description="no effect: these models take neither date nor place")] = True


IMAGE_PX = 224
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
SOFTCON_DN = (
    (1612.9, 791.0), (1397.6, 854.3), (1322.3, 878.7), (1373.1, 1144.9), (1561.0, 1127.5), (2108.4, 1164.2),
    (2390.7, 1276.0), (2318.7, 1249.5), (2581.0, 1345.9), (837.7, 577.5), (22.0, 47.5), (2195.2, 1340.0),
    (1537.4, 1142.9),
)  # fmt: skip
"""Mean and standard deviation of each band of Sentinel-2 L1C in SSL4EO-S12, DN."""
S1_DB = {"VV": (-12.59, 5.26), "VH": (-20.26, 5.91)}
"""Mean and standard deviation of Sentinel-1 GRD in SSL4EO-S12, dB."""
_NETWORKS: Mapping[str, tuple[str, dict[str, int], tuple[float, float]]] = {
    "vits16": ("ViT-S/16", {"dim": 384, "depth": 12, "heads": 6, "patch_px": 16}, (22.65, 21.57)),
    "vitb16": ("ViT-B/16", {"dim": 768, "depth": 12, "heads": 12, "patch_px": 16}, (87.76, 85.6)),
    "vitl16": ("ViT-L/16", {"dim": 1024, "depth": 24, "heads": 16, "patch_px": 16}, (305.9, 303)),
    "vith14": ("ViT-H/14", {"dim": 1280, "depth": 32, "heads": 16, "patch_px": 14}, (633.3, 630.5)),
    "vits14": ("ViT-S/14", {"dim": 384, "depth": 12, "heads": 6, "patch_px": 14, "scaled": 1}, (22.4, 21.5)),
    "vitb14": ("ViT-B/14", {"dim": 768, "depth": 12, "heads": 12, "patch_px": 14, "scaled": 1}, (87, 85.5)),
}
"""Name, numbers, and millions of parameters with 13 and with 2 bands."""


def _modality(name: Literal["s2", "s1"], patch_px: int, dn: tuple[tuple[float, float], ...] | None = None) -> Modality:
    """Return the input of a model; `dn` are statistics of Sentinel-2, which is otherwise divided by 10,000."""
    if name == "s1":
        stats = {band: BandStats(band, Unit.DB, mean, std) for band, (mean, std) in S1_DB.items()}
        sensor = SensorSpec("COPERNICUS/S1_GRD", tuple(stats), fill_value="mean")
    else:
        moments = dn or ((0, 10_000),) * len(_NAMES)
        stats = {
            band: BandStats(own, Unit.DN, mean, std)
            for (band, own), (mean, std) in zip(_NAMES.items(), moments, strict=True)
        }
        sensor = SensorSpec("COPERNICUS/S2_HARMONIZED", tuple(stats), fill_value="mean" if dn else 0.0)
    return Modality(name, sensor, stats, image_px=IMAGE_PX, patch_px=patch_px, fixed=True)


def _card(
    model_id: str, title: str, size: str, modality: Modality, weights: Weights, *, key: str, older: bool, citation: str
) -> ModelCard:
    _, numbers, millions = _NETWORKS[size]
    bands, side = len(modality.sensor.bands), IMAGE_PX // numbers["patch_px"]
    return ModelCard(
        id=model_id,
        revision=3 if older else 1,
        kind="foundation model",
        title=title,
        adapter="rs_embed.embedders.onthefly_vit:ViTEmbedder",
        knobs=Ssl4eoKnobs,
        arch={"bands": bands, **numbers, "side": side, "normed": int(not older)},
        dim=numbers["dim"],
        parameters_m=millions[0 if modality.name == "s2" else 1],
        weights=weights,
        modalities=(modality,),
        input_prep="resize" if older else "tile",
        licence=weights.licence,
        citation=citation,
        model_key=key,
    )


def _first(method: Literal["dino", "moco"], digest: str, revision: str) -> ModelCard:
    """DINO and MoCo v3: TerraTorch returns the last block without the norm."""
    name = f"vit_small_patch16_224_sentinel2_all_{method}"
    return _card(
        f"ssl4eo_s12_vits16_{method}",
        f"SSL4EO-S12 ViT-S/16, {'DINO' if method == 'dino' else 'MoCo v3'}",
        "vits16",
        _modality("s2", 16),
        Weights(f"torchgeo/{name}", f"{name}-{digest}.pth", licence="CC-BY-4.0", revision=revision),
        key=f"ssl4eos12_{name}",
        older=True,
        citation="arXiv:2211.07044",
    )


_HUBS = {
    "mae": ("wangyi111/SSL4EO-S12", "75c72195d35201dc1fb210818993518c25da566b", "MAE", "arXiv:2211.07044"),
    "fgmae": ("wangyi111/FGMAE", "24dd3077d7a99ecd454eaec7adb83d045d7fa122", "FG-MAE", "arXiv:2310.18653"),
    "softcon": ("wangyi111/softcon", "bae909781911f8ec034b4b959992fae17b973c0c", "SoftCon", "arXiv:2405.20462"),
}
_EPOCHS = {"mae": ("ep99_", "ep199_"), "fgmae": ("ep99_", "ep399_"), "softcon": ("", "")}
"""Part of the file name: of most sizes, and of ViT-H."""


def _later(method: Literal["mae", "fgmae", "softcon"], size: str, sensor: Literal["s2", "s1"]) -> ModelCard:
    """MAE, FG-MAE and SoftCon: the tokens have the final norm, as in timm."""
    hub, revision, name, citation = _HUBS[method]
    family = "softcon" if method == "softcon" else "ssl4eo_s12"
    shown, numbers, _ = _NETWORKS[size]
    key = f"{'B13' if sensor == 's2' else 'B2'}_{size}_{method}"
    end = "" if sensor == "s2" else "_s1"
    titled = f"SoftCon {shown}" if method == "softcon" else f"SSL4EO-S12 {shown}, {name}"
    return _card(
        f"softcon_{size}{end}" if family == "softcon" else f"ssl4eo_s12_{size}_{method}{end}",
        titled + (", Sentinel-1" if sensor == "s1" else ""),
        size,
        _modality(sensor, numbers["patch_px"], SOFTCON_DN if method == "softcon" else None),
        Weights(hub, f"{key}_{_EPOCHS[method][size == 'vith14']}enc.pth", licence="CC-BY-4.0", revision=revision),
        key=key,
        older=False,
        citation=citation,
    )


_SENSORS: tuple[Literal["s2", "s1"], ...] = ("s2", "s1")
_METHODS: tuple[Literal["mae", "fgmae"], ...] = ("mae", "fgmae")
SOFTCON = tuple(_later("softcon", size, sensor) for sensor in _SENSORS for size in ("vits14", "vitb14"))
CARDS = (
    _first("dino", "36bcc127", "5b41dd418a79de47ac9f5be3e035405a83818a62"),
    _first("moco", "67c9032d", "1cb683f6c14739634cdfaaceb076529adf898c74"),
    *(
        _later(method, size, sensor)
        for method in _METHODS
        for sensor in _SENSORS
        for size in ("vits16", "vitb16", "vitl16", "vith14")
    ),
    *SOFTCON,
)
