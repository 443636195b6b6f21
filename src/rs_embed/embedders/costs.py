"""What a model costs: measured speeds, estimates for the rest, and quality as far as it was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from rs_embed.embedders.card import ModelCard

INPUTS_PER_S: Mapping[str, tuple[float, int]] = {
    "thor_1_0_tiny": (24.70, 288),
    "thor_1_0_small": (8.54, 288),
    "thor_1_0_base": (2.32, 288),
    "thor_1_0_large": (0.75, 288),
    "terramind_1_0_tiny": (57.11, 224),
    "terramind_1_0_small": (17.83, 224),
    "terramind_1_0_base": (5.37, 224),
    "terramind_1_0_large": (1.61, 224),
    "anysat_1_0_base": (1.48, 32),
    "mosaiks_rcf": (5.70, 256),
}
"""Model -> network inputs per second, and the side of an input in pixels of 10 m: its default input, one date (AnySat:
eight), fp32, one thread of an AMD EPYC. Source: benchmarks/RESULTS.md, "Cost of a region"."""
_FLOPS = 180e9
"""Of an estimate: three quarters of the 240 GFLOP/s that the products of THOR reach on that thread, as in RESULTS.md.
TerraMind base is then estimated at 0.037 s per km², as measured."""
_QUALITY = "docs/quality.md"
QUALITY: Mapping[str, str] = {
    "galileo_1_0_nano": f"similar patches 0.47 to 0.54, its random copy 0.30, chance 0.21 ({_QUALITY})",
    "presto_1_0": f"similar patches 0.45, its random copy 0.31, chance 0.21 ({_QUALITY})",
    "mosaiks_rcf": f"land cover by cell 0.61 in Chile, band statistics 0.55 ({_QUALITY})",
}
"""Model -> what was measured of its trained weights. Others were not measured."""


@dataclass(frozen=True)
class Speed:
    """The time that a network takes, on one thread of a CPU and in fp32; fetching is not included."""

    seconds_per_km2: float
    measured: bool
    """Whether it was measured for this model; otherwise it is estimated from the numbers of parameters and tokens."""


def speed_of(card: ModelCard, tokens_per_km2: float) -> Speed:
    """Return the speed of a model.

    Args:
        card: The model.
        tokens_per_km2: Number of tokens that it makes of a square kilometre, for the estimate.
    """
    if card.id in INPUTS_PER_S:
        per_s, side_px = INPUTS_PER_S[card.id]
        return Speed(1 / (per_s * (side_px / 100) ** 2), measured=True)
    return Speed(2 * card.parameters_m * 1e6 * tokens_per_km2 / _FLOPS, measured=False)
