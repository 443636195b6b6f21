"""THOR 1.0: cards of the four sizes.

Source of names, statistics and sizes: FM4CS/thor_terratorch_ext, thor_vit.py (THOR_NORMALIZATION_PARAMS and the
default input parameters), snapshot 7e822dd. The commits and hashes of the published weights were not known when this
card was written, so `Weights.revision` is open.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from rs_embed.core.bands import Unit
from rs_embed.core.settings import LayersKnobs
from rs_embed.core.specs import InstrumentMode, SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights

S2 = "COPERNICUS/S2_SR_HARMONIZED"
S2_BANDS_10 = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
S2_BANDS_12 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")

ThorKey = Literal["thor_v1_tiny", "thor_v1_small", "thor_v1_base", "thor_v1_large"]
Normalize = Literal["thor_stats", "unit_scale", "none"]
GroupMerge = Literal["mean", "sum", "concat"]


class ThorKnobs(LayersKnobs):
    """Knobs of the THOR family."""

    prefix = "RS_EMBED_THOR_"
    NONE_IS: ClassVar[Mapping[str, str]] = {"group_merge": "none"}  # refused: groups differ in size
    HINTS: ClassVar[Mapping[str, str]] = {
        **LayersKnobs.HINTS,
        "merge_method": 'set group_merge to "mean", "sum" or "concat"',
        **dict.fromkeys(
            ("ground_cover", "ground_covers", "ground_cover_m"),
            "set img=288, and scale_m in sensor=SensorSpec(...): the ground cover is img x scale_m",
        ),
        **dict.fromkeys(("patch_sizes", "flexivit_patch_size_seqs"), "set patch_size=8, the side of a patch in pixels"),
        "input_params": "set img and patch_size, and scale_m in sensor=SensorSpec(...)",
        "select_patch_strategy": "leave it out: one patch_size for all band groups",
    }

    model_key: Annotated[ThorKey | None, Field(description="backbone to run instead of the card's own")] = None
    img: Annotated[int, Field(ge=16, le=2304, description="side of the network input, px (Sentinel-3: 96)")] = 288
    normalize: Annotated[Normalize, Field(description="thor_stats, unit_scale or none")] = "thor_stats"
    group_merge: Annotated[GroupMerge, Field(description="how to merge band groups: mean, sum, concat")] = "mean"
    patch_size: Annotated[int, Field(ge=2, le=64, description="side of a patch, pixels of a band (Sentinel-3: 8)")] = 16
    final_norm: Annotated[bool, Field(description="1: apply the encoder's last LayerNorm to the tokens")] = False

    @field_validator("normalize", mode="before")
    @classmethod
    def _raw_means_none(cls, value: object) -> object:
        """Accept `raw`, the name on the model page, for `none`."""
        return "none" if value == "raw" else value


_S2_STATS = {
    "B1": BandStats("S2:CoastAerosal", Unit.REFLECTANCE, 0.182569, 0.282463),
    "B2": BandStats("S2:Blue", Unit.REFLECTANCE, 0.176620, 0.264520),
    "B3": BandStats("S2:Green", Unit.REFLECTANCE, 0.195923, 0.252949),
    "B4": BandStats("S2:Red", Unit.REFLECTANCE, 0.213948, 0.259180),
    "B5": BandStats("S2:RE1", Unit.REFLECTANCE, 0.263378, 0.272771),
    "B6": BandStats("S2:RE2", Unit.REFLECTANCE, 0.300818, 0.248175),
    "B7": BandStats("S2:RE3", Unit.REFLECTANCE, 0.313144, 0.235432),
    "B8": BandStats("S2:NIR", Unit.REFLECTANCE, 0.308133, 0.226434),
    "B8A": BandStats("S2:RE4", Unit.REFLECTANCE, 0.320993, 0.223274),
    "B9": BandStats("S2:WaterVapor", Unit.REFLECTANCE, 0.322589, 0.235857),
    "B11": BandStats("S2:SWIR1", Unit.REFLECTANCE, 0.221550, 0.171606),
    "B12": BandStats("S2:SWIR2", Unit.REFLECTANCE, 0.175772, 0.156223),
}

# Sentinel-1 in dB: mode -> pixel size -> polarisation -> (mean, std).
_S1_STATS: dict[InstrumentMode, dict[int, dict[str, tuple[float, float]]]] = {
    "IW": {
        10: {
            "VV": (-12.9850, 5.0062),
            "VH": (-20.6958, 5.8688),
            "HH": (-13.9485, 6.8015),
            "HV": (-22.4575, 6.9106),
        },
        60: {
            "VV": (-13.0095, 5.2439),
            "VH": (-20.6672, 5.9634),
            "HH": (-13.0126, 7.1580),
            "HV": (-21.2863, 7.6221),
        },
    },
    "EW": {
        10: {
            "VV": (-13.9046, 6.3085),
            "VH": (-23.5719, 6.8895),
            "HH": (-12.7691, 6.6416),
            "HV": (-22.6922, 7.2472),
        },
        60: {
            "VV": (-13.1240, 5.5013),
            "VH": (-23.2024, 7.0584),
            "HH": (-12.1138, 6.5830),
            "HV": (-21.7450, 7.4658),
        },
    },
}

_OLCI_STATS = (
    (0.418360, 0.271155), (0.407687, 0.276213), (0.384837, 0.286278), (0.356827, 0.291605),
    (0.342093, 0.284960), (0.313561, 0.259517), (0.305947, 0.260534), (0.326632, 0.286289),
    (0.329984, 0.290304), (0.331824, 0.291953), (0.348113, 0.281539), (0.394400, 0.265238),
    (0.101062, 0.066239), (0.188930, 0.122599), (0.352127, 0.233035), (0.394914, 0.258835),
    (0.402817, 0.251323), (0.398475, 0.244922), (0.312429, 0.213306), (0.166702, 0.156878),
    (0.380989, 0.209298),
)  # fmt: skip
_SLSTR_STATS = (
    ("S1_reflectance_an", 0.338953, 0.280222),
    ("S2_reflectance_an", 0.339034, 0.294075),
    ("S3_reflectance_an", 0.405393, 0.262460),
    ("S4_reflectance_an", 0.010942, 0.030842),
    ("S5_reflectance_an", 0.184803, 0.140885),
    ("S6_reflectance_an", 0.137453, 0.109526),
    ("S7_BT_in", 286.190167, 21.070093),
    ("S8_BT_in", 278.423815, 22.109991),
    ("S9_BT_in", 277.117165, 21.526558),
)


def _s2(name: str, bands: tuple[str, ...]) -> Modality:
    return Modality(
        name,
        sensor=SensorSpec(S2, bands),
        stats=_S2_STATS,
        image_px=288,
        patch_px=16,
        clip=(0.0, 10_000.0),
    )


def _s1(name: str, mode: InstrumentMode, gsd_m: int) -> Modality:
    table = _S1_STATS[mode][gsd_m]
    return Modality(
        name,
        sensor=SensorSpec("COPERNICUS/S1_GRD", ("VV", "VH"), gsd_m, fill_value="mean", instrument_mode=mode),
        stats={pol: BandStats(f"S1:{mode}-{pol}", Unit.DB, mean, std) for pol, (mean, std) in table.items()},
        image_px=288 if gsd_m == 10 else 96,
        patch_px=16,
        native_gsd_m={} if gsd_m == 10 else {f"S1:{mode}-{pol}": gsd_m for pol in table},
    )


def _s3(name: str, collection: str, stats: dict[str, BandStats]) -> Modality:
    # 240 m pixels: the authors resampled OLCI's 300 m to 240 m, and SLSTR's 500 m and 1 km to 480 and 960 m.
    sensor = SensorSpec(collection, tuple(stats), scale_m=240, fill_value="mean")
    return Modality(name, sensor, stats=stats, image_px=96, patch_px=8)


MODALITIES = (
    _s2("s2", S2_BANDS_10),
    _s2("s2_12", S2_BANDS_12),
    _s1("s1", "IW", 10),
    _s1("s1_60", "IW", 60),
    _s1("s1_ew", "EW", 10),
    _s1("s1_ew_60", "EW", 60),
    _s3(
        "s3_olci",
        "COPERNICUS/S3/OLCI",
        {
            f"Oa{i:02d}_reflectance": BandStats(f"S3:Oa{i:02d}_reflectance", Unit.REFLECTANCE, mean, std)
            for i, (mean, std) in enumerate(_OLCI_STATS, start=1)
        },
    ),
    _s3(
        "s3_slstr",
        "COPERNICUS/S3/SLSTR",
        {
            band: BandStats(f"S3:{band}", Unit.KELVIN if "BT" in band else Unit.REFLECTANCE, mean, std)
            for band, mean, std in _SLSTR_STATS
        },
    ),
)


def _card(size: str, parameters_m: float, **arch: int) -> ModelCard:
    return ModelCard(
        id=f"thor_1_0_{size}",
        revision=2,
        kind="foundation model",
        title=f"THOR 1.0 {size.capitalize()}",
        adapter="rs_embed.embedders.onthefly_thor:ThorEmbedder",
        knobs=ThorKnobs,
        arch=arch,
        dim=arch["dim"],
        parameters_m=parameters_m,
        weights=Weights(f"FM4CS/THOR-1.0-{size}", f"thor_v1_vit_{size}.pt", licence="Apache-2.0"),
        modalities=MODALITIES,
        input_prep="resize",
        licence="Apache-2.0",
        citation="arXiv:2601.16011",
        model_key=f"thor_v1_{size}",
        aliases=("thor",) if size == "base" else (),
    )


CARDS = (
    _card("tiny", 7.61, dim=192, depth=12, heads=3, band_dim=32),
    _card("small", 25.8, dim=384, depth=12, heads=6, band_dim=64),
    _card("base", 94.1, dim=768, depth=12, heads=12, band_dim=128),
    _card("large", 314, dim=1024, depth=24, heads=16, band_dim=256),
)
