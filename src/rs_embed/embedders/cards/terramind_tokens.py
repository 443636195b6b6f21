"""The modalities that TerraMind 1.0 can generate: six of them, as tokens, with tokenizers to and from pixels.

Source of names, sizes, statistics and repositories: terratorch 1.2.11, models/backbones/terramind
(tokenizer/tokenizer_register.py, model/modality_info.py and model/terramind_register.py, v1). The commits and hashes
of the published files could not be looked up when this was written, so `Weights.revision` is open.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from rs_embed.core.bands import Band, Unit, bands_of
from rs_embed.core.specs import SensorSpec
from rs_embed.embedders.card import BandStats, Modality, Weights
from rs_embed.embedders.cards.terramind import L2A, V1, TokenModality

PATCH_PX = 16
"""Side of the square under one token, pixels."""

MapName = Literal["LULC", "NDVI"]
MAP_NAMES: tuple[MapName, ...] = get_args(MapName)
"""Modalities that the model takes only as tokens, not as pixels."""

LULC_CLASSES = (
    *("no data", "water", "trees", "flooded vegetation", "crops", "built area"),
    *("bare ground", "snow or ice", "clouds", "rangeland"),
)
"""Class names by code. The package states only that there are ten, from Esri's land cover. Their order follows users of
the data set TerraMesh, and was not confirmed in a file of the authors."""

DECODER_DEPTHS: Mapping[str, int] = {
    "terramind_v1_tiny": 4,
    "terramind_v1_small": 6,
    "terramind_v1_base": 12,
    "terramind_v1_large": 24,
}
"""Authors' name of a model that can generate -> number of blocks in its decoder."""


@dataclass(frozen=True)
class TokenFacts:
    """The facts of one modality as tokens."""

    name: TokenModality
    key: str
    """Name of the modality in the checkpoint."""
    tokenizer: str
    """Name of the tokenizer in TerraTorch's registry."""
    weights: Weights
    bands: tuple[Band, ...]
    """Bands, with the unit of the generated pixels."""
    mean: tuple[float, ...]
    """Mean of each band, in its unit."""
    std: tuple[float, ...]
    """Standard deviation of each band, in its unit."""
    vocabulary: int = 15360
    """Number of token ids."""
    lattice_px: int = 32
    """Sides of an image must be multiples of this: the diffusion decoder halves patches of 4 px three times."""

    @property
    def is_classes(self) -> bool:
        """Whether pixels are class codes, which have neither diffusion nor statistics."""
        return self.bands[0].unit == Unit.CLASS

    @property
    def encoder_name(self) -> str:
        """The name of these tokens as an input of the encoder."""
        return self.name if self.name in MAP_NAMES else f"tok_{self.name}"


def _facts(
    name: TokenModality, bands: tuple[Band, ...], stats: tuple[tuple[float, float], ...], **sizes: int
) -> TokenFacts:
    return TokenFacts(
        name,
        key=f"tok_{name.lower().replace('s2', 'sen2').replace('s1', 'sen1')}@224",
        tokenizer=f"terramind_v1_tokenizer_{name.lower()}",
        weights=Weights(
            f"ibm-esa-geospatial/TerraMind-1.0-Tokenizer-{name}", f"TerraMind_Tokenizer_{name}.pt", licence="Apache-2.0"
        ),
        bands=bands,
        mean=tuple(mean for mean, _ in stats),
        std=tuple(std for _, std in stats),
        **sizes,
    )


def _of_card(name: Literal["S2L2A", "S1GRD", "S1RTC", "DEM"], collection: str, bands: tuple[str, ...]) -> TokenFacts:
    """Return the facts of a modality of the card, whose pixels and tokens share statistics."""
    modality = next(modality for modality in V1 if modality.name == name)
    stats = tuple((modality.stats[band].mean, modality.stats[band].std) for band in bands)
    return _facts(name, bands_of(collection, bands), stats)


TOKENS: Mapping[str, TokenFacts] = {
    facts.name: facts
    for facts in (
        _of_card("S2L2A", "COPERNICUS/S2_SR_HARMONIZED", L2A),
        _of_card("S1GRD", "COPERNICUS/S1_GRD", ("VV", "VH")),
        _of_card("S1RTC", "COPERNICUS/S1_RTC", ("VV", "VH")),
        _of_card("DEM", "COPERNICUS/DEM/GLO30", ("DEM",)),
        _facts("LULC", bands_of("TERRAMESH/LULC", ["LULC"]), ((0, 1),), vocabulary=4375, lattice_px=PATCH_PX),
        _facts("NDVI", bands_of("TERRAMESH/NDVI", ["NDVI"]), ((0.327, 0.322),)),
    )
}
"""Facts by the public name of the modality."""


def _map(name: MapName) -> Modality:
    facts = TOKENS[name]
    sensor = SensorSpec(f"TERRAMESH/{name}", (name,), composite="mosaic", fill_value="mean")
    stats: dict[str, BandStats] = {name: BandStats(name, facts.bands[0].unit, facts.mean[0], facts.std[0])}
    return Modality(name, sensor, stats, image_px=224, patch_px=PATCH_PX)


MAPS = tuple(_map(name) for name in MAP_NAMES)
"""Inputs of generation in addition to the card's modalities, read by their tokenizers. For land cover, the "mean" that
replaces nodata is 0, the code of no data."""
