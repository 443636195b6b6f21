"""SatCLIP's harmonics beside closed forms, and the shapes of the published files."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import Legendre

from rs_embed.embedders.catalog import list_cards
from rs_embed.encoders.satclip import FIRST_FREQUENCY, SatClipEncoder, harmonics, legendre

PLACES = np.array([[12.94, 47.77], [-179.9, 0.0], [151.2, -33.9], [0.0, 89.9], [-75.0, -89.99], [80.0, 10.0]])


def closed_form(lonlat: np.ndarray, degree: int, order: int) -> np.ndarray:
    """A real harmonic by derivatives of a Legendre polynomial, with factorials; pi times as large for order 0."""
    lon, lat = np.radians(lonlat[:, 0] + 180), np.radians(lonlat[:, 1] + 90)
    x, m = np.cos(lat), abs(order)
    function = (1 - x**2) ** (m / 2) * Legendre.basis(degree).deriv(m)(x)
    size = math.sqrt((2 * degree + 1) / (4 * math.pi) * math.factorial(degree - m) / math.factorial(degree + m))
    if order == 0:
        return math.pi * size * function
    return math.sqrt(2) * size * function * (np.cos(m * lon) if order > 0 else np.sin(m * lon))


def test_harmonics_are_those_of_closed_forms_degree_by_degree_from_the_lowest_order():
    found = harmonics(torch.from_numpy(PLACES), 40).numpy()
    assert found.shape == (len(PLACES), 1600)
    orders = [(degree, order) for degree in range(40) for order in range(-degree, degree + 1)]
    for column, (degree, order) in enumerate(orders):
        np.testing.assert_allclose(
            found[:, column], closed_form(PLACES, degree, order), atol=2e-9, err_msg=f"degree {degree}, order {order}"
        )


def test_the_first_harmonics_are_the_numbers_in_the_authors_table():
    """Of degree 0 and 1: constants that stand in their generated code."""
    (lon, lat), (found,) = np.radians([57.0, 21.0]), harmonics(torch.tensor([[57.0, 21.0]]).double(), 2).numpy()
    phi, theta = lon + np.pi, lat + np.pi / 2
    side = 0.48860251190292 * np.sin(theta)
    wanted = [0.886226925452758, side * np.sin(phi), 1.53499006191973 * np.cos(theta), side * np.cos(phi)]
    np.testing.assert_allclose(found, wanted, atol=1e-13)


def test_the_squares_of_a_degree_add_up_to_the_same_everywhere_even_at_the_poles():
    x = torch.tensor([-1.0, -0.999999, -0.3, 0.0, 0.8, 1.0], dtype=torch.float64)
    values = legendre(x, 40)
    squares = values[..., 0] ** 2 + 2 * (values[..., 1:] ** 2).sum(-1)
    wanted = (2 * torch.arange(40).double() + 1) / (4 * math.pi)
    torch.testing.assert_close(squares, wanted[:, None].expand_as(squares), atol=1e-11, rtol=0)


def test_sines_stand_between_the_maps_the_first_of_them_thirty_times_as_quick():
    encoder = SatClipEncoder(dim=8, hidden=16, degrees=3)
    encoder.init_random(1)
    with torch.no_grad():
        state = {name: tensor.uniform_(-1, 1) for name, tensor in encoder.state_dict().items()}
        tokens = encoder(torch.from_numpy(PLACES).view(1, 2, 3, 2))
    assert tokens.values.shape == (1, 6, 8)
    assert [(grid.height, grid.width) for grid in tokens.layout.grids] == [(2, 3)]
    x = harmonics(torch.from_numpy(PLACES), 3).float().numpy()
    first, second, last = (
        (state[f"nnet.{name}.weight"].numpy(), state[f"nnet.{name}.bias"].numpy())
        for name in ("layers.0", "layers.1", "last_layer")
    )
    x = np.sin(FIRST_FREQUENCY * (x @ first[0].T + first[1]))
    x = np.sin(x @ second[0].T + second[1])
    np.testing.assert_allclose(tokens.values[0].numpy(), x @ last[0].T + last[1], atol=1e-4)


@pytest.mark.parametrize("card", list_cards("satclip_*"), ids=lambda card: card.id)
def test_a_release_has_six_tensors_of_the_published_shapes(card):
    with torch.device("meta"):
        encoder = SatClipEncoder(**card.arch)
    inputs = 1600 if card.id.endswith("l40") else 100
    wide, narrow = (512, 256)
    assert {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()} == {
        "nnet.layers.0.weight": (wide, inputs),
        "nnet.layers.0.bias": (wide,),
        "nnet.layers.1.weight": (wide, wide),
        "nnet.layers.1.bias": (wide,),
        "nnet.last_layer.weight": (narrow, wide),
        "nnet.last_layer.bias": (narrow,),
    }
    told = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    assert card.parameters_m == pytest.approx(told, rel=0.01)
