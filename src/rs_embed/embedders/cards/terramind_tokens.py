"""The modalities that TerraMind 1.0 can generate: six of them, as tokens, with tokenizers to and from pixels.

Source of names, sizes, statistics and repositories: terratorch 1.2.11, models/backbones/terramind
(tokenizer/tokenizer_register.py, model/modality_info.py and model/terramind_register.py, v1). The commits and hashes
of the published files could not be looked up when this was written, so `Weights.revision` is open.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from rs_embed.core.bands import Band, Unit, bands_of
from rs_embed.embedders.card import Weights
from rs_embed.embedders.cards.terramind import MAP_NAMES, V1, TokenModality
from rs_embed.errors import InputError

PATCH_PX = 16
"""Side of the square under one token, pixels."""

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


def _facts(name: TokenModality) -> TokenFacts:
    """Return the facts of a modality of the card, whose pixels and tokens share statistics."""
    modality = next(modality for modality in V1 if modality.name == name)
    bands = bands_of(modality.sensor.collection, modality.sensor.bands)
    sizes = {"vocabulary": 4375, "lattice_px": PATCH_PX} if name == "LULC" else {}
    return TokenFacts(
        name,
        key=f"tok_{name.lower().replace('s2', 'sen2').replace('s1', 'sen1')}@224",
        tokenizer=f"terramind_v1_tokenizer_{name.lower()}",
        weights=Weights(
            f"ibm-esa-geospatial/TerraMind-1.0-Tokenizer-{name}", f"TerraMind_Tokenizer_{name}.pt", licence="Apache-2.0"
        ),
        bands=bands,
        mean=tuple(modality.stats[band.name].mean for band in bands),
        std=tuple(modality.stats[band.name].std for band in bands),
        **sizes,
    )


TOKENS: Mapping[str, TokenFacts] = {name: _facts(name) for name in get_args(TokenModality)}
"""Facts by the public name of the modality."""


def require_classes(values: NDArray[np.float32]) -> None:
    """Require codes of land cover classes, or NaN for nodata.

    Raises:
        InputError: Other values are present.
    """
    valid = values[np.isfinite(values)]
    if ((valid != np.rint(valid)) | (valid < 0) | (valid >= len(LULC_CLASSES))).any():
        raise InputError(
            f"Expected class codes 0 to {len(LULC_CLASSES) - 1} for LULC, got {valid.min():g} to {valid.max():g}.",
            codes=", ".join(f"{code} {name}" for code, name in enumerate(LULC_CLASSES)),
            fix="convert your classes to these codes",
        )
