"""CROMA in a call: which encoder runs, how pixels are scaled, and which token is the vector."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from impulse import assert_that_the_cell_on_it_answers
from tiny import shrunken

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding, plan_embedding
from rs_embed.errors import SpecError
from rs_embed.testing import FieldProvider

CARD = replace(shrunken("croma_base", dim=32, depth=2), id="croma_small")
CARD = replace(CARD, arch={**CARD.arch, "heads": 2})
SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=800)
BOTH = {"s2": 2, "s1": 2}


def ground(lon, lat, band):
    waves = np.cos(9e3 * lon) + np.sin(7e3 * lat)
    return -14 + 2 * waves if band in ("VV", "VH") else 1500 + 300 * waves


def embed(**options):
    call = {"spatial": PLACE, "temporal": SUMMER, "backend": FieldProvider(ground), "pretrained": False}
    return get_embedding(CARD, **(call | options))


def fed(**options) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The chips by modality, and what the network gets of all windows."""
    provider = FieldProvider(options.pop("field", ground))
    plan = plan_embedding(CARD, PLACE, SUMMER, backend=provider, pretrained=False, **options)
    caught = []
    hook = plan.job.embedder.network.module.register_forward_pre_hook(
        lambda module, given, named: caught.append(named), with_kwargs=True
    )
    (_,) = plan.run()
    hook.remove()
    chips = {query.modality: provider.fetch(query).values[0] for query in list(provider.queries)}
    return chips, {name: image.numpy() for name, image in caught[0].items()}


def eight_bits(values: np.ndarray, mean: float, std: float) -> np.ndarray:
    """As the authors' README does it, with torch."""
    low, high = mean - 2 * std, mean + 2 * std
    share = (torch.from_numpy(values) - np.float32(low)) / np.float32(high - low)
    return (torch.clip(share * 255, 0, 255).to(torch.uint8) / 255).numpy()


def test_each_band_is_scaled_by_the_whole_chip_and_not_by_the_window():
    chips, given = fed()
    assert given["optical"].shape[0] == 4  # windows
    for name, of in (("optical", "s2"), ("radar", "s1")):
        band = chips[of][0]
        expected = eight_bits(band, band.mean(dtype=np.float64), band.std(dtype=np.float64, ddof=1))
        for window, (row, col) in zip(given[name], ((0, 0), (0, 40), (40, 0), (40, 40)), strict=True):
            apart = np.abs(window[0] - expected[row : row + 120, col : col + 120])
            assert apart.max() < 1.01 / 255 and (apart > 1e-6).mean() < 1e-3  # a level at most, where rounding decides


def test_fixed_numbers_take_radar_as_linear_and_reflectance_as_dn():
    chips, given = fed(normalize="card_stats", input_prep="crop")
    there = (slice(20, 140), slice(20, 140))
    radar = eight_bits(10 ** (chips["s1"][1][there] / 10), 0.03, 0.15)
    np.testing.assert_allclose(given["radar"][0, 1], radar, atol=1.01 / 255)
    np.testing.assert_allclose(given["optical"][0, 3], eight_bits(chips["s2"][3][there], 1513, 1741), atol=1.01 / 255)


@pytest.mark.parametrize("normalize", ["image", "card_stats"])
def test_a_constant_band_and_nodata_become_the_middle_and_not_nan(normalize):
    def field(lon, lat, band):
        values = np.full(lon.shape, -14.0 if band in ("VV", "VH") else 1500.0)
        values[:30] = np.nan
        return values

    _, given = fed(field=field, normalize=normalize, input_prep="crop")
    assert all(np.isfinite(image).all() for image in given.values())
    assert np.isclose(given["radar"][0, :, :10], 127 / 255).all()
    if normalize == "image":
        assert np.isclose(given["optical"], 127 / 255).all()


def test_both_images_run_the_joint_encoder_and_one_its_own():
    joint, optical, radar = (embed(modality=name) for name in (None, "s2", "s1"))
    assert [one.shape for one in (joint.data, optical.data, radar.data)] == [(32,)] * 3
    assert math.isclose(float(np.abs(joint.data - embed(modality="s1+s2").data).max()), 0, abs_tol=1e-5)
    assert np.abs(joint.data - optical.data).max() > 1e-3 and np.abs(radar.data - optical.data).max() > 1e-3
    with pytest.raises(SpecError, match="Expected one of s2 and s2_l1c, which have the same encoder"):
        embed(modality="s2+s2_l1c")


def test_the_vector_of_one_sensor_is_its_gap_vector_and_of_both_the_mean_of_patches():
    grid, joint = embed(output=OutputSpec.grid()), embed()
    np.testing.assert_allclose(joint.data, grid.data.mean(axis=(1, 2)), atol=1e-5)
    optical = embed(modality="s2", output=OutputSpec.grid())
    patch, gap = (embed(modality="s2", pooled=name) for name in ("patch", "gap"))
    np.testing.assert_allclose(patch.data, optical.data.mean(axis=(1, 2)), atol=1e-5)
    assert np.abs(gap.data - patch.data).max() > 1e-3
    with pytest.raises(SpecError, match="the vector is the gap_vector"):
        embed(modality="s2", output=OutputSpec.pooled("max"))


def test_a_bright_pixel_answers_in_its_cell():
    card = replace(CARD, id="croma_impulse")
    plan = plan_embedding(card, PLACE, SUMMER, backend=FieldProvider(), pretrained=False)
    with torch.no_grad():
        for name, parameter in plan.job.embedder.network.module.named_parameters():
            if ".to_out." in name:
                parameter.zero_()
    options = {"modality": "s2", "normalize": "card_stats"}
    assert_that_the_cell_on_it_answers(card, 120, [(0, 0), (7, 8), (15, 118), (119, 119)], **options)


def test_the_sample_scene_has_both_sensors():
    grid = get_embedding(CARD, output=OutputSpec.grid(), backend="sample", pretrained=False)
    assert grid.data.shape == (32, 45, 30)
