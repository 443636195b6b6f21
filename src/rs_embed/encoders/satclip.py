"""SatCLIP's location encoder: spherical harmonics of the location, then three linear layers with sines between them.

Source: microsoft/satclip 322091f, location_encoder.py and positional_encoding/spherical_harmonics_generate_ylms.py
(behaviour, names of the tensors); Klemmer et al. 2025, arXiv:2311.17179.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from rs_embed.encoders.kernels.linear import Linear, prepared
from rs_embed.encoders.layers import Encoder, at_once
from rs_embed.encoders.tokens import TokenGrid, TokenLayout, Tokens

POINTS_AT_ONCE = 1024
"""Points to encode at once on a CPU: 13 MB of harmonics of 40 degrees in float64."""
FIRST_FREQUENCY = 30.0
"""Frequency of the first sine; the others have 1."""


def legendre(x: Float64[Tensor, " point"], degrees: int) -> Float64[Tensor, "degree point order"]:
    """Return the associated Legendre functions of each degree and order from 0, orthonormal on the sphere.

    They have no Condon-Shortley phase, and are 0 where the order exceeds the degree.

    Args:
        x: Cosine of the colatitude, -1 to 1.
        degrees: Number of degrees, starting from 0.

    Source: the three-term recurrence in the degree for fixed order, Abramowitz and Stegun 8.5.3, normalised.
    """
    order = torch.arange(degrees, dtype=torch.float64, device=x.device)
    grown = ((2 * order + 1) / (2 * order).clamp(min=1)).sqrt().cumprod(0)  # of order 0 the factor is 1
    sine = (1 - x.square()).clamp(min=0).sqrt()
    diagonal = grown * sine[:, None] ** order / math.sqrt(4 * math.pi)
    rows = torch.zeros(degrees, len(x), degrees, dtype=torch.float64, device=x.device)
    for degree in range(degrees):
        rows[degree, :, degree] = diagonal[:, degree]
        lower = order[:degree]
        if degree == 0:
            continue
        rise = ((4 * degree**2 - 1) / (degree**2 - lower**2)).sqrt()
        above = x[:, None] * rows[degree - 1, :, :degree]
        if degree > 1:
            fall = (((degree - 1) ** 2 - lower**2).clamp(min=0) / (4 * (degree - 1) ** 2 - 1)).sqrt()
            above -= fall * rows[degree - 2, :, :degree]
        rows[degree, :, :degree] = rise * above
    return rows


def harmonics(lonlat: Float64[Tensor, "point 2"], degrees: int) -> Float64[Tensor, "point harmonic"]:
    """Return the real spherical harmonics of locations, as used in the training of SatCLIP.

    They are ordered by degree, then by order from the lowest to the highest. Those of order 0 are pi times too large,
    because of a missing bracket in the authors' code, which the weights have learned.

    Args:
        lonlat: Longitude and latitude, degrees.
        degrees: Number of degrees, starting from 0; the result has `degrees ** 2` channels.
    """
    lon, lat = torch.deg2rad(lonlat).unbind(-1)
    values = legendre(-lat.sin(), degrees)  # the authors count from the south pole and from 180 W
    order = torch.arange(1, degrees, dtype=torch.float64, device=lonlat.device)
    turned = (lon + math.pi)[:, None] * order
    cosines, sines = math.sqrt(2) * turned.cos(), math.sqrt(2) * turned.sin()
    parts = []
    for degree in range(degrees):
        row = values[degree, :, 1 : degree + 1]
        parts += [(row * sines[:, :degree]).flip(-1), math.pi * values[degree, :, :1], row * cosines[:, :degree]]
    return torch.cat(parts, dim=-1)


class Maps(nn.Module):
    """Linear layers with sines between them, named as in the published file.

    Args:
        inputs: Number of harmonics.
        hidden: Width of the hidden layers.
        dim: Length of the output.
    """

    def __init__(self, *, inputs: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.layers: nn.ModuleList = nn.ModuleList([Linear(inputs, hidden), Linear(hidden, hidden)])
        self.last_layer: nn.Linear = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "point harmonic"]) -> Float[Tensor, "point dim"]:
        """Encode each location on its own."""
        first, second = self.layers
        x = torch.sin(FIRST_FREQUENCY * first(x).float())
        out: Tensor = self.last_layer(torch.sin(second(x).float()))
        return out


class SatClipEncoder(Encoder):
    """SatCLIP's location encoder.

    Args:
        dim: Length of a vector.
        hidden: Width of the hidden layers.
        degrees: Number of degrees of the harmonics, starting from 0.
    """

    def __init__(self, *, dim: int, hidden: int, degrees: int) -> None:
        super().__init__()
        self._degrees = degrees
        self.nnet: Maps = Maps(inputs=degrees**2, hidden=hidden, dim=dim)

    def forward(self, lonlat: Float64[Tensor, "batch row col 2"]) -> Tokens:
        """Encode points.

        Args:
            lonlat: Longitude and latitude, degrees.
        """
        _, rows, cols, _ = lonlat.shape
        places = lonlat.flatten(0, 2)
        with prepared(self, device_type=lonlat.device.type):
            parts = places.split(at_once(POINTS_AT_ONCE, places))
            values = torch.cat([self.nnet(harmonics(part, self._degrees).float()) for part in parts])
        grid = TokenGrid("cells", rows, cols)
        return Tokens(values.view(len(lonlat), rows * cols, -1), TokenLayout((grid,)))
