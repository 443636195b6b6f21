"""Pixels to tokens and back, with the authors' tokenizers at their real sizes; weights are random."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

if find_spec("terratorch") is None:
    pytest.skip("terratorch is not installed here: `make parity` runs this with it", allow_module_level=True)

from authors import pixels

from rs_embed import PointBuffer, detokenize, inspect_chip, tokenize
from rs_embed.core.bands import Unit
from rs_embed.embedders.cards.terramind_tokens import TOKENS
from rs_embed.errors import BandMismatch, InputError, SpecError, UnitMismatch, WeightsCorrupt, WeightsNotFound
from rs_embed.generation.networks import tokenizer_for
from rs_embed.generation.tokenizing import Tokenized

RANDOM = {"pretrained": False}
CPU = torch.device("cpu")
UNITS = {
    "S2L2A": Unit.DN,
    "S1GRD": Unit.DB,
    "S1RTC": Unit.DB,
    "DEM": Unit.METRE,
    "LULC": Unit.CLASS,
    "NDVI": Unit.INDEX,
}


def module_of(name):
    return tokenizer_for(name, None, pretrained=False, device=CPU).network.module


@pytest.mark.parametrize("name", UNITS)
def test_facts_are_those_of_the_authors_code(name):
    from terratorch.models.backbones.terramind.model import terramind_register as register
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
    from terratorch.models.backbones.terramind.tokenizer.tokenizer_register import pretrained_weights

    facts = TOKENS[name]
    assert list(facts.mean) == register.v1_pretraining_mean[facts.key]
    assert list(facts.std) == register.v1_pretraining_std[facts.key]
    assert facts.vocabulary == MODALITY_INFO[facts.key]["vocab_size"] == module_of(name).quantize.codebook_size
    there = pretrained_weights[facts.tokenizer]
    assert (facts.weights.hub, facts.weights.file) == (there["hf_hub_id"], there["hf_hub_filename"])
    assert module_of(name).n_channels == (10 if facts.is_classes else len(facts.bands))


@pytest.mark.parametrize("name", UNITS)
def test_every_modality_goes_there_and_back_in_its_own_unit(name):
    size = (64, 32) if name == "LULC" else (32, 32)
    before = pixels({"S1RTC": "S1GRD"}.get(name, name), *size)
    tokens = tokenize(name, before, **RANDOM)
    assert tokens.ids.shape == (size[0] // 16, size[1] // 16)
    assert 0 <= tokens.ids.min() <= tokens.ids.max() < tokens.vocabulary
    assert tokens.weights_note == "random weights: shapes only"
    after = detokenize(tokens, steps=1, **RANDOM)
    assert after.values.shape == before.shape
    assert after.unit == UNITS[name]
    assert after.note == "random weights: shapes only"
    facts, difference = TOKENS[name], after.values.astype(float) - before
    if name == "LULC":
        assert after.values.dtype == np.uint8
        assert after.error.rmse == ((difference != 0).mean(),)
        assert "changed their class" in str(after.error)
    else:
        np.testing.assert_allclose(after.error.rmse, np.sqrt((difference**2).mean(axis=(1, 2))), rtol=1e-5)
        np.testing.assert_allclose(after.error.bias, difference.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
        reach = np.array(facts.mean)[:, None, None] + np.multiply.outer([-1, 1], facts.std)[:, :, None, None]
        assert (after.values >= reach[0] - 0.01).all() and (after.values <= reach[1] + 0.01).all()
        assert str(after.error).count("RMSE") == len(facts.bands)


def test_ids_are_those_of_the_authors_module():
    before = pixels("NDVI", 64, 64)
    ours = tokenize("NDVI", before, **RANDOM).ids
    with torch.inference_mode():
        _, _, theirs = module_of("NDVI").encode(torch.from_numpy((before - 0.327) / 0.322)[None])
    assert np.array_equal(ours, theirs[0])
    assert len(np.unique(ours)) > 2, "the case tells ids apart"


def test_class_codes_become_the_ids_of_the_authors_module_and_their_pixels():
    before = pixels("LULC", 64, 48)
    tokens = tokenize("LULC", before, **RANDOM)
    with torch.inference_mode():
        _, _, ids = module_of("LULC").encode(torch.from_numpy(before))
        logits = module_of("LULC").decode_tokens(ids, image_size=(64, 48))
    assert np.array_equal(tokens.ids, ids[0])
    assert np.array_equal(detokenize(tokens, **RANDOM).values[0], logits[0].argmax(dim=0))


def test_the_diffusion_is_that_of_the_authors_when_it_begins_with_the_same_noise():
    tokenizer = tokenizer_for("NDVI", None, pretrained=False, device=CPU)
    ids = torch.arange(8).reshape(2, 4) * 1500
    theirs = tokenizer.network.module.decode_tokens(
        ids[None], timesteps=3, generator=torch.Generator().manual_seed(3), image_size=(32, 64), verbose=False
    )
    noise = torch.randn(1, 1, 32, 64, generator=torch.Generator().manual_seed(3))
    assert torch.equal(tokenizer.decode(ids, noise[0], steps=3), theirs[0])


def test_a_seed_decides_the_noise_and_one_step_more_is_another_image():
    tokens = tokenize("NDVI", pixels("NDVI", 32, 32), **RANDOM)
    first, again = (detokenize(tokens, seed=4, steps=2, **RANDOM).values for _ in range(2))
    assert np.array_equal(first, again)
    assert np.abs(first - detokenize(tokens, seed=5, steps=2, **RANDOM).values).max() > 1e-3
    assert np.abs(first - detokenize(tokens, seed=4, steps=3, **RANDOM).values).max() > 1e-4


def test_random_numbers_of_the_process_go_on_undisturbed():
    state = torch.get_rng_state()
    detokenize(tokenize("NDVI", pixels("NDVI", 32, 32), **RANDOM), steps=1, **RANDOM)
    assert torch.equal(torch.get_rng_state(), state)


def test_any_size_is_padded_and_cut_back_and_nodata_does_not_count():
    before = pixels("NDVI", 41, 70)
    before[0, :5] = np.nan
    tokens = tokenize("NDVI", before[0], **RANDOM)
    assert tokens.ids.shape == (3, 5)
    after = detokenize(tokens, steps=1, **RANDOM)
    assert after.values.shape == (1, 41, 70)
    assert after.error.valid_fraction == pytest.approx(36 / 41)
    assert np.isfinite(after.error.rmse).all()


def test_a_large_image_is_cut_into_tiles_and_ids_of_overlaps_come_from_one_of_them():
    before = pixels("LULC", 300, 240)
    tokens = tokenize("LULC", before, **RANDOM)
    assert tokens.ids.shape == (19, 15)
    corner = tokenize("LULC", before[:, :224, :224], **RANDOM)
    assert np.array_equal(tokens.ids[:4, :4], corner.ids[:4, :4])
    assert detokenize(tokens, **RANDOM).values.shape == (1, 300, 240)


def test_a_chip_keeps_its_place_through_the_geotiff(tmp_path):
    import rasterio

    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=160)
    chip = next(iter(inspect_chip("terramind_1_0_tiny", place, backend="sample", modality="S1GRD").chips.values()))
    back = detokenize(tokenize("S1GRD", chip, **RANDOM), steps=1, **RANDOM)
    assert back.geobox == chip.geobox
    with rasterio.open(back.to_geotiff(tmp_path / "s1.tif")) as file:
        assert file.transform == chip.geobox.affine
        assert file.descriptions == ("VV", "VH")
        assert file.units == ("db", "db")
        assert file.tags()["NOTE"] == "random weights: shapes only"
        np.testing.assert_array_equal(file.read(), back.values)


@pytest.mark.parametrize(
    ("name", "given", "error", "says"),
    [
        ("S2L2A", np.zeros((4, 32, 32)), BandMismatch, r"Expected \[12, H, W\] for S2L2A"),
        ("LULC", np.full((1, 32, 32), 11.0), InputError, "class codes 0 to 9"),
        ("LULC", np.full((1, 32, 32), 0.5), UnitMismatch, "fractions between codes"),
        ("NDVI", np.full((1, 32, 32), 6000.0), UnitMismatch, "values beyond -1 to 1"),
        ("S1GRD", np.full((2, 32, 32), 0.1), UnitMismatch, "linear power"),
        ("NDVI", np.full((1, 32, 32), np.nan), InputError, "got only nodata"),
        ("RGB", np.zeros((3, 32, 32)), SpecError, "modality"),
        ("DEM", "dem.tif", InputError, "an array or a chip for DEM, got 'dem.tif'"),
    ],
)
def test_what_cannot_be_tokenised_is_refused_before_weights_are_looked_for(name, given, error, says):
    with pytest.raises(error, match=says):
        tokenize(name, given, ckpt="/does/not/exist.pt")


def test_a_chip_of_another_sensor_is_refused():
    place = PointBuffer(lon=12.94, lat=47.77, buffer_m=160)
    chip = next(iter(inspect_chip("terramind_1_0_tiny", place, backend="sample").chips.values()))
    with pytest.raises(UnitMismatch, match="Expected one frame of VV, VH in db"):
        tokenize("S1GRD", chip, **RANDOM)


@pytest.mark.parametrize(
    ("ids", "shape"),
    [
        (np.array([[15360, 0]]), (16, 32)),
        (np.array([[-1, 0]]), (16, 32)),
        (np.array([[0]]), (16, 32)),
        (np.zeros((0, 0), int), (0, 0)),
        (np.array([[0.5, 1]]), (16, 32)),
    ],
)
def test_ids_that_do_not_exist_are_refused(ids, shape):
    tokens = Tokenized("NDVI", ids, shape, None, "none", None)
    with pytest.raises(InputError, match="from 0 to 15359"):
        detokenize(tokens, **RANDOM)


def test_what_is_no_tokens_of_a_modality_is_refused():
    with pytest.raises(InputError, match="Expected a Tokenized, got array"):
        detokenize(np.zeros((2, 2), int), **RANDOM)
    with pytest.raises(SpecError, match="got 'RGB'"):
        detokenize(Tokenized("RGB", np.zeros((2, 2), int), (32, 32), None, "none", None), **RANDOM)


def test_weights_come_from_a_file_by_the_rules_of_every_model(tmp_path):
    with pytest.raises(WeightsNotFound):
        tokenize("LULC", pixels("LULC", 32, 32), ckpt=tmp_path / "none.pt")
    (tmp_path / "page.pt").write_text("<html>")
    with pytest.raises(WeightsCorrupt):
        tokenize("LULC", pixels("LULC", 32, 32), ckpt=tmp_path / "page.pt")
    torch.save(module_of("LULC").state_dict(), tmp_path / "lulc.pt")
    found = tokenize("LULC", pixels("LULC", 64, 64), ckpt=tmp_path / "lulc.pt")
    (tmp_path / "lulc.pt").unlink()  # 0.7 GB
    assert found.weights.startswith("ckpt:lulc.pt#sha256:")
    assert found.weights_note is None
    assert np.array_equal(found.ids, tokenize("LULC", pixels("LULC", 64, 64), **RANDOM).ids)
