"""Where the tokens of TerraTorch's backbones look: one bright pixel through their real patches, beside the geobox."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from impulse import assert_that_the_cell_on_it_answers, embed, unmix

from rs_embed.embedders.catalog import get_card

pytestmark = [
    pytest.mark.skipif(find_spec("terratorch") is None, reason="terratorch is not installed here: `make parity`"),
    pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning"),
]
SMALL = {"arch": {"embed_dim": 64, "depth": 2, "num_heads": 2}, "dim": 64}
NETWORKS = {
    "prithvi": ("prithvi_eo_2_0_tiny_tl", SMALL),
    "prithvi_14px": ("prithvi_eo_2_0_600", SMALL),
    "clay": ("clay_1_0_base", {}),
    "dofa": ("dofa_1_0_base", {}),
}


@pytest.mark.parametrize("family", NETWORKS)
def test_a_bright_pixel_answers_in_its_cell(family):
    model_id, changes = NETWORKS[family]
    card = replace(get_card(model_id), id=f"{family}_impulse", aliases=(), **changes)
    unmix(card)
    side, patch = card.modalities[0].image_px, card.modalities[0].patch_px
    edges = [(0, 0), (patch - 2, patch - 1), (patch - 1, patch), (patch, patch + 1), (3 * patch - 1, 15)]
    assert_that_the_cell_on_it_answers(card, side, [*edges, (15, side - 2), (side - 1, side - 1)])


def test_the_last_row_and_column_of_dofa_reach_no_token():
    card = replace(get_card("dofa_1_0_base"), id="dofa_edge", aliases=())
    unmix(card)
    dark, bright = (embed(card, 224, pixel, 10_000) for pixel in (None, (100, 223)))
    np.testing.assert_array_equal(dark.data, bright.data)
    assert dark.geobox.boundingbox.right == bright.geobox.boundingbox.right


@pytest.mark.parametrize("prep", ["resize", "tile"])
def test_dofa_s_grid_keeps_its_place_where_it_is_resized_or_cut_into_windows(prep):
    """Windows of 224 px lie side by side; a resized input's pixel is larger, and so is the shift."""
    card = replace(get_card("dofa_1_0_base"), id=f"dofa_{prep}", aliases=())
    unmix(card)
    dark, bright = (embed(card, 448, pixel, 10_000, input_prep=prep) for pixel in (None, (40, 300)))
    change = np.abs(bright.data - dark.data).max(axis=0)
    row, col = np.unravel_index(change.argmax(), change.shape)
    cell_px = {"resize": 32, "tile": 16}[prep]
    shift_px = cell_px // 16
    assert (row, col) == ((40 + shift_px) // cell_px, (300 + shift_px) // cell_px)
    assert dark.geobox.resolution.x == 10 * cell_px
    west = embed(card, 448, None, 10_000, input_prep=prep).geobox.boundingbox.left
    assert west % 10 == 0 and dark.geobox.boundingbox.left == west
