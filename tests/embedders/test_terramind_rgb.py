"""TerraMind's RGB: trained on bytes, and given them as they are."""

import numpy as np
import pytest
import rasterio
import torch
from shared_data import terramesh

from rs_embed import LocalRasters, OutputSpec, get_embedding, inspect_chip
from rs_embed.encoders.terramind.encoder import TerraMindEncoder
from rs_embed.errors import PixelWarning, SpecError, UnitMismatch

MEAN, STD = [87.271, 80.931, 66.667], [58.767, 47.663, 42.631]
"""Published, in 0..255. Source: terratorch 1.2.11, terramind_register.py."""
SIZE = {"dim": 192, "depth": 12, "heads": 3, "family": "B"}
NAMES = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    encoder = TerraMindEncoder(**SIZE, modalities=NAMES)
    encoder.init_random(seed=3)
    path = tmp_path_factory.mktemp("weights") / "TerraMind_v1_tiny.pt"
    torch.save(dict(encoder.state_dict()), path)
    return path


@pytest.fixture(scope="module")
def authors_tokens(checkpoint):
    """What the network gives for bytes that are standardised by the published table."""
    bare = TerraMindEncoder(**SIZE, modalities=NAMES).eval()
    bare.load_state_dict(torch.load(checkpoint))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def tokens(picture: np.ndarray) -> np.ndarray:
        image = (torch.from_numpy(picture.astype(np.float32)) - mean) / std
        with torch.inference_mode():
            return bare({"RGB": image[None]}).values[0].numpy()

    return tokens


@pytest.fixture(scope="module")
def picture():
    waves = np.sin(np.linspace(0, 9, 64))[:, None] * np.cos(np.linspace(0, 7, 64))
    noise = np.random.default_rng(5).normal(size=(3, 64, 64))
    return np.clip(np.rint(120 + 90 * waves + 30 * noise), 0, 255).astype(np.uint8)


def rgb(checkpoint, **options):
    return get_embedding("terramind_1_0_tiny", modality="RGB", ckpt=checkpoint, **options)


@pytest.mark.slow
@pytest.mark.parametrize("path", range(2))
def test_terrameshs_own_pictures_give_the_numbers_of_the_published_statistics(checkpoint, authors_tokens, path):
    file = terramesh("S2RGB")[path]
    with rasterio.open(file) as dataset:
        wanted = authors_tokens(dataset.read())
    grid = rgb(checkpoint, backend=file, output=OutputSpec.grid())
    np.testing.assert_allclose(grid.data, wanted.T.reshape(192, 14, 14), atol=2e-5 + 5e-6 * np.abs(wanted).max())
    assert grid.meta.inputs[0].units == ("byte",) * 3
    assert grid.meta.valid_fraction == 1
    assert grid.meta.inputs[0].clipped_fraction == 0
    vector = rgb(checkpoint, backend=LocalRasters(file))
    np.testing.assert_allclose(vector.data, wanted.mean(axis=0), atol=1e-5)


def test_bytes_are_taken_in_every_form_and_need_no_stretch(checkpoint, authors_tokens, picture):
    wanted = authors_tokens(picture).mean(axis=0)
    np.testing.assert_allclose(rgb(checkpoint, input_chw=picture).data, wanted, atol=1e-5)
    for cast in (np.float32, np.int16, np.int32):
        given = rgb(checkpoint, input_chw=picture.astype(cast), unit="byte")
        np.testing.assert_allclose(given.data, wanted, atol=1e-5)


def test_noise_a_ramp_and_a_flat_picture_give_three_vectors(checkpoint):
    ramp = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    vectors = [rgb(checkpoint, input_chw=np.stack([one] * 3).astype(np.uint8)).data for one in (ramp, ramp.T, noise)]
    with pytest.warns(PixelWarning, match="every band is constant"):
        vectors.append(rgb(checkpoint, input_chw=np.full((3, 64, 64), 128, np.uint8)).data)
    for i, one in enumerate(vectors):
        for other in vectors[:i]:
            assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("normalize", ["terramind_stats", "none"])
@pytest.mark.parametrize("cast", [np.float32, np.int16, np.int32])
def test_bytes_that_nobody_calls_so_are_refused(checkpoint, picture, normalize, cast):
    with pytest.raises(UnitMismatch, match="bytes of a picture"):
        rgb(checkpoint, input_chw=picture.astype(cast), normalize=normalize)


def test_dn_keep_their_numbers(checkpoint, authors_tokens):
    dn = np.random.default_rng(1).uniform(600, 2500, (3, 64, 64)).astype(np.float32)
    wanted = authors_tokens((dn - 470) / (2560 - 470) * 255).mean(axis=0)
    np.testing.assert_allclose(rgb(checkpoint, input_chw=dn).data, wanted, atol=1e-5)


@pytest.mark.slow
def test_a_model_of_reflectances_refuses_a_picture(picture):
    for model, options in (("thor", {"bands": ["B4", "B3", "B2"]}), ("terramind", {"bands": ["B4", "B3", "B2"]})):
        with pytest.raises(UnitMismatch, match="which are a picture for display"):
            get_embedding(model, input_chw=picture, pretrained=False, **options)


def test_a_report_tells_pictures_in_bytes(picture):
    report = inspect_chip("terramind", modality="RGB", input_chw=picture)
    assert [(band.unit, round(band.model_mean, 3), round(band.model_std, 3)) for band in report.bands] == [
        ("byte", mean, std) for mean, std in zip(MEAN, STD, strict=True)
    ]


def test_a_unit_without_an_array_is_refused_with_the_way_to_say_it_of_files():
    with pytest.raises(SpecError, match=r"LocalRasters\(path, unit='byte'\)"):
        get_embedding("terramind", modality="RGB", backend="scene.tif", unit="byte", pretrained=False)
