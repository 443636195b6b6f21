"""TerraMind 1.0 and 0.1: cards of every size.

Source of names and statistics: terrastackai/terratorch 85467a9, terramind_register.py (v1 and v01 pre-training
statistics). The commits and hashes of the published weights were not known when this card was written, so
`Weights.revision` is open.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from rs_embed.core.bands import Unit
from rs_embed.core.settings import LayersKnobs
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights

TerraMindKey = Literal[
    "terramind_v1_tiny", "terramind_v1_small", "terramind_v1_base", "terramind_v1_large", "terramind_v01_base"
]
Normalize = Literal["terramind_stats", "none"]
MergeMethod = Literal["mean", "max", "concat", "dict", "none"]
TokenModality = Literal["S2L2A", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI"]
"""The modalities that TerraMind 1.0 can generate."""
MapName = Literal["LULC", "NDVI"]
MAP_NAMES: tuple[MapName, ...] = get_args(MapName)
"""Modalities that the network takes only as token ids: their maps are read by a tokenizer."""


def _names(value: object) -> object:
    """Split names joined by "," or "+"; leave a list as it is."""
    return value.replace("+", ",").split(",") if isinstance(value, str) else value


def _each_name_once(names: tuple[TokenModality, ...] | None) -> tuple[TokenModality, ...] | None:
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ValueError("expected one or more modalities, each once")
    return names


Imagined = Annotated[tuple[TokenModality, ...] | None, BeforeValidator(_names), AfterValidator(_each_name_once)]


class TerraMindKnobs(LayersKnobs):
    """Knobs of the TerraMind family."""

    prefix = "RS_EMBED_TERRAMIND_"
    LATER: ClassVar[frozenset[str]] = frozenset({"lulc_tokenizer", "ndvi_tokenizer"})
    NONE_IS: ClassVar[Mapping[str, str]] = {"merge_method": "none"}
    HINTS: ClassVar[Mapping[str, str]] = {
        **LayersKnobs.HINTS,
        "merge": 'set merge_method to "mean", "max", "concat", "dict" or "none"',
        "output_modalities": "call rs_embed.generate to generate missing modalities",
        "tim": 'set tim_modalities="LULC" to think in land cover',
    }

    model_key: Annotated[TerraMindKey | None, Field(description="backbone to run instead of the card's own")] = None
    img: Annotated[int, Field(ge=16, le=2304, description="side of the network input or window, px")] = 224
    normalize: Annotated[Normalize, Field(description="terramind_stats or none")] = "terramind_stats"
    merge_method: Annotated[
        MergeMethod, Field(description="how to merge modalities: mean, max, concat, dict (keep them apart), none")
    ] = "mean"
    coords_tokenizer: Annotated[
        Path | None, Field(description="tokenizer file for Coordinates; unset: next to the checkpoint, else the hub's")
    ] = None
    lulc_tokenizer: Annotated[
        Path | None, Field(description="tokenizer file of the modality LULC; unset: the hub's")
    ] = None
    ndvi_tokenizer: Annotated[
        Path | None, Field(description="tokenizer file of the modality NDVI; unset: the hub's")
    ] = None
    tim_modalities: Annotated[
        Imagined,
        Field(description="generated from the input and added to it, such as LULC,NDVI; needs the extra terratorch"),
    ] = None
    tim_seed: Annotated[int, Field(ge=0, le=2**31, description="seed of the generated modalities")] = 0
    tim_decoding_steps: Annotated[
        int, Field(ge=1, le=196, description="number of steps in which the tokens of a generated modality are sampled")
    ] = 1
    tim_temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature; 0: likeliest")] = 1.0
    tim_top_p: Annotated[
        float, Field(ge=0, le=1, description="sample from the most likely tokens with this total probability; 0: all")
    ] = 0.8
    tim_top_k: Annotated[int, Field(ge=0, le=15360, description="sample from this many most likely tokens; 0: all")] = 0


PUBLIC_NAMES = {
    "B1": "COASTAL_AEROSOL", "B2": "BLUE", "B3": "GREEN", "B4": "RED", "B5": "RED_EDGE_1", "B6": "RED_EDGE_2",
    "B7": "RED_EDGE_3", "B8": "NIR_BROAD", "B8A": "NIR_NARROW", "B9": "WATER_VAPOR", "B10": "CIRRUS",
    "B11": "SWIR_1", "B12": "SWIR_2",
}  # fmt: skip
"""Sentinel-2 band -> the model's name for it."""
L2A = tuple(band for band in PUBLIC_NAMES if band != "B10")
L1C = tuple(PUBLIC_NAMES)

_L2A_V1 = (
    (1390.458, 2106.761), (1503.317, 2141.107), (1718.197, 2038.973), (1853.91, 2134.138), (2199.1, 2085.321),
    (2779.975, 1889.926), (2987.011, 1820.257), (3083.234, 1871.918), (3132.22, 1753.829), (3162.988, 1797.379),
    (2424.884, 1434.261), (1857.648, 1334.311),
)  # fmt: skip
_L2A_V01 = (
    (794.311, 1164.883), (925.161, 1205.586), (1183.128, 1223.713), (1338.041, 1399.638), (1667.254, 1403.298),
    (2233.633, 1378.513), (2460.96, 1434.924), (2555.569, 1491.141), (2619.542, 1454.089), (2703.298, 1660.395),
    (2406.497, 1473.248), (1841.645, 1365.080),
)  # fmt: skip
_L1C_V1 = (
    (2357.089, 1624.683), (2137.385, 1675.806), (2018.788, 1557.708), (2082.986, 1833.702), (2295.651, 1823.738),
    (2854.537, 1733.977), (3122.849, 1732.131), (3040.56, 1679.732), (3306.481, 1727.26), (1473.847, 1024.687),
    (506.07, 442.165), (2472.825, 1331.411), (1838.929, 1160.419),
)  # fmt: skip
_RGB_V1 = {"B4": ("RED", 87.271, 58.767), "B3": ("GREEN", 80.931, 47.663), "B2": ("BLUE", 66.667, 42.631)}
RGB_DN = (470.0, 2560.0)
"""DN that become 0 and 255. The authors' conversion to S2RGB is not published; this one is fitted on the two TerraMesh
example scenes available as both S2RGB and S2L2A, with a residual of 2.5 of 255 (standard deviation). The authors' curve
is flatter above 2,300 DN."""


def _modality(
    name: str, collection: str, unit: Unit, bands: Sequence[str], stats: Sequence[tuple[float, float]]
) -> Modality:
    return Modality(
        name,
        sensor=SensorSpec(collection, tuple(bands), fill_value="mean"),
        stats={
            band: BandStats(PUBLIC_NAMES.get(band, band), unit, mean, std)
            for band, (mean, std) in zip(bands, stats, strict=True)
        },
        image_px=224,
        patch_px=16,
    )


def _rgb() -> Modality:
    """Return the RGB modality: the model's range 0..255, expressed in DN by a linear stretch.

    Pixels given as bytes keep their values, because the conversion to DN and the standardisation use the same stretch.
    """
    low, high = RGB_DN
    dn = (high - low) / 255
    stats: Mapping[str, BandStats] = {
        band: BandStats(name, Unit.DN, low + mean * dn, std * dn) for band, (name, mean, std) in _RGB_V1.items()
    }
    sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", tuple(stats), fill_value="mean")
    return Modality("RGB", sensor, stats, image_px=224, patch_px=16, clip=RGB_DN, byte_range=RGB_DN)


def _map(name: MapName, unit: Unit, mean: float, std: float) -> Modality:
    """Return a modality that the encoder takes as token ids: the statistics are those of its tokenizer's input."""
    sensor = SensorSpec(f"TERRAMESH/{name}", (name,), composite="mosaic", fill_value="mean")
    stats: dict[str, BandStats] = {name: BandStats(name, unit, mean, std)}
    return Modality(name, sensor, stats, image_px=224, patch_px=16)


_S2 = "COPERNICUS/S2_SR_HARMONIZED"
V1 = (
    _modality("S2L2A", _S2, Unit.DN, L2A, _L2A_V1),
    _modality("S2L1C", "COPERNICUS/S2_HARMONIZED", Unit.DN, L1C, _L1C_V1),
    _rgb(),
    _modality("S1GRD", "COPERNICUS/S1_GRD", Unit.DB, ("VV", "VH"), ((-12.599, 5.195), (-20.293, 5.890))),
    _modality("S1RTC", "COPERNICUS/S1_RTC", Unit.DB, ("VV", "VH"), ((-10.93, 4.391), (-17.329, 4.459))),
    _modality("DEM", "COPERNICUS/DEM/GLO30", Unit.METRE, ("DEM",), ((670.665, 951.272),)),
    _map("LULC", Unit.CLASS, 0, 1),
    _map("NDVI", Unit.INDEX, 0.327, 0.322),
)
"""For land cover, the "mean" that replaces nodata is 0, the code of no data."""
V01 = (_modality("S2L2A", _S2, Unit.DN, L2A, _L2A_V01),)
COORDS_TOKENIZER = Weights("ibm-esa-geospatial/TerraMind-1.0-Tokenizer-Coords", "config.json", licence="Apache-2.0")
"""Source: terratorch 1.2.11, tokenizer_register.py. The file was not available when this card was written."""


def _card(size: str, parameters_m: float, **arch: int) -> ModelCard:
    return ModelCard(
        id=f"terramind_1_0_{size}",
        revision=2,
        kind="foundation model",
        title=f"TerraMind 1.0 {size.capitalize()}",
        adapter=_ADAPTER,
        knobs=TerraMindKnobs,
        arch=arch,
        dim=arch["dim"],
        parameters_m=parameters_m,
        weights=Weights(f"ibm-esa-geospatial/TerraMind-1.0-{size}", f"TerraMind_v1_{size}.pt", licence="Apache-2.0"),
        modalities=V1,
        input_prep="tile",
        licence="Apache-2.0",
        citation="arXiv:2504.11171",
        model_key=f"terramind_v1_{size}",
        place_modalities=("Coordinates",),
        pooled_is_grid_mean=True,
        aliases=("terramind",) if size == "base" else (),
    )


_ADAPTER = "rs_embed.embedders.onthefly_terramind:TerraMindEmbedder"
_V01_LICENCE = "see the model's page (access is granted there)"
_V01 = ModelCard(
    id="terramind_0_1_base",
    revision=2,
    kind="foundation model",
    title="TerraMind 0.1 Base",
    adapter=_ADAPTER,
    knobs=TerraMindKnobs,
    arch={"dim": 768, "depth": 12, "heads": 12, "gated": 1},
    dim=768,
    parameters_m=87.3,
    weights=Weights("FAST-EO/TerraMind-0.1-base", "TerraMind_v01_base.pt", licence=_V01_LICENCE),
    modalities=V01,
    input_prep="tile",
    licence=_V01_LICENCE,
    citation="arXiv:2504.11171",
    model_key="terramind_v01_base",
    pooled_is_grid_mean=True,
)

CARDS = (
    _card("tiny", 6.96, dim=192, depth=12, heads=3, gated=0),
    _card("small", 24.5, dim=384, depth=12, heads=6, gated=0),
    _card("base", 91.4, dim=768, depth=12, heads=12, gated=1),
    _card("large", 311, dim=1024, depth=24, heads=16, gated=1),
    _V01,
)
"""In `arch`, gated=1 is family A of the authors' code (gated MLP, no bias), and gated=0 is family B."""
