"""Presto beside the authors' code, with their trained weights.

`golden_trained/presto_*.npz` are outputs of their `single_file_presto.py`; `presto.json` says how they were made.
Vectors must agree within 2e-5 + 5e-6 |x|. Their own tokens in float32 are up to 1.7e-5 from those in float64, so that
tokens are held to the same.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import trained

from rs_embed.encoders.kernels.linear import using
from rs_embed.encoders.presto import LAND_COVER, NO_CLASS, STATIC, PixelSeries, PrestoEncoder

GOLDEN = Path(__file__).parents[1] / "data/golden_trained"
FACTS = json.loads((GOLDEN / "presto.json").read_text())
CASES = [*FACTS["cases"]]


@pytest.fixture(scope="module")
def encoder() -> PrestoEncoder:
    state = torch.load(trained("presto/default_model.pt"), map_location="cpu", weights_only=True)
    found = PrestoEncoder(dim=128, depth=2, heads=8)
    found.load_state_dict(
        {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
    )
    return found.eval().requires_grad_(False)


def case(name: str) -> tuple[PixelSeries, dict[str, np.ndarray]]:
    """Inputs by group, as the authors' channels are, and what came out."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        found = dict(file)
    x, hidden = torch.from_numpy(found["x"]), torch.from_numpy(found["mask"]).bool()
    values, seen = {}, {}
    for group, bands in FACTS["groups"].items():
        own = [FACTS["bands"].index(band) for band in bands]
        steps = slice(1) if group == STATIC else slice(None)
        values[group], seen[group] = x[:, steps, own], ~hidden[:, steps, own].any(dim=-1)
    values[LAND_COVER] = torch.from_numpy(found["dynamic_world"])
    seen[LAND_COVER] = values[LAND_COVER] != NO_CLASS
    lat, lon = torch.deg2rad(torch.from_numpy(found["latlons"]).double()).unbind(-1)
    xyz = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=-1).float()
    months = (torch.from_numpy(np.atleast_1d(found["month"]))[:, None] + torch.arange(x.shape[1])) % 12
    return PixelSeries(values, seen, months, xyz), found


@pytest.mark.parametrize("kernels", ["packed", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_vectors_and_tokens_are_those_of_the_authors(encoder, name, kernels):
    series, wanted = case(name)
    with torch.inference_mode(), using(kernels):
        vectors, tokens = encoder(series), encoder.tokens(series)
    np.testing.assert_allclose(vectors.numpy(), wanted["pooled"], atol=2e-5, rtol=5e-6)
    np.testing.assert_allclose(tokens.numpy(), wanted["tokens"], atol=2e-5, rtol=5e-6)


def test_pixels_that_see_different_months_are_encoded_together_as_each_alone(encoder):
    series, _ = case("presto_all_24months")
    hidden = torch.rand(16, 24, generator=torch.Generator().manual_seed(1)) < 0.4
    some = replace(series, seen={name: one & ~hidden[:, : one.shape[1]] for name, one in series.seen.items()})
    some.seen["S2_RGB"][3] = False
    counts = torch.cat([*some.seen.values()], dim=1).sum(dim=1)
    assert len(counts.unique()) > 8
    with torch.inference_mode():
        together = encoder(some)
        alone = torch.cat([encoder(some.take(torch.tensor([i]))) for i in range(16)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    with torch.inference_mode():  # what is hidden may hold anything
        spoilt = {
            name: torch.where(some.seen[name][..., None], one, 1e6) if one.ndim == 3 else one
            for name, one in some.values.items()
        }
        torch.testing.assert_close(encoder(replace(some, values=spoilt)), together, atol=1e-5, rtol=0)


def test_a_pixel_that_sees_nothing_is_told_by_its_place_alone(encoder):
    series, _ = case("presto_s2_one_date")
    nothing = replace(series, seen={name: torch.zeros_like(one) for name, one in series.seen.items()})
    with torch.inference_mode():
        found = encoder(nothing)
    assert found.isfinite().all()
    assert encoder.tokens(nothing).shape == (16, 1, 128)


def test_gradients_flow_where_they_are_wanted(encoder):
    series, wanted = case("presto_s2_one_date")
    values = {name: one.clone().requires_grad_() for name, one in series.values.items() if one.is_floating_point()}
    values[LAND_COVER] = series.values[LAND_COVER]
    vectors = encoder(replace(series, values=values))
    np.testing.assert_allclose(vectors.detach().numpy(), wanted["pooled"], atol=2e-5, rtol=5e-6)
    vectors.sum().backward()
    assert values["S2_RGB"].grad.abs().max() > 0
