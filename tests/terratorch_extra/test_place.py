"""Where the tokens of TerraTorch's backbones look: one bright pixel through their real patches, beside the geobox."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
from impulse import assert_that_the_cell_on_it_answers, unmix

from rs_embed.embedders.catalog import get_card

pytestmark = [
    pytest.mark.skipif(find_spec("terratorch") is None, reason="terratorch is not installed here: `make parity`"),
    pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning"),
]
NETWORKS = {
    "clay": ("clay_1_0_base", {}),
}


@pytest.mark.parametrize("family", NETWORKS)
def test_a_bright_pixel_answers_in_its_cell(family):
    model_id, changes = NETWORKS[family]
    card = replace(get_card(model_id), id=f"{family}_impulse", aliases=(), **changes)
    unmix(card)
    side, patch = card.modalities[0].image_px, card.modalities[0].patch_px
    edges = [(0, 0), (patch - 2, patch - 1), (patch - 1, patch), (patch, patch + 1), (3 * patch - 1, 15)]
    assert_that_the_cell_on_it_answers(card, side, [*edges, (15, side - 2), (side - 1, side - 1)])
