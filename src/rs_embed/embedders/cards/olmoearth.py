"""OlmoEarth: three versions in up to four sizes.

Source of sizes, bands, statistics and rules: olmoearth-pretrain-minimal 0.1.5 (olmoearth_pretrain_v1.py,
data/normalize.py, data/missing_bands.py, data/norm_configs/computed.json, README.md); of the commits of version 1.0:
TorchGeo 0.10, models/olmoearth.py. The weights were not available when these cards were written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rs_embed.core.bands import bands_of
from rs_embed.core.settings import SeriesKnobs
from rs_embed.core.specs import Composite, Sampling, SensorSpec
from rs_embed.embedders.card import BandStats, Modality, ModelCard, Weights

EXTRA, PACKAGE = "olmoearth", "olmoearth-pretrain-minimal"
MOST_FRAMES = 12
MOST_PX = 128
"""Largest side of a window that the authors recommend, pixels."""
Version = Literal["v1", "v1.1", "v1.2"]
_Variant = Literal[
    "OlmoEarth-v1-Nano", "OlmoEarth-v1-Tiny", "OlmoEarth-v1-Base", "OlmoEarth-v1-Large",
    "OlmoEarth-v1_1-Nano", "OlmoEarth-v1_1-Tiny", "OlmoEarth-v1_1-Base",
    "OlmoEarth-v1_2-Nano", "OlmoEarth-v1_2-Tiny", "OlmoEarth-v1_2-Small", "OlmoEarth-v1_2-Base",
]  # fmt: skip


class OlmoEarthKnobs(SeriesKnobs):
    """Knobs of OlmoEarth."""

    prefix = "RS_EMBED_OLMOEARTH_"
    HINTS: ClassVar[Mapping[str, str]] = {
        **SeriesKnobs.HINTS,
        "input_res": "set the pixel size of the sensor: sensor=SensorSpec(collection, bands, scale_m=...)",
        "timestamps": "pass temporal=TemporalSpec.range(...), or dates=[...] with input_chw",
        "window": "set window_patches, the side of a window in patches",
    }

    model_key: Annotated[_Variant | None, Field(description="version and size to run")] = None
    frames: Annotated[int, Field(ge=1, le=MOST_FRAMES, description="most dates to use from the days requested")] = (
        MOST_FRAMES
    )
    temporal_sampling: Annotated[
        Sampling,
        Field(description="month: a frame per calendar month; composite: one per sub-window; scenes: the clearest"),
    ] = "month"
    patch_size: Annotated[int, Field(ge=1, le=8, description="side of a patch, px")] = 4
    window_patches: Annotated[
        int, Field(ge=1, le=64, description="side of a window, patches; a window has at most 128 px")
    ] = 16
    normalize: Annotated[
        Literal["pretraining", "none"], Field(description="pretraining, or none if pixels are already standardised")
    ] = "pretraining"


Numbers = Mapping[str, tuple[float, float]]
_S2: Numbers = {
    "B2": (1188.941257, 1859.192397), "B3": (1407.773911, 1727.738741), "B4": (1513.057388, 1740.775730),
    "B8": (2755.481305, 1612.256570), "B5": (1890.989304, 1754.732039), "B6": (2483.781232, 1622.117272),
    "B7": (2722.728249, 1621.822617), "B8A": (2885.570263, 1611.358752), "B11": (2562.852608, 1441.547183),
    "B12": (1914.138325, 1328.891438), "B1": (1115.849439, 1955.699179), "B9": (3269.812554, 2651.088425),
}  # fmt: skip
_S1: Numbers = {
    "VV": (-11.648991, 10.840350), "VH": (-17.745436, 10.216275),
}  # fmt: skip
_LANDSAT: Numbers = {
    "B8": (10132.090998, 7788.728248), "B1": (11000.959519, 7857.920579), "B2": (10493.416293, 7872.392135),
    "B3": (10146.318479, 7676.277460), "B4": (10236.446029, 8038.218122), "B5": (14427.021493, 9302.431606),
    "B6": (12164.081454, 7442.390533), "B7": (9712.032951, 6037.712185), "B9": (4585.469567, 2549.745356),
    "B10": (21347.893569, 10957.281501), "B11": (19686.232059, 9911.421224),
}  # fmt: skip
"""Mean and standard deviation of each band, in the order of the network's channels."""


def _modality(name: str, feeds: str, collection: str, numbers: Numbers, composite: Composite = "median") -> Modality:
    FEEDS[name] = feeds
    stats = {
        band.name: BandStats(band.name, band.unit, *numbers[band.name]) for band in bands_of(collection, tuple(numbers))
    }
    return Modality(
        name,
        SensorSpec(collection, tuple(numbers), fill_value="nan", composite=composite),
        stats,
        image_px=64,
        patch_px=4,
        is_series=True,
        keeps_empty=True,
        optional=name != "s2",
    )


FEEDS: dict[str, str] = {}
"""Modality -> the authors' name for this input."""
MODALITIES = (
    _modality("s2", "sentinel2_l2a", "COPERNICUS/S2_SR_HARMONIZED", _S2),
    _modality("s1", "sentinel1", "COPERNICUS/S1_GRD", _S1),
    _modality("l8", "landsat", "LANDSAT/LC08/C02/T1", _LANDSAT),
    _modality("l9", "landsat", "LANDSAT/LC09/C02/T1", _LANDSAT),
)
_S2_SETS = (("B2", "B3", "B4", "B8"), ("B5", "B6", "B7", "B8A", "B11", "B12"), ("B1", "B9"))
_LANDSAT_SETS = (("B8",), ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9", "B10", "B11"))
_WHOLE = {"sentinel2_l2a": (tuple(_S2),), "sentinel1": (tuple(_S1),), "landsat": (tuple(_LANDSAT),)}
BAND_SETS: Mapping[Version, Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "v1": {**_WHOLE, "sentinel2_l2a": _S2_SETS, "landsat": _LANDSAT_SETS},
    "v1.1": _WHOLE,
    "v1.2": _WHOLE,
}
"""Bands that share a token, by version and input."""


def _modalities(version: Version) -> tuple[Modality, ...]:
    return tuple(replace(one, token_sets=len(BAND_SETS[version][FEEDS[one.name]])) for one in MODALITIES)


WAVELENGTHS_NM: Mapping[str, tuple[Mapping[str, float], ...]] = {
    "sentinel2_l2a": (
        {
            "B1": 443, "B2": 490, "B3": 560, "B4": 665, "B5": 705, "B6": 740, "B7": 783, "B8": 842, "B8A": 865,
            "B9": 945, "B11": 1610, "B12": 2190,
        },
    ),
    "landsat": (
        {"B1": 443, "B2": 482, "B3": 561, "B8": 590, "B4": 655, "B5": 865, "B9": 1373, "B6": 1609, "B7": 2201},
        {"B10": 10900, "B11": 12000},
    ),
}  # fmt: skip
"""Groups of bands that may stand in for each other in version 1.0, with their wavelengths."""


@dataclass(frozen=True, repr=False)
class OlmoEarthCard(ModelCard):
    """A model of the OlmoEarth package."""

    size: str = field(kw_only=True)
    """The package's name of the size."""
    version: Version = field(kw_only=True)
    """The package's name of the version."""


_TERMS = (
    "olmoearth-artifact: OlmoEarth Artifact License of Ai2. Not for military, defence, intelligence, human "
    "surveillance or policing, nor for the extraction of raw materials; derivatives pass on both bans"
)
_SHAPES: Mapping[str, Mapping[str, int]] = {
    "nano": {"dim": 128, "depth": 4, "heads": 8},
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
    "large": {"dim": 1024, "depth": 24, "heads": 16},
}
_COMMITS = {
    "OlmoEarth-v1-Nano": "c48459cd6264704b9d1761a2904c46eb98755fda",
    "OlmoEarth-v1-Tiny": "edd9418badc5a9f769ba1aa622cb6d0af4586f8b",
    "OlmoEarth-v1-Base": "93589e2dee5b5c95a660d1e9365bc017ea7f35d6",
    "OlmoEarth-v1-Large": "8cf072c70d4a1c403531ca9a9653bb1f8f60eb83",
}
_CITATIONS: Mapping[Version, str] = {
    "v1": "arXiv:2511.13655",
    "v1.1": "arXiv:2605.20804",
    "v1.2": "OlmoEarth v1.2 tech report, Ai2",
}


def _card(version: Version, size: str, parameters_m: float) -> ModelCard:
    number = version.removeprefix("v") if version != "v1" else "1.0"
    name = f"OlmoEarth-{version.replace('.', '_')}-{size.capitalize()}"
    return OlmoEarthCard(
        id=f"olmoearth_{number.replace('.', '_')}_{size}",
        revision=1,
        kind="foundation model",
        title=f"OlmoEarth {number} {size.capitalize()}",
        adapter="rs_embed.embedders.onthefly_olmoearth:OlmoEarthEmbedder",
        knobs=OlmoEarthKnobs,
        arch=_SHAPES[size],
        dim=_SHAPES[size]["dim"],
        parameters_m=parameters_m,
        weights=Weights(f"allenai/{name}", "weights.pth", licence=_TERMS, revision=_COMMITS.get(name)),
        modalities=_modalities(version),
        input_prep="tile",
        licence=_TERMS,
        citation=_CITATIONS[version],
        model_key=name,
        extra=EXTRA,
        aliases=("olmoearth",) if (version, size) == ("v1.2", "base") else (),
        size=size,
        version=version,
    )


CARDS = (
    _card("v1", "nano", 1.36),
    _card("v1", "tiny", 6.20),
    _card("v1", "base", 88.95),
    _card("v1", "large", 308),
    _card("v1.1", "nano", 1.70),
    _card("v1.1", "tiny", 12.46),
    _card("v1.1", "base", 113.97),
    _card("v1.2", "nano", 1.70),
    _card("v1.2", "tiny", 12.46),
    _card("v1.2", "small", 35.62),
    _card("v1.2", "base", 113.99),
)
