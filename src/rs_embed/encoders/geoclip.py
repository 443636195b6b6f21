"""GeoCLIP's location encoder: three networks, each on waves of a different length on a map of the Earth.

Source: geoclip 1.3.0, model/location_encoder.py (behaviour and names of the tensors). The projection: Šavrič, Patterson
and Jenny 2018, "The Equal Earth map projection", doi:10.1080/13658816.2018.1504949.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from rs_embed.encoders.kernels.linear import Linear, prepared
from rs_embed.encoders.layers import Encoder, at_once
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens

POINTS_AT_ONCE = 2048
"""Points to encode at once on a CPU: 8 MB between two layers."""
EQUAL_EARTH = (1.340264, -0.081106, 0.000893, 0.003796)
"""Coefficients of the first, third, seventh and ninth power of the parametric latitude."""
SCALE = 66.50336 / 180
"""The authors' factor for the projected coordinates of a sphere of radius 1."""


def equal_earth(lonlat: Float64[Tensor, "*point 2"]) -> Float64[Tensor, "*point 2"]:
    """Project degrees to x and y of the Equal Earth map of a sphere of radius 1."""
    lon, lat = torch.deg2rad(lonlat).unbind(-1)
    theta = torch.asin(math.sqrt(3) / 2 * lat.sin())
    a1, a2, a3, a4 = EQUAL_EARTH
    square = theta**2
    slope = a1 + square * (3 * a2 + square**2 * (7 * a3 + 9 * a4 * square))
    x = 2 * math.sqrt(3) / 3 * lon * theta.cos() / slope
    y = theta * (a1 + square * (a2 + square**2 * (a3 + a4 * square)))
    return torch.stack([x, y], dim=-1)


class Waves(nn.Module):
    """Cosines, then sines, of the location along fixed random directions.

    Args:
        count: Number of directions.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.b: nn.Parameter = nn.Parameter(torch.empty(count, 2))

    def forward(self, place: Float64[Tensor, "point 2"]) -> Float[Tensor, "point wave"]:
        """Encode each location, in float64, as the map is some 800 times as wide as the shortest waves."""
        turns = 2 * math.pi * (place @ self.b.double().mT)
        return torch.cat([turns.cos(), turns.sin()], dim=-1).float()


class Capsule(nn.Module):
    """Waves of one length and the layers on them, named as in the published file.

    Args:
        dim: Length of the output.
        hidden: Width of the hidden layers.
        waves: Number of directions.
    """

    def __init__(self, *, dim: int, hidden: int, waves: int) -> None:
        super().__init__()
        widths = (2 * waves, hidden, hidden)
        maps = [part for width in widths for part in (Linear(width, hidden), nn.ReLU(inplace=True))]
        self.capsule: nn.Sequential = nn.Sequential(Waves(waves), *maps)
        self.head: nn.Sequential = nn.Sequential(Linear(hidden, dim))

    def forward(self, place: Float64[Tensor, "point 2"]) -> Float[Tensor, "point dim"]:
        """Encode each location on its own."""
        out: Tensor = self.head(self.capsule(place))
        return out


class GeoClipEncoder(Encoder):
    """GeoCLIP's location encoder: the sum of three capsules.

    Args:
        dim: Length of a vector.
        hidden: Width of the hidden layers of a capsule.
        waves: Number of directions in each capsule.
        scales: Number of capsules.
    """

    def __init__(self, *, dim: int, hidden: int, waves: int, scales: int) -> None:
        super().__init__()
        self._names = [f"LocEnc{i}" for i in range(scales)]
        for name in self._names:
            self.add_module(name, Capsule(dim=dim, hidden=hidden, waves=waves))

    def forward(self, lonlat: Float64[Tensor, "batch row col 2"]) -> Tokens:
        """Encode points.

        Args:
            lonlat: Longitude and latitude, degrees.
        """
        _, rows, cols, _ = lonlat.shape
        capsules = [self.get_submodule(name) for name in self._names]
        places = (equal_earth(lonlat) * SCALE).flatten(0, 2)
        with prepared(self, device_type=lonlat.device.type):
            parts = places.split(at_once(POINTS_AT_ONCE, places))
            values = torch.cat([torch.stack([one(part).float() for one in capsules]).sum(dim=0) for part in parts])
        grid = TokenGrid("cells", rows, cols)
        return Tokens(values.view(len(lonlat), rows * cols, -1), TokenLayout((grid,)))
