"""Plain vision transformers in a call: what is fed, which token is the vector, and where the tokens lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from impulse import assert_that_the_cell_on_it_answers, unmix
from tiny import shrunken

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, get_embedding, plan_embedding
from rs_embed.embedders.card import ModelCard
from rs_embed.errors import SpecError
from rs_embed.testing import FieldProvider

SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=1120)


def small(model_id: str) -> ModelCard:
    card = shrunken(model_id, dim=32, depth=2, heads=2)
    return replace(card, id=f"{model_id}_small")


def embed(model_id: str, **options):
    call = {"spatial": PLACE, "temporal": SUMMER, "backend": FieldProvider(), "pretrained": False}
    return get_embedding(small(model_id), **(call | options))


def fed(model_id: str, **options) -> tuple[np.ndarray, np.ndarray]:
    """A chip, and what the network gets."""
    provider = FieldProvider(options.pop("field", None) or (lambda lon, lat, band: 1000.0 + 100 * np.cos(9999 * lon)))
    call = {"temporal": SUMMER, "backend": provider, "pretrained": False} | options
    plan = plan_embedding(small(model_id), PLACE, **call)
    caught = []
    hook = plan.job.embedder.network.module.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    (_,) = plan.run()
    hook.remove()
    return provider.fetch(provider.queries[0]).values[0], caught[0][0].numpy()


def test_sentinel_2_is_divided_by_10_000_and_for_softcon_standardised():
    chip, image = fed("ssl4eo_s12_vitb16_mae")
    np.testing.assert_allclose(image, chip / 10_000, rtol=1e-6)
    chip, image = fed("softcon_vits14")
    mean, std = (np.array(one)[:, None, None] for one in ([1612.9, 1397.6], [791.0, 854.3]))
    np.testing.assert_allclose(image[:2], (chip[:2] - mean) / std, rtol=1e-4, atol=1e-5)
    assert image.shape == (13, 224, 224)


def test_sentinel_1_is_standardised_in_db_and_its_nodata_becomes_the_mean():
    def field(lon, lat, band):
        decibel = np.full(lon.shape, -12.59 if band == "VV" else -20.26 + 5.91)
        decibel[:8, :8] = np.nan
        return decibel

    _, image = fed("softcon_vits14_s1", field=field)
    np.testing.assert_allclose(image[0], 0, atol=1e-6)
    np.testing.assert_allclose(image[1, :8, :8], 0, atol=1e-6)
    np.testing.assert_allclose(image[1, 8:, 8:], 1, atol=1e-6)


def test_the_vector_is_the_mean_of_the_patches_or_the_class_token():
    grid = embed("softcon_vits14", output=OutputSpec.grid())
    mean, own = embed("softcon_vits14"), embed("softcon_vits14", pooled="class")
    np.testing.assert_allclose(mean.data, grid.data.mean(axis=(1, 2)), atol=1e-5)
    assert np.abs(own.data - mean.data).max() > 1e-3
    with pytest.raises(SpecError, match="Expected mean pooling, got 'max': the vector is the class_token"):
        embed("softcon_vits14", pooled="class", output=OutputSpec.pooled("max"))


def test_an_unset_choice_of_the_vector_is_not_part_of_a_fingerprint():
    first, second = embed("ssl4eo_s12_vits16_dino"), embed("ssl4eo_s12_vits16_dino", pooled="patch")
    np.testing.assert_array_equal(first.data, second.data)
    assert first.meta.fingerprint != second.meta.fingerprint  # set knobs are part of it


@pytest.mark.parametrize("model_id", ["softcon_vits14", "ssl4eo_s12_vits16_dino"])
def test_a_bright_pixel_answers_in_its_cell(model_id):
    card = small(model_id)
    card = replace(card, id=f"{card.id}_impulse")
    unmix(card)
    patch = card.modalities[0].patch_px
    assert_that_the_cell_on_it_answers(card, 224, [(patch - 1, patch), (223, 222)])


def test_layers_lie_side_by_side():
    both = embed("softcon_vits14", layers=[0, 1], output=OutputSpec.grid())
    each = [embed("softcon_vits14", layers=layer, output=OutputSpec.grid()).data for layer in (0, 1)]
    np.testing.assert_array_equal(both.data, np.concatenate(each))
    assert both.meta["layers"] == [0, 1]


def test_half_precision_keeps_the_tokens():
    full, half = (embed("softcon_vits14", precision=precision).data for precision in ("fp32", "bf16"))
    assert torch.cosine_similarity(torch.from_numpy(full), torch.from_numpy(half), 0) > 0.999
