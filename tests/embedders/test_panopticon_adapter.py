"""Panopticon and TerraFM in a call: channels and stems follow the modality."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from impulse import assert_that_the_cell_on_it_answers, unmix
from tiny import shrunken

from rs_embed import OutputSpec, PointBuffer, SensorSpec, TemporalSpec, get_embedding, plan_embedding
from rs_embed.core.bands import Unit
from rs_embed.embedders.card import BandStats, Modality
from rs_embed.errors import BandMismatch, SpecError
from rs_embed.testing import FieldProvider

CARD = replace(shrunken("panopticon", dim=48, depth=1, heads=2), id="panopticon_small")
TERRAFM = replace(shrunken("terrafm_base", dim=24, depth=1, heads=2), id="terrafm_small")
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=420)


def embed(card=CARD, **options):
    call = {"spatial": PLACE, "temporal": SUMMER, "backend": FieldProvider(), "pretrained": False}
    return get_embedding(card, **(call | options))


def fed(card=CARD, **options) -> list:
    """What the network gets."""
    plan = plan_embedding(card, PLACE, SUMMER, backend=FieldProvider(), pretrained=False, **options)
    caught = []
    hook = plan.job.embedder.network.module.register_forward_pre_hook(lambda module, given: caught.append(given))
    (_,) = plan.run()
    hook.remove()
    return list(caught[0])


def test_channels_are_wavelengths_and_radar_ids_in_the_order_of_the_inputs():
    image, ids, _ = fed(modality="s2+s1", bands={"s2": ["B4", "B8", "B11"]})
    assert ids.tolist() == [[665, 828, 1614, -1, -2]]
    assert image.shape == (1, 5, 84, 84)
    assert embed(modality="s2+s1", bands={"s2": ["B4"]}).meta["channel_ids"] == [665, -1, -2]


@pytest.mark.parametrize(("orbit", "ids"), [("ASCENDING", [-5, -6]), ("DESCENDING", [-9, -10])])
def test_the_orbit_of_radar_is_told_if_it_is_chosen(orbit, ids):
    sensor = SensorSpec("COPERNICUS/S1_GRD", ("VV", "VH"), orbit_pass=orbit)
    assert fed(modality="s1", sensor=sensor)[1].tolist() == [ids]


def test_any_collection_is_taken_with_the_wavelengths_of_its_bands():
    stats = {"SR_B4": BandStats("red", Unit.REFLECTANCE, 0.1, 0.1, 0.6546)}
    mine = Modality("mine", SensorSpec("LANDSAT/LC08/C02/T1_L2", ("SR_B4",), scale_m=10), stats, 224, 14)
    assert fed(replace(CARD, id="panopticon_mine", modalities=(mine,)))[1].tolist() == [[654]]
    nameless = replace(mine, stats={"SR_B4": BandStats("red", Unit.REFLECTANCE, 0.1, 0.1)})
    with pytest.raises(BandMismatch, match="Expected the wavelength of SR_B4 of mine, got none"):
        embed(replace(CARD, id="panopticon_nameless", modalities=(nameless,)))


def test_the_vector_is_the_class_token_or_the_mean_of_patches():
    grid, own, mean = embed(output=OutputSpec.grid()), embed(), embed(pooled="patch")
    np.testing.assert_allclose(mean.data, grid.data.mean(axis=(1, 2)), atol=1e-5)
    assert grid.data.shape == (48, 6, 6) and np.abs(own.data - mean.data).max() > 1e-3
    with pytest.raises(SpecError, match="the vector is the class_token"):
        embed(output=OutputSpec.pooled("max"))


@pytest.mark.parametrize("card", [CARD, TERRAFM], ids=lambda card: card.id)
def test_a_bright_pixel_answers_in_its_cell(card):
    card = replace(card, id=f"{card.id}_impulse")
    unmix(card)
    patch = card.modalities[0].patch_px
    assert_that_the_cell_on_it_answers(card, 224, [(patch - 1, patch), (223, 222)])


@pytest.mark.parametrize(("modality", "stem"), [("s2", "s2_l2a"), ("s2_l1c", "s2_l1c"), ("s1", "s1"), ("s1_rtc", "s1")])
def test_terrafm_sends_each_level_through_its_own_stem(modality, stem):
    image, chosen, _ = fed(TERRAFM, modality=modality)
    assert chosen == stem and image.shape[1] == (2 if stem == "s1" else 12)


def test_terrafm_s_vector_is_its_class_token_unless_patches_are_chosen():
    grid, own, mean = (embed(TERRAFM, **o) for o in ({"output": OutputSpec.grid()}, {}, {"pooled": "patch"}))
    assert np.abs(own.data - mean.data).max() > 1e-4
    assert grid.data.shape == (24, 6, 6)
    assert torch.isfinite(torch.from_numpy(own.data)).all()
