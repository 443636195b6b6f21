"""Prithvi-EO-2.0: numbers of TerraTorch's own network (tests/parity/test_prithvi_parity.py), and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import pixels, state_of

from rs_embed.encoders.prithvi import PrithviEncoder
from rs_embed.errors import BandMismatch, InputError

EXPECTED = np.load(Path(__file__).parents[1] / "data/vit/prithvi.npz")
DATES = [[(2021.0, 12.0), (2021.0, 150.0), (2022.0, 200.0)]]
TOLD = {"dates": torch.tensor(DATES), "place": torch.tensor([[47.77, -121.5]])}


def encoder(told: int) -> PrithviEncoder:
    made = PrithviEncoder(dim=32, depth=2, heads=2, patch_px=16, told=told)
    made.load_state_dict(state_of(made))
    return made.eval()


@pytest.mark.parametrize(("name", "frames"), [("told", 3), ("untold", 1)])
@torch.inference_mode()
def test_tokens_are_those_of_terratorch_also_of_a_dated_series(name, frames):
    images = torch.from_numpy(pixels(name, 1, frames, 6, 32, 48))
    found = encoder(int(name == "told"))(images, layers=[0, 1], **(TOLD if name == "told" else {}))
    assert [grid.name for grid in found.layout.grids] == (["patch"] if frames == 1 else ["frame0", "frame1", "frame2"])
    assert {(grid.height, grid.width) for grid in found.layout.grids} == {(2, 3)}
    np.testing.assert_allclose(found.values[..., :32], EXPECTED[f"{name}_first"], atol=3e-5)
    np.testing.assert_allclose(found.values[..., 32:], EXPECTED[name], atol=3e-5)


@pytest.mark.parametrize(
    ("shape", "options", "error", "says"),
    [
        ((1, 5, 32, 32), {}, BandMismatch, "Expected 6 bands, got 5"),
        ((2, 6, 32, 40), {}, InputError, "whole patches of 16 px, got 2 of 32 x 40"),
        ((2, 6, 32, 32), TOLD, InputError, "Expected 2 dates, one per frame, got 3"),
        ((3, 6, 32, 32), {**TOLD, "told": 0}, InputError, "trained without them"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, error, says):
    given = {"told": 1, **options}
    with pytest.raises(error, match=says):
        encoder(given.pop("told"))(torch.zeros(1, *shape), **given)
