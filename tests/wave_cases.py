"""Shrunken networks of any bands, with weights and inputs that anybody can make again: by the names of the tensors."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rs_embed.encoders.clay import ClayEncoder
from rs_embed.encoders.copernicusfm import CopernicusEncoder
from rs_embed.encoders.dofa import DofaEncoder
from rs_embed.encoders.waves import Wave

GOLDEN = Path(__file__).parent / "data" / "waves"
CLAY = {"dim": 64, "depth": 2, "heads": 1}
DOFA = {"dim": 48, "depth": 2, "heads": 3, "image_px": 64}
COPERNICUS = {"dim": 48, "depth": 2, "heads": 3}
S2 = tuple(map(Wave, (0.493, 0.56, 0.665, 0.704, 0.74, 0.783, 0.842, 0.865, 1.61, 2.19)))
NAIP = tuple(map(Wave, (0.665, 0.56, 0.49)))
WIDE = (Wave(0.49, 0.065), Wave(0.56, 0.035), Wave(0.665, 0.03), Wave(0.842, 0.115), Wave(1.61, 0.09))
RADAR = (Wave(5e4, 1e6), Wave(5e4, 1e6))


def seeded(name: str, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers that depend on a name only."""
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32))


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Nothing at its default, so that a tensor in the wrong place shows."""
    return {
        name: (1.0 if name.endswith("weight") and len(shape) == 1 else 0.0) + 0.05 * seeded(name, tuple(shape))
        for name, shape in shapes.items()
    }


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@dataclass(frozen=True)
class Case:
    """One call of a network."""

    family: str
    waves: tuple[Wave, ...]
    side_px: int
    told: Mapping[str, object]
    """The rest of the call."""

    @property
    def image(self) -> Tensor:
        return seeded(f"{self.family} {len(self.waves)} {self.side_px}", (2, len(self.waves), *[self.side_px] * 2))


_ANGLES = {"time": seeded("time", (2, 4)), "place": seeded("place", (2, 4))}
_NOTHING = {"time": torch.zeros(2, 4), "place": torch.zeros(2, 4)}
_TOLD = {
    "lon_lat": torch.tensor([[12.94, 47.77], [-71.3, -12.2]]),
    "days": torch.tensor([19145.0, 18000.0]),
    "area_km2": torch.tensor([0.0256, 0.0064]),
}
CASES = {
    "clay_s2": Case("clay", S2, 32, {"pixel_m": 10.0} | _ANGLES),
    "clay_naip": Case("clay", NAIP, 24, {"pixel_m": 1.0} | _NOTHING),
    "dofa_s2": Case("dofa", S2[:9], 64, {}),
    "dofa_naip": Case("dofa", NAIP, 64, {}),
    "copernicusfm_told": Case("copernicusfm", WIDE, 64, _TOLD),
    "copernicusfm_untold": Case("copernicusfm", RADAR, 224, {}),
}
ENCODERS = {
    "clay": lambda: ClayEncoder(**CLAY),
    "dofa": lambda: DofaEncoder(**DOFA),
    "copernicusfm": lambda: CopernicusEncoder(**COPERNICUS),
}


def small_encoder(family: str) -> torch.nn.Module:
    encoder = ENCODERS[family]()
    encoder.load_state_dict(weights(shapes_of(encoder)))
    return encoder.eval().requires_grad_(False)


def assert_close(ours: object, theirs: object) -> None:
    actual, expected = torch.as_tensor(np.asarray(ours)), torch.as_tensor(np.asarray(theirs))
    tolerance = 2e-5 + 5e-6 * expected.abs().max().item()
    print(f"{(actual - expected).abs().max().item() / tolerance:.3f} of the tolerance")  # shown by -rP
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
