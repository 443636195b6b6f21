from importlib.resources import files

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from rs_embed.encoders.rcf import RcfEncoder
from rs_embed.encoders.tokens import TokenGrid, TokenLayout
from rs_embed.errors import BandMismatch, SpecError

DATA = files("rs_embed") / "data"


@pytest.fixture(scope="module")
def bank() -> dict[str, torch.Tensor]:
    return load_file(str(DATA / "mosaiks_rcf_bank.safetensors"))


@pytest.fixture(scope="module")
def mosaiks(bank: dict[str, torch.Tensor]) -> RcfEncoder:
    encoder = RcfEncoder()
    encoder.load_state_dict({name: bank[name] for name in ("weight", "bias")}, strict=True)
    return encoder


def random_encoder(filters: int, bands: int) -> RcfEncoder:
    encoder = RcfEncoder(filters=filters, bands=bands)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(encoder.weight.shape, generator=generator)
    encoder.load_state_dict({"weight": weight, "bias": torch.randn(filters, generator=generator)})
    return encoder


def published_maps(encoder: RcfEncoder, chip: torch.Tensor) -> NDArray[np.float64]:
    """relu(y) and relu(-y) with y = conv(x) + bias, as torchgeo publishes it: [2 * filter, height, width]."""
    image = np.pad(chip.numpy().astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
    y = np.einsum("bhwij,fbij->fhw", windows, encoder.weight.numpy().astype(np.float64))
    y += encoder.bias.numpy()[:, None, None]
    return np.concatenate([np.maximum(y, 0), np.maximum(-y, 0)])


def test_a_token_is_the_mean_of_the_published_features_over_its_cell():
    encoder = random_encoder(filters=70, bands=5)  # more filters than are taken at once
    chip = torch.randn(5, 6, 9, generator=torch.Generator().manual_seed(2))
    tokens = encoder(chip[None], patch_px=3)
    cells = published_maps(encoder, chip).reshape(140, 2, 3, 3, 3).mean(axis=(2, 4))
    assert tokens.layout == TokenLayout((TokenGrid("cell", height=2, width=3),))
    np.testing.assert_allclose(tokens.values[0].numpy(), cells.reshape(140, 6).T, rtol=1e-5, atol=1e-5)


def test_the_mean_of_all_tokens_is_the_mean_of_the_full_map():
    encoder = random_encoder(filters=8, bands=3)
    chip = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(3))
    pooled = encoder(chip[None], patch_px=4).values[0].mean(dim=0)
    np.testing.assert_allclose(pooled.numpy(), published_maps(encoder, chip).mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("turn", [lambda x: x.rot90(1, (-2, -1)), lambda x: x.flip(-1), lambda x: x.flip(-2)])
def test_turning_the_image_and_the_filters_turns_the_grid(turn):
    encoder, turned = random_encoder(filters=8, bands=3), random_encoder(filters=8, bands=3)
    turned.weight = turn(encoder.weight).contiguous()
    chip = torch.randn(1, 3, 12, 8, generator=torch.Generator().manual_seed(4))
    grid = encoder(chip, patch_px=4).values[0].T.reshape(16, 3, 2)
    tokens = turned(turn(chip).contiguous(), patch_px=4)
    shape = (tokens.layout.grids[0].height, tokens.layout.grids[0].width)
    torch.testing.assert_close(tokens.values[0].T.reshape(16, *shape), turn(grid), rtol=1e-5, atol=1e-5)


def test_a_chip_gives_the_same_numbers_alone_and_in_a_batch():
    encoder = random_encoder(filters=8, bands=3)
    chips = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    together = encoder(chips).values
    assert all(torch.equal(encoder(chip[None]).values[0], row) for chip, row in zip(chips, together, strict=True))


def test_a_size_that_cells_do_not_divide_is_refused():
    with pytest.raises(SpecError, match="multiples of 8 px, got 16 x 20"):
        RcfEncoder(filters=2, bands=3)(torch.zeros(1, 3, 16, 20))


def test_another_number_of_bands_is_refused():
    with pytest.raises(BandMismatch, match="Expected 12 bands for the filter bank, got 10"):
        RcfEncoder(filters=2)(torch.zeros(1, 10, 16, 16))


def test_filters_and_bias_are_no_parameters():
    encoder = RcfEncoder(filters=2)
    assert list(encoder.parameters()) == []
    assert set(encoder.state_dict()) == {"weight", "bias"}


def test_every_filter_of_the_bank_sums_to_zero(bank):
    # Pieces are centred before they are whitened; a bank whose axes were mixed up in the file fails here.
    weight = bank["weight"].float()
    assert weight.shape == (512, 12, 3, 3)
    assert (weight.sum(dim=(1, 2, 3)).abs() < 1e-3 * weight.abs().sum(dim=(1, 2, 3))).all()


@pytest.mark.slow
def test_places_alike_to_mosaiks_are_alike_to_radar(bank, mosaiks):
    # A target that no Sentinel-2 threshold made up: VH backscatter of the bundled scene, which the bank never
    # saw. A cell's five nearest neighbours in feature space, all at least 400 m away, predict it with
    # r = 0.63; means of the bands reach 0.53, Gaussian filters 0.56.
    with rasterio.open(str(DATA / "sample/s2_l2a_12band_10m.tif")) as raster:
        pixels = torch.from_numpy(raster.read().astype(np.float32))
    with rasterio.open(str(DATA / "sample/s1_vv_vh_10m.tif")) as raster:
        power = 10 ** (raster.read(2) * raster.scales[1] / 10)
    vh_db = 10 * np.log10(power.reshape(45, 8, 30, 8).mean(axis=(1, 3))).ravel()
    standardised = (pixels - bank["mean"][:, None, None]) / bank["std"][:, None, None]
    features = torch.nn.functional.normalize(mosaiks(standardised[None]).values[0], dim=1)

    rows, columns = np.divmod(np.arange(45 * 30), 30)
    far = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) >= 5
    alike = np.where(far, (features @ features.T).numpy(), -np.inf)
    nearest = np.argsort(-alike, axis=1)[:, :5]
    assert np.corrcoef(vh_db[nearest].mean(axis=1), vh_db)[0, 1] > 0.58
